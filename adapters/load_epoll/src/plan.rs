//! What is to be measured, with the limits of what this tool takes on.
//!
//! It must never hold a default: those are the command line's.

use std::time::Duration;

use domain::protocol::client_frame::RESUME_ROOMS_MAX;
use rustix::process::{Resource, getrlimit};
use secrecy::SecretString;
use thiserror::Error;

use crate::PUBLISHERS;
use crate::address::Target;
use crate::error::BenchError;
use crate::messages::DATA_BYTES_MIN;
use crate::naming::RoomNames;

/// Connections of one run.
const CONNECTIONS_MAX: usize = 1_000_000;
/// Bytes of published data.
const DATA_BYTES_MAX: usize = 1 << 20;
/// Of warm-up and measured time together.
const TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// As many as one `connect` may name.
const ROOMS_EACH_MAX: usize = RESUME_ROOMS_MAX;
/// Messages that each room gets before a storm, and misses in it.
const MISSED_MAX: u32 = 1_000;
/// Descriptors for what is no connection.
const DESCRIPTORS_RESERVED: usize = 32;

/// What is to be done.
#[derive(Debug)]
pub struct Plan {
    /// The servers; connections go to them in turn.
    pub targets: Vec<Target>,
    /// How many connections.
    pub connections: usize,
    /// How many rooms; connections go into them in turn. 0 joins none, where that makes sense.
    pub rooms: usize,
    /// How the rooms are called.
    pub names: RoomNames,
    /// None connects as nobody, one is everybody's, more are taken in turn.
    pub tokens: Vec<SecretString>,
    /// Decides who publishes and what the data looks like.
    pub seed: u64,
    /// Tells this run's messages from those of others.
    pub run: u32,
    /// Over how long connections are opened.
    pub ramp: Duration,
    /// How many connections are on their way in at one time.
    pub opening_max: usize,
    /// How long nothing may happen that is waited for.
    pub patience: Duration,
    /// The server's process on this machine, whose processor time and memory are reported.
    pub pid: Option<u32>,
    /// What the connections do.
    pub work: Work,
}

/// What the connections do.
#[derive(Clone, Debug)]
pub enum Work {
    /// Members of shared rooms publish, and all members receive.
    Fanout(Load),
    /// Each connection is alone, and gets back what it sends.
    Echo(Load),
    /// Nothing but staying.
    Idle(Idle),
    /// All are cut off and come back at once.
    Storm(Storm),
}

/// An open loop.
#[derive(Clone, Debug)]
pub struct Load {
    /// Messages a second, over all rooms.
    pub rate: f64,
    /// Bytes of each message's data.
    pub size: usize,
    /// For how long it is measured.
    pub duration: Duration,
    /// For how long messages come before that.
    pub warm_up: Duration,
}

/// Connections that only stay.
#[derive(Clone, Debug)]
pub struct Idle {
    /// How long after the last one is in the measured time begins.
    pub settle: Duration,
    /// For how long it is measured.
    pub duration: Duration,
}

/// Everybody comes back.
#[derive(Clone, Debug)]
pub struct Storm {
    /// Rooms of each connection.
    pub rooms_each: usize,
    /// Messages that each room gets before.
    pub before: u32,
    /// Messages that each room gets while nobody is there.
    pub missed: u32,
    /// How they are cut off.
    pub cut: Cut,
    /// Where they come back to; none means where they were.
    pub back: Vec<Target>,
}

impl Storm {
    /// The servers that all come back to, in turn.
    pub(crate) fn returns_to<'s>(&'s self, plan: &'s Plan) -> &'s [Target] {
        if self.back.is_empty() { &plan.targets } else { &self.back }
    }
}

/// What happens to connections, for a storm.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cut {
    /// This side resets them all.
    Lines,
    /// The same, and somebody stops the server and starts it again before they come back.
    Restart,
    /// Somebody ends the server while all are there, and they come back to others.
    Death,
}

