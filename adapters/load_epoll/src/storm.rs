//! Everybody comes back at once: connections with tickets, each in some rooms, are cut off; more is
//! published; then all come back, and it is timed until each has all rooms and all messages. How they come back, with
//! what and after how long, is their machines' matter.
//!
//! It must never start the clock later than somebody could have come back, where the server dies not later than the first loss,
//! nor stop it for a connection that has something missing. Nothing may touch the rooms of a server that was started again before
//! they come back.

use std::time::Instant;

use domain::protocol::client_event::{Event, Violation};

use crate::client::Manner;
use crate::crowd::Crowd;
use crate::error::BenchError;
use crate::fanout::opening;
use crate::ledger::Ledger;
use crate::members::{Arrival, Said};
use crate::plan::{Cut, Plan, Storm};
use crate::report::{Report, Reporter};
use crate::storm_back::{Left, come_back};
use crate::storm_before::Before;
use crate::usage::Process;

/// The rooms of a member: as far from each other as they can be, so that rooms have different
/// companies.
pub(crate) fn rooms_of(member: usize, each: usize, rooms: usize) -> impl Iterator<Item = usize> {
    let stride = (rooms / each.max(1)).max(1);
    (0..each).map(move |n| (member + n * stride) % rooms)
}

/// What members are handed, held against what was published.
pub(crate) struct Books<'p> {
    plan: &'p Plan,
    storm: &'p Storm,
    pub(crate) ledger: Ledger,
    /// How many messages each room has got, or is getting.
    pub(crate) published: u32,
}

impl<'p> Books<'p> {
    fn new(plan: &'p Plan, storm: &'p Storm) -> Self {
        let ledger = Ledger::new(plan.connections, storm.rooms_each);
        Self { plan, storm, ledger, published: 0 }
    }

    /// Books what came; whether it is a delivery that counts.
    pub(crate) fn take(&mut self, arrival: Arrival, said: &Said<'_>) -> bool {
        let member = arrival.member;
        let message = match said {
            Said::Message(message) => message,
            Said::Event(Event::Violation(Violation::Duplicate { room, offset })) => {
                self.ledger.again(member, offset.get(), room.as_str());
                return false;
            }
            Said::Event(_) | Said::Acked | Said::Refused(_) => return false,
        };
        let Some(number) = message.number else {
            self.ledger.counts.foreign += 1;
            return false;
        };
        let room = || message.room.to_owned();
        let Some(slot) = self.slot(member, message.room).filter(|_| number < self.published) else {
            self.ledger.stray(member, number, room);
            return false;
        };
        self.ledger.take((member, slot), number, None, room)
    }

    /// Which of a member's rooms this is.
    fn slot(&self, member: usize, room: &str) -> Option<usize> {
        let number = self.plan.names.number(room)?;
        rooms_of(member, self.storm.rooms_each, self.plan.rooms).position(|other| other == number)
    }

    /// Counts what did not come.
    pub(crate) fn close(&mut self) {
        let Self { plan, storm, ledger, published } = self;
        for member in 0..plan.connections {
            for (slot, room) in rooms_of(member, storm.rooms_each, plan.rooms).enumerate() {
                ledger.close((member, slot), *published, || plan.names.name(room));
            }
        }
        let rooms = storm.rooms_each as u64 * plan.connections as u64;
        ledger.counts.expected = rooms * u64::from(storm.missed);
        ledger.counts.published = plan.rooms as u64 * u64::from(storm.missed);
    }
}

pub(crate) fn run(
    plan: &Plan,
    storm: &Storm,
    progress: &mut Reporter<'_>,
) -> Result<Report, BenchError> {
    let process = Process(plan.pid);
    let before = process.usage()?;
    let rooms = plan.names.rooms(plan.rooms)?;
    let all = rooms.clone();
    let joined = move |member| {
        let own = rooms_of(member, storm.rooms_each, plan.rooms);
        own.map(|room| all[room].clone()).collect()
    };
    let mut members = Crowd::new(plan, Manner::Returning, Box::new(joined))?;
    let begun = Instant::now();
    members.open_all(plan.connections, plan.ramp, progress, &mut |_, _| {})?;
    // Who is lost from now on is missed until the storm.
    members.keep_ends();
    let opening = opening(plan, begun.elapsed(), before, process.usage()?);
    let books = Books::new(plan, storm);
    let mut scene = Before::new(plan, storm, (members, rooms, books), progress)?;
    scene.publish(storm.before, "publishing", progress)?;
    scene.settle()?;
    let lost_at = match storm.cut {
        Cut::Lines | Cut::Restart => {
            scene.cut();
            None
        }
        Cut::Death => Some(scene.wait_for_death(progress)?),
    };
    scene.publish(storm.missed, "publishing what is missed", progress)?;
    if storm.cut == Cut::Restart {
        scene.wait_for_restart(progress)?;
    }
    let (members, books) = scene.end();
    let begun = lost_at.unwrap_or_else(Instant::now);
    come_back(plan, storm, Left { members, books, opening, begun }, progress)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rooms_of_a_member_are_different_ones_and_each_room_has_members() {
        for (each, rooms) in [(1, 1), (3, 3), (3, 1000), (128, 128), (5, 7)] {
            let mut members = vec![0; rooms];
            for member in 0..rooms {
                let mut all: Vec<_> = rooms_of(member, each, rooms).collect();
                all.iter().for_each(|room| members[*room] += 1);
                all.sort_unstable();
                all.dedup();
                assert_eq!(all.len(), each, "{each} of {rooms}");
            }
            assert!(members.iter().all(|n| *n == each), "{each} of {rooms}");
        }
    }
}
