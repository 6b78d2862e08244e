//! The load generator behind `roomkeeper bench`: opens many WebSocket connections from one thread,
//! publishes when a message is due, checks that each member gets each message once and in order,
//! and says what it took.
//!
//! Its clients are those of the product: each has the machine that the Rust client has (`domain::client`), and is driven
//! by one epoll in place of a task. What is counted by the hundred thousand in a second does not pass the machine
//! ([why](../../../docs/adr/0035-load-clients-are-the-real-ones.md)).
//!
//! It must never measure a time from when it happened to send: a message's time begins when it was
//! due, whatever the server did meanwhile. It must never wait for one connection, and never keep quiet about what a
//! client repaired by itself.
//!
//! Suggested reading order: [`plan`](Plan), [`report`](Report), `account`, `schedule`, `line`,
//! `client`, `members`, `crowd`, `fanout`, `idle`, `storm`.

mod account;
mod address;
mod client;
mod crowd;
mod error;
mod fanout;
mod idle;
mod knock;
mod ledger;
mod line;
mod members;
mod messages;
mod naming;
mod plan;
mod random;
mod report;
mod schedule;
mod storm;
mod storm_back;
mod storm_before;
mod tally;
mod usage;

pub use address::{AddressError, PATH_DEFAULT, Target};
pub use error::BenchError;
pub use naming::{RoomNames, RoomNamesError};
pub use plan::{Cut, Idle, Load, Plan, Storm, Work};
pub use report::{Deliveries, Latency, Opening, Progress, Report, Results, Server, StormTimes};

/// How many connections a plan opens beyond those it was asked for: they publish what others
/// missed.
pub const PUBLISHERS: usize = 16;

/// Carries a plan out, and tells `progress` now and then how far it is.
///
/// # Errors
/// [`BenchError`] when the server can't be measured at all. A server that can, and loses messages,
/// is no error: [`Report::faults`] names them.
pub fn run(plan: &Plan, progress: &mut dyn FnMut(&Progress)) -> Result<Report, BenchError> {
    plan.check()?;
    let mut progress = report::Reporter::new(progress);
    match &plan.work {
        Work::Fanout(load) | Work::Echo(load) => fanout::run(plan, load, &mut progress),
        Work::Idle(idle) => idle::run(plan, idle, &mut progress),
        Work::Storm(storm) => storm::run(plan, storm, &mut progress),
    }
}
