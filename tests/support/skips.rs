//! What a test leaves out: for want of a tool that could be installed, or of something that this machine does
//! not have.
//!
//! Under `ROOMKEEPER_TESTS=full`, which is how `tests/run` runs, a tool is never missing: that is a failure. What
//! the machine lacks is written into the file that `ROOMKEEPER_SKIPS` names, and `tests/run` shows it at its end.

use std::fs::OpenOptions;
use std::io::Write;
use std::panic::Location;
use std::process::{Command, Stdio};

/// Whether nothing that could be installed may be missing.
#[must_use]
pub fn is_full() -> bool {
    std::env::var_os("ROOMKEEPER_TESTS").is_some_and(|value| value == "full")
}

/// Says that a test, or a part of one, is left out for want of what could be installed.
///
/// # Panics
/// Under `ROOMKEEPER_TESTS=full`.
#[allow(clippy::print_stderr, reason = "the word that says why a test did nothing")]
pub fn for_want_of_a_tool(missing: &str) {
    assert!(!is_full(), "{missing}, and ROOMKEEPER_TESTS=full allows no skipping");
    eprintln!("skipped: {missing}");
}

/// Says that a test, or a part of one, is left out for what this machine, or this user of it, can't do.
///
/// # Panics
/// When the file that `ROOMKEEPER_SKIPS` names can't be written.
#[track_caller]
#[allow(clippy::print_stderr, reason = "the word that says why a test did nothing")]
pub fn for_this_machine(why: &str) {
    let place = Location::caller();
    eprintln!("skipped: {why}");
    let Some(path) = std::env::var_os("ROOMKEEPER_SKIPS") else { return };
    let file = OpenOptions::new().append(true).create(true).open(&path);
    // In one write: other tests append at the same time.
    let line = format!("{}:{}: {why}\n", place.file(), place.line());
    let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
    written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Whether a program runs with this argument; if not, says so, and the test or a part of it is left out.
///
/// # Panics
/// Under `ROOMKEEPER_TESTS=full`, when it does not.
#[must_use]
pub fn has_tool(program: &str, argument: &str) -> bool {
    let mut asked = Command::new(program);
    asked.arg(argument).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let has = asked.status().is_ok_and(|status| status.success());
    if !has {
        for_want_of_a_tool(&format!("{program} is not installed"));
    }
    has
}

/// Whether this user is root; if not, says so, and the test or a part of it is left out.
#[must_use]
#[track_caller]
pub fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        for_this_machine("it needs root");
    }
    is_root
}
