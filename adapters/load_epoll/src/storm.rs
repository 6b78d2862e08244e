//! Everybody comes back at once: connections with tickets, each in some rooms, are cut off; more is
//! published; then all come back, and it is timed until each has all rooms and all messages.
//!
//! It must never start the clock later than the first connect, nor stop it for a connection that
//! has something missing.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::PUBLISHERS;
use crate::crowd::{Arrival, Crowd, Entry, LOOK, Said};
use crate::error::BenchError;
use crate::fanout::opening;
use crate::frames;
use crate::ledger::Ledger;
use crate::plan::{Cut, Plan, Storm};
use crate::report::{Report, Reporter};
use crate::storm_back::come_back;
use crate::usage::Process;

/// How long the server may be away.
const RESTART_DEADLINE: Duration = Duration::from_secs(120);
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);
/// Between two looks whether the server listens again.
const KNOCK: Duration = Duration::from_millis(5);
/// What is told when the server may be stopped; whoever stops it by a script waits for this.
const PHASE_READY: &str = "ready: stop the server and start it again";
/// Messages of one publisher that are not acknowledged yet.
const WINDOW: u32 = 32;

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
    let mut crowd = Crowd::new(plan, Entry::Subscribe(&names), 0)?;
    let mut stand = Stand {
        sessions: vec![None; plan.connections],
        epochs: vec![None; plan.rooms],
        offsets: vec![0; plan.rooms],
    };
    let begun = Instant::now();
    crowd.open_all(plan.connections, progress, &mut |arrival, said| {
        stand.take(plan, arrival, &said);
    })?;
    let opening = opening(plan, begun.elapsed(), before, process.usage()?);
    publish(plan, 0..storm.before, "publishing", progress, &mut stand)?;
    settle(plan, storm, &mut crowd, &mut stand)?;
    match storm.cut {
        Cut::Lines => crowd.cut_all(),
        Cut::Restart => wait_for_restart(plan, &mut crowd, progress)?,
    }
    drop(crowd);
    let missed = storm.before..storm.before + storm.missed;
    // The positions are those of before: what is told of these messages does not count.
    let offsets = stand.offsets.clone();
    publish(plan, missed, "publishing what is missed", progress, &mut stand)?;
    stand.offsets = offsets;
    come_back(plan, storm, &stand, opening, progress)
}

impl Stand {
    fn take(&mut self, plan: &Plan, arrival: Arrival, said: &Said<'_>) {
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
                "subscribed" | "ack" => {
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

/// Publishes these numbers to every room, from connections of their own, and waits until all of
/// them are acknowledged.
fn publish(
    plan: &Plan,
    numbers: std::ops::Range<u32>,
    phase: &'static str,
    progress: &mut Reporter<'_>,
    stand: &mut Stand,
) -> Result<(), BenchError> {
    let publishers = PUBLISHERS.min(plan.rooms);
    let each = numbers.len();
    let mut crowd = Crowd::new(plan, Entry::Greeted, plan.connections)?;
    crowd.open_all(publishers, progress, &mut |_, _| {})?;
    // By publisher: how many were said, and how many acknowledged.
    let (mut said, mut known) = (vec![0_usize; publishers], vec![0_usize; publishers]);
    let share = |publisher: usize| (plan.rooms - publisher).div_ceil(publishers) * each;
    let total = plan.rooms * each;
    let (mut done, mut last) = (0, Instant::now());
    while done < total {
        for publisher in 0..publishers {
            while said[publisher] < share(publisher)
                && said[publisher] - known[publisher] < WINDOW as usize
            {
                let at = said[publisher];
                let room = publisher + at / each * publishers;
                let data = frames::data(plan.run, numbers.start + (at % each) as u32, "");
                crowd.say(publisher, &frames::publish_with_id(&plan.names.name(room), &data));
                said[publisher] += 1;
            }
        }
        let before = done;
        let mut refused = None;
        crowd.turn(Instant::now() + LOOK, &mut |arrival, said| {
            match &said {
                Said::Notice(notice) if notice.kind == "ack" => {
                    known[arrival.member] += 1;
                    done += 1;
                }
                Said::Notice(notice) if notice.kind == "error" => {
                    let message = notice.message.as_deref().unwrap_or_default().to_owned();
                    refused = Some(BenchError::Refused { code: notice.code.unwrap_or(0), message });
                }
                Said::Notice(_) | Said::Message(_) => return,
            }
            stand.take(plan, Arrival { member: usize::MAX, ..arrival }, &said);
        })?;
        if let Some(refused) = refused {
            return Err(refused);
        }
        if done > before {
            last = Instant::now();
        }
        if last.elapsed() > plan.patience {
            let (seconds, what) = (plan.patience.as_secs(), "messages were acknowledged");
            return Err(BenchError::Silence {
                seconds,
                what,
                done: done as u64,
                total: total as u64,
            });
        }
        progress.tell(phase, || crowd.progress("messages", done, total));
    }
    crowd.close_all();
    Ok(())
}

/// Waits until everybody has what was published before the cut.
fn settle(
    plan: &Plan,
    storm: &Storm,
    crowd: &mut Crowd<'_>,
    stand: &mut Stand,
) -> Result<(), BenchError> {
    let mut ledger = Ledger::new(plan.connections, storm.rooms_each);
    let total = (plan.connections * storm.rooms_each) as u64 * u64::from(storm.before);
    let mut last = Instant::now();
    while ledger.counts.delivered < total {
        crowd.turn(Instant::now() + LOOK, &mut |arrival, said| {
            stand.take(plan, arrival, &said);
            let Said::Message(message) = said else { return };
            let slot = slot(plan, storm, arrival.member, message.room);
            if let (Some(slot), Some(number)) = (slot, message.number) {
                ledger.take((arrival.member, slot), number, || message.room.to_owned());
                last = arrival.at;
            }
        })?;
        if last.elapsed() > plan.patience {
            let (seconds, done) = (plan.patience.as_secs(), ledger.counts.delivered);
            let what = "members got the messages that were published before they were cut off";
            return Err(BenchError::Silence { seconds, what, done, total });
        }
    }
    Ok(())
}

/// Which of a member's rooms this is.
pub(crate) fn slot(plan: &Plan, storm: &Storm, member: usize, room: &str) -> Option<usize> {
    let number = plan.names.number(room)?;
    rooms_of(member, storm.rooms_each, plan.rooms).position(|other| other == number)
}

/// Waits until the server has ended and listens again.
fn wait_for_restart(
    plan: &Plan,
    crowd: &mut Crowd<'_>,
    progress: &mut Reporter<'_>,
) -> Result<(), BenchError> {
    let begun = Instant::now();
    let silence = |what, left: usize| BenchError::Silence {
        seconds: RESTART_DEADLINE.as_secs(),
        what,
        done: (plan.connections - left) as u64,
        total: plan.connections as u64,
    };
    while crowd.inside() > 0 {
        let left = crowd.inside();
        progress.tell(PHASE_READY, || {
            crowd.progress("connections cut off", plan.connections - left, plan.connections)
        });
        crowd.turn(Instant::now() + LOOK, &mut |_, _| {})?;
        if begun.elapsed() > RESTART_DEADLINE {
            return Err(silence("the server was to be stopped", crowd.inside()));
        }
    }
    for target in &plan.targets {
        while TcpStream::connect_timeout(&target.addr, CONNECT_DEADLINE).is_err() {
            if begun.elapsed() > RESTART_DEADLINE {
                return Err(silence("the server was to be started again", 0));
            }
            std::thread::sleep(KNOCK);
        }
    }
    Ok(())
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
