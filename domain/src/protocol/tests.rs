//! What the protocol promises, checked from both ends of the wire.

mod commands;
mod frames;
mod random_commands;
mod resume;
mod scanner;
mod schema;
mod selective;
mod server_strategies;
mod strategies;
