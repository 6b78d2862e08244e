//! `roomkeeper version`.
//!
//! It tells what the binary is, and nothing about the machine it runs on.

use std::io::{self, Write};

use serde_json::{Value, json};

/// The version of the binary.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The protocols that this server speaks, by the names of their sub-protocols.
const PROTOCOLS: [&str; 1] = [application::upgrade::SUBPROTOCOL];

/// Prints name and version.
///
/// # Errors
/// The writer's.
pub fn execute(out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "roomkeeper {VERSION}")
}

/// Prints what the binary is as one JSON object: the commit is null where the build did not say.
///
/// # Errors
/// The writer's.
pub fn as_json(out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", build())
}

/// What the binary is.
#[must_use]
pub fn build() -> Value {
    let features: &[&str] = if cfg!(feature = "sqlite") { &["sqlite"] } else { &[] };
    let commit = option_env!("ROOMKEEPER_COMMIT").filter(|commit| !commit.is_empty());
    json!({
        "name": "roomkeeper",
        "version": VERSION,
        "commit": commit,
        "features": features,
        "rustc": env!("ROOMKEEPER_RUSTC"),
        "target": env!("ROOMKEEPER_TARGET"),
        "protocols": PROTOCOLS,
    })
}
