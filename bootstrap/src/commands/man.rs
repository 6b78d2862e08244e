//! `roomkeeper man`: manual pages in roff, made from the same description that parses the command
//! line.
//!
//! It writes into a directory only when one is named, and never outside of it.

use std::io::{self, Write};
use std::path::Path;

use clap_mangen::{Man, generate_to};

/// Prints the main page, or writes a page for each command into a directory.
///
/// # Errors
/// The writer's, or those of the directory.
pub fn execute(command: clap::Command, dir: Option<&Path>, out: &mut dyn Write) -> io::Result<()> {
    match dir {
        None => Man::new(command).render(out),
        Some(dir) => generate_to(command, dir)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", dir.display()))),
    }
}
