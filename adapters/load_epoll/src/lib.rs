//! The load generator behind `roomkeeper bench`: opens many WebSocket connections from one thread,
//! publishes when a message is due, checks that each member gets each message once and in order,
//! and says what it took.
//!
//! It has a driver of its own and not the Rust client: a task, a runtime and a reconnecting state
//! machine for each of ten thousand connections would cost more than what is to be measured, and
//! the client repairs what is to be seen here. One epoll and a few dozen bytes for each do.
//!
//! It must never measure a time from when it happened to send: a message's time begins when it was
//! due, whatever the server did meanwhile. It must never wait for one connection, and never repair:
//! what is lost stays lost and is told.
//!
//! Suggested reading order: [`plan`](Plan), [`report`](Report), `track`, `schedule`, `line`,
//! `crowd`, `fanout`, `idle`, `storm`.

mod address;
mod crowd;
mod error;
mod fanout;
mod frames;
mod idle;
mod knock;
mod ledger;
mod line;
mod naming;
mod plan;
mod random;
mod report;
mod schedule;
mod storm;
mod storm_back;
mod storm_before;
mod track;
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
