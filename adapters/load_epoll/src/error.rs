//! Why nothing can be measured, and what to do about it.
//!
//! It must never contain a token.

use std::io;
use std::net::SocketAddr;

use domain::codes::{CloseCode, ErrorCode};
use thiserror::Error;

use crate::naming::RoomNamesError;
use crate::plan::PlanProblem;

/// Why a run has no figures.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The plan is not possible.
    #[error(transparent)]
    Plan(#[from] PlanProblem),
    /// The rooms can't be called so.
    #[error(transparent)]
    Rooms(#[from] RoomNamesError),
    /// The system allows fewer open files than connections are asked for.
    #[error(
        "the system allows {allowed} open files and {needed} are needed: raise the limit \
         (ulimit -n {needed}, or LimitNOFILE of the service), or ask for fewer --connections"
    )]
    TooFewDescriptors {
        /// The soft limit.
        allowed: u64,
        /// What the plan needs.
        needed: u64,
    },
    /// Nobody listens there.
    #[error("nobody listens at {addr}: start the server, or correct the address")]
    NobodyListens {
        /// Where.
        addr: SocketAddr,
    },
    /// The machine has no port left for a further connection.
    #[error(
        "after {open} connections no port of this machine is left for another one to {addr}: \
         widen net.ipv4.ip_local_port_range, or name several addresses of the server"
    )]
    NoPort {
        /// Where to.
        addr: SocketAddr,
        /// How many there were.
        open: usize,
    },
    /// A connection failed on its way in.
    #[error("a connection to {addr} failed after {open} were in")]
    Connect {
        /// Where to.
        addr: SocketAddr,
        /// How many were in.
        open: usize,
        /// How.
        #[source]
        source: io::Error,
    },
    /// The upgrade was answered with something else.
    #[error("the server did not upgrade connection {number}: {answer}{}", advice_of_http(.answer))]
    Upgrade {
        /// Which one.
        number: usize,
        /// The first line of the answer.
        answer: String,
    },
    /// The server ended a connection that was on its way in.
    #[error("the server closed connection {number}: {code} ({reason}){}", advice_of_close(*.code))]
    Closed {
        /// Which one.
        number: usize,
        /// The close code; 1006 is an end without one.
        code: u16,
        /// Its words.
        reason: String,
    },
    /// The server refused a command that everything depends on.
    #[error("the server refused: {code} ({message}){}", advice_of_error(*.code))]
    Refused {
        /// The error code.
        code: u16,
        /// Its words.
        message: String,
    },
    /// What is waited for did not come.
    #[error("nothing happened for {seconds} s while {what}: {done} of {total}{}", told(.meanwhile))]
    Silence {
        /// For how long.
        seconds: u64,
        /// What was waited for.
        what: &'static str,
        /// How much of it was there.
        done: u64,
        /// Of how much.
        total: u64,
        /// What the server did wrong until then, in words.
        meanwhile: Vec<String>,
    },
    /// The server's process can't be looked at.
    #[error(
        "process {pid} can't be looked at: --pid is the id of the server's process on this machine"
    )]
    Process {
        /// Its id.
        pid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The operating system failed this tool.
    #[error("a system call failed")]
    System(#[from] io::Error),
}

impl From<rustix::io::Errno> for BenchError {
    fn from(error: rustix::io::Errno) -> Self {
        Self::System(error.into())
    }
}

impl BenchError {
    /// What a socket's failure on the way in means.
    pub(crate) fn of_connect(addr: SocketAddr, open: usize, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::ConnectionRefused => Self::NobodyListens { addr },
            io::ErrorKind::AddrNotAvailable => Self::NoPort { addr, open },
            _ => Self::Connect { addr, open, source },
        }
    }

    /// Whether the words of the command line are at fault.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Plan(_))
    }
}

fn told(meanwhile: &[String]) -> String {
    if meanwhile.is_empty() { String::new() } else { format!("; {}", meanwhile.join("; ")) }
}

fn advice_of_http(answer: &str) -> &'static str {
    match answer.split(' ').nth(1) {
        Some("503") => {
            "; it has as many connections as it takes: raise server.connections_max and its limit \
             of open files"
        }
        Some("404") => "; is there a Roomkeeper, and is the path right?",
        Some("403") => "; the server wants another Origin: see server.require_origin",
        _ => "",
    }
}

fn advice_of_close(code: u16) -> &'static str {
    let is = |other: CloseCode| other.number() == code;
    if is(CloseCode::Unauthenticated) {
        "; the token does not count here: give a good one with --token, or let --mint make them \
         with the server's own settings (--config, --set)"
    } else if is(CloseCode::AuthenticationTimeout) {
        "; this server lets nobody in without a token: give --token, or --mint"
    } else if is(CloseCode::ConnectionLimit) {
        "; one user has too many connections: --mint makes a user for each, or raise \
         limits.connections_per_user_max"
    } else if is(CloseCode::RateLimited) {
        "; the server limits the rate of each connection: lower --rate, or raise \
         limits.commands_per_second"
    } else {
        ""
    }
}

fn advice_of_error(code: u16) -> &'static str {
    let is = |other: ErrorCode| other.number() == code;
    if is(ErrorCode::PermissionDenied) {
        "; nobody may do that in these rooms with this token: --mint grants it, or choose others \
         with --room"
    } else if is(ErrorCode::UnknownRoom) {
        "; the server does not know the namespace: choose another with --room"
    } else if is(ErrorCode::NotConnected) {
        "; this server lets nobody in without a token: give --token, or --mint"
    } else if is(ErrorCode::RateLimited) {
        "; the server limits the rate of each connection: raise limits.commands_per_second"
    } else if is(ErrorCode::TooManyRooms) {
        "; a connection may not be in so many rooms: lower --rooms-each, or raise \
         limits.rooms_per_connection_max"
    } else {
        ""
    }
}
