//! `roomkeeper version`.

use std::io::{self, Write};

/// The version of the binary.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Prints name and version.
///
/// # Errors
/// The writer's.
pub fn execute(out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "roomkeeper {VERSION}")
}
