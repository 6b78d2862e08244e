//! The load generator: opens many WebSocket connections from one thread, lets one member of each
//! room publish, checks that everyone gets everything in order, and says what it cost the server.
//!
//! One JSON object goes to standard output. The exit code is 1 when something that was owed did not
//! arrive: such a run has no figures worth keeping.
//!
//! It must never use the product's own code, and must never measure a time from when it happened to
//! send: in an open loop a message's time begins when it was due.
//!
//! Suggested reading order: [`arguments`], [`target`], [`wire`], [`pool`], [`fanout`], [`idle`],
//! [`http`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool that one person runs: a failed step ends it, with words"
)]

mod arguments;
mod back;
mod blocking;
mod fanout;
mod histogram;
mod http;
mod idle;
mod letters;
mod pool;
mod target;
mod token;
mod usage;
mod wire;

use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::arguments::{Arguments, Mode};

fn main() -> ExitCode {
    let arguments = match Arguments::read(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(complaint) => {
            eprintln!("load: {complaint}\n\n{}", arguments::USAGE);
            return ExitCode::from(2);
        }
    };
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).expect("the own limit");
    let report = match arguments.mode {
        Mode::Fanout => fanout::run(&arguments),
        Mode::Idle => idle::run(&arguments),
        Mode::Http => http::run(&arguments),
        Mode::Letters => letters::run(&arguments),
    };
    println!("{}", report.json);
    for fault in &report.faults {
        eprintln!("load: {fault}");
    }
    if report.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a mode found.
struct Report {
    json: String,
    /// Why the figures must not be used.
    faults: Vec<String>,
}
