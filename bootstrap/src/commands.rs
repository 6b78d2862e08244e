//! The commands besides serving.
//!
//! Each writes what it answers to the writer it is given, and ends nothing.

pub mod bench;
pub mod completions;
pub mod config;
pub mod explain;
pub mod health;
mod health_tls;
pub mod man;
pub mod publish;
pub mod schema;
pub mod subscribe;
pub mod token_create;
pub mod token_inspect;
pub mod version;
