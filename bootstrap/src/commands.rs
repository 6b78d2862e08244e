//! The commands besides serving.
//!
//! Each writes what it answers to the writer it is given, and ends nothing.

pub mod config;
pub mod publish;
pub mod subscribe;
pub mod token_create;
pub mod version;
