//! `roomkeeper completions`: what a shell reads to complete the words of the command line.
//!
//! It is made from the same description that parses them, and holds nothing else.

use std::io::{self, Write};

use clap_complete::{Shell, generate};

/// Prints the script of one shell.
///
/// # Errors
/// The writer's.
pub fn execute(shell: Shell, mut command: clap::Command, out: &mut dyn Write) -> io::Result<()> {
    // The generator panics where its writer fails, so it gets one that can't.
    let mut script = Vec::new();
    generate(shell, &mut command, "roomkeeper", &mut script);
    out.write_all(&script)
}
