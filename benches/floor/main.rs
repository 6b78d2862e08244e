//! The floor: the least that a process has to do to bring a message to everyone in a room.
//!
//! One thread, one epoll, a `send` for each delivery (`--mode each`), or one for all that came for
//! a member in one turn (`--mode batch`). Apart from the handshake and the frame headers it looks
//! at nothing: no JSON, no names, no limits but on memory, no order to keep but that of arrival.
//! What a server costs above this is what its work costs.
//!
//! It must never become a server: it trusts whoever connects, and listens on loopback only.
//!
//! Usage: `floor [--mode each|batch] [--port N]`; it says `listening on http://ADDRESS:PORT`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a tool that one person runs: a failed step ends it, with words"
)]

mod frame;
mod relay;

use std::io::{Write as _, stdout};
use std::net::{Ipv4Addr, TcpListener};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::relay::{Mode, Relay};

fn main() {
    let (mut mode, mut port) = (Mode::Each, 0);
    let mut words = std::env::args().skip(1);
    while let Some(flag) = words.next() {
        let value = words.next().unwrap_or_else(|| panic!("{flag} wants a value"));
        match (flag.as_str(), value.as_str()) {
            ("--mode", "each") => mode = Mode::Each,
            ("--mode", "batch") => mode = Mode::Batch,
            ("--port", number) => port = number.parse().expect("a port is a number"),
            _ => panic!("{flag} {value}: the flags are --mode each|batch and --port N"),
        }
    }
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).expect("the own limit");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the port is free");
    println!("listening on http://{}", listener.local_addr().expect("it is bound"));
    stdout().flush().expect("someone reads this");
    Relay::new(listener, mode).run();
}