/// What about a plan is not possible.
#[derive(Debug, Error)]
pub enum PlanProblem {
    /// No server is named.
    #[error("name at least one server, like ws://127.0.0.1:8000")]
    NoTarget,
    /// A number is out of its range.
    #[error("{name} must be {least} to {most}, not {given}")]
    Range {
        /// Which.
        name: &'static str,
        /// The least.
        least: usize,
        /// The most.
        most: usize,
        /// What it is.
        given: usize,
    },
    /// Times are too long.
    #[error("--warm-up and --duration together are at most a day")]
    Time,
    /// The rate is no number of messages.
    #[error("--rate must be above 0")]
    Rate,
    /// No message is due in the measured time.
    #[error("at this --rate no message is due within --duration: raise one of them")]
    NoMessage,
    /// The numbers of messages do not fit.
    #[error("that is more than 4,294,967,295 messages: lower --rate or --duration")]
    TooMany,
    /// The address is not the protocol's, and the work needs the protocol.
    #[error("only `bench echo` can use an address with another path than /ws/v2/connect")]
    Verbatim,
}

impl Plan {
    /// Whether the servers only send back what they get.
    #[must_use]
    pub fn is_verbatim(&self) -> bool {
        let back = if let Work::Storm(storm) = &self.work { &storm.back[..] } else { &[] };
        self.targets.iter().chain(back).any(|target| !target.is_protocol())
    }

    /// How many members room number `room` has when each connection is in one.
    pub(crate) fn members_of(&self, room: usize) -> usize {
        (self.connections + self.rooms).saturating_sub(room + 1) / self.rooms.max(1)
    }

    pub(crate) fn check(&self) -> Result<(), BenchError> {
        self.check_numbers()?;
        self.check_descriptors()
    }

    fn check_numbers(&self) -> Result<(), PlanProblem> {
        if self.targets.is_empty() {
            return Err(PlanProblem::NoTarget);
        }
        if self.is_verbatim() && !matches!(self.work, Work::Echo(_)) {
            return Err(PlanProblem::Verbatim);
        }
        let range = |name, given, least, most| {
            let fits = (least..=most).contains(&given);
            fits.then_some(()).ok_or(PlanProblem::Range { name, least, most, given })
        };
        range("--connections", self.connections, 1, CONNECTIONS_MAX)?;
        range("--opening", self.opening_max, 1, CONNECTIONS_MAX)?;
        match &self.work {
            Work::Fanout(load) | Work::Echo(load) => {
                range("--rooms", self.rooms, 1, self.connections)?;
                range("--size", load.size, DATA_BYTES_MIN, DATA_BYTES_MAX)?;
                if !(load.rate.is_finite() && load.rate > 0.0) {
                    return Err(PlanProblem::Rate);
                }
                check_time(load.warm_up, load.duration)
            }
            Work::Idle(idle) => {
                range("--rooms", self.rooms, 0, self.connections)?;
                check_time(idle.settle, idle.duration)
            }
            Work::Storm(storm) => {
                range("--rooms", self.rooms, 1, CONNECTIONS_MAX)?;
                range("--rooms-each", storm.rooms_each, 1, self.rooms.min(ROOMS_EACH_MAX))?;
                range("--before", storm.before as usize, 1, MISSED_MAX as usize)?;
                range("--missed", storm.missed as usize, 1, MISSED_MAX as usize)
            }
        }
    }

    fn check_descriptors(&self) -> Result<(), BenchError> {
        let needed = (self.connections + PUBLISHERS + DESCRIPTORS_RESERVED) as u64;
        let limit = getrlimit(Resource::Nofile);
        match limit.current {
            Some(allowed) if allowed < needed => {
                Err(BenchError::TooFewDescriptors { allowed, needed })
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn check_time(before: Duration, measured: Duration) -> Result<(), PlanProblem> {
    let fits = before.checked_add(measured).is_some_and(|time| time <= TIME_MAX);
    fits.then_some(()).ok_or(PlanProblem::Time)
}
