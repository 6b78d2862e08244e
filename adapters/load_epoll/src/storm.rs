//! Everybody comes back at once: connections with tickets, each in some rooms, are cut off; more is
//! published; then all come back, and it is timed until each has all rooms and all messages.
//!
//! It must never start the clock later than the first connect, where the server dies not later than the first loss,
//! nor stop it for a connection that has something missing. Nothing may touch the rooms of a server that was started again before
//! they come back.

use std::time::Instant;

use crate::crowd::{Arrival, Crowd, Entry, Said};
use crate::error::BenchError;
use crate::fanout::opening;
use crate::plan::{Cut, Plan, Storm};
use crate::report::{Report, Reporter};
use crate::storm_back::{Left, come_back};
use crate::storm_before::Before;
use crate::usage::Process;

/// Where everybody stood when they were cut off.
pub(crate) struct Stand {
    /// By member: its ticket, if the server gave one.
    pub(crate) sessions: Vec<Option<Box<str>>>,
    /// By room.
    pub(crate) epochs: Vec<Option<Box<str>>>,
    /// By room: the offset that all its members have.
    pub(crate) offsets: Vec<u64>,
}

/// The rooms of a member: as far from each other as they can be, so that rooms have different
/// companies.
pub(crate) fn rooms_of(member: usize, each: usize, rooms: usize) -> impl Iterator<Item = usize> {
    let stride = (rooms / each.max(1)).max(1);
    (0..each).map(move |n| (member + n * stride) % rooms)
}

/// Which of a member's rooms this is.
pub(crate) fn slot(plan: &Plan, storm: &Storm, member: usize, room: &str) -> Option<usize> {
    let number = plan.names.number(room)?;
    rooms_of(member, storm.rooms_each, plan.rooms).position(|other| other == number)
}

pub(crate) fn run(
    plan: &Plan,
    storm: &Storm,
    progress: &mut Reporter<'_>,
) -> Result<Report, BenchError> {
    let process = Process(plan.pid);
    let before = process.usage()?;
    let names = |member: usize| {
        rooms_of(member, storm.rooms_each, plan.rooms).map(|room| plan.names.name(room)).collect()
    };
    let mut members = Crowd::new(plan, Entry::Subscribe(&names), 0)?;
    let mut stand = Stand {
        sessions: vec![None; plan.connections],
        epochs: vec![None; plan.rooms],
        offsets: vec![0; plan.rooms],
    };
    let begun = Instant::now();
    members.open_all(plan.connections, plan.ramp, progress, &mut |arrival, said| {
        stand.take(plan, arrival, &said);
    })?;
    let opening = opening(plan, begun.elapsed(), before, process.usage()?);
    let mut scene = Before::new(plan, storm, members, stand, progress)?;
    scene.publish(0..storm.before, "publishing", progress)?;
    scene.settle()?;
    let lost_at = match storm.cut {
        Cut::Lines | Cut::Restart => {
            scene.cut();
            None
        }
        Cut::Death => Some(scene.wait_for_death(progress)?),
    };
    let missed = storm.before..storm.before + storm.missed;
    scene.publish(missed, "publishing what is missed", progress)?;
    if storm.cut == Cut::Restart {
        scene.wait_for_restart(progress)?;
    }
    let (stand, ledger) = scene.end();
    let begun = lost_at.unwrap_or_else(Instant::now);
    come_back(plan, storm, Left { stand, ledger, opening, begun }, progress)
}

impl Stand {
    pub(crate) fn take(&mut self, plan: &Plan, arrival: Arrival, said: &Said<'_>) {
        match said {
            Said::Message(message) => {
                if let (Some(room), Some(offset)) =
                    (plan.names.number(message.room), message.offset)
                {
                    self.reach(room, offset);
                }
            }
            Said::Notice(notice) => match &*notice.kind {
                "hello" => {
                    if let Some(slot) = self.sessions.get_mut(arrival.member) {
                        *slot = notice.session.as_deref().map(Into::into);
                    }
                }
                "subscribed" => {
                    let room = notice.room.as_deref().and_then(|name| plan.names.number(name));
                    if let (Some(room), Some(epoch)) = (room, &notice.epoch) {
                        if let Some(slot) = self.epochs.get_mut(room) {
                            *slot = Some(epoch.as_ref().into());
                        }
                        self.reach(room, notice.offset.unwrap_or_default());
                    }
                }
                _ => {}
            },
        }
    }

    fn reach(&mut self, room: usize, offset: u64) {
        if let Some(slot) = self.offsets.get_mut(room) {
            *slot = offset.max(*slot);
        }
    }
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
