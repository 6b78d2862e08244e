//! When each message of an open loop is due, and for which room: arithmetic, so that nothing has to
//! be remembered for a message under way.
//!
//! It must never look at a clock, and never move a due time because something was late.

use std::time::Duration;

use crate::plan::{Load, PlanProblem};

/// The messages of a run, numbered from 0: `total` of them, one every `step`, to the rooms in turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    step: f64,
    rooms: u32,
    pub(crate) total: u32,
    /// The first message that is measured.
    pub(crate) measured_from: u32,
}

impl Schedule {
    pub(crate) fn new(load: &Load, rooms: usize) -> Result<Self, PlanProblem> {
        let messages = |time: Duration| (time.as_secs_f64() * load.rate).floor();
        let total = messages(load.warm_up + load.duration);
        if total > f64::from(u32::MAX) {
            return Err(PlanProblem::TooMany);
        }
        let measured_from = (load.warm_up.as_secs_f64() * load.rate).ceil();
        if total <= measured_from {
            return Err(PlanProblem::NoMessage);
        }
        let rooms = u32::try_from(rooms).map_err(|_| PlanProblem::TooMany)?;
        Ok(Self {
            step: 1.0 / load.rate,
            rooms,
            total: total as u32,
            measured_from: measured_from as u32,
        })
    }

    /// How long after the start message `k` is due.
    pub(crate) fn due(&self, k: u32) -> Duration {
        Duration::from_secs_f64(f64::from(k) * self.step)
    }

    /// The room of message `k`, and its number there.
    pub(crate) fn place(&self, k: u32) -> (usize, u32) {
        ((k % self.rooms) as usize, k / self.rooms)
    }

    /// The message that has this number in this room.
    pub(crate) fn message(&self, room: usize, number: u32) -> Option<u32> {
        let k = u64::from(number) * u64::from(self.rooms) + room as u64;
        u32::try_from(k).ok().filter(|k| *k < self.total)
    }

    /// How many of the first `said` messages are this room's.
    pub(crate) fn of_room(&self, room: usize, said: u32) -> u32 {
        let room = room as u32;
        (said + self.rooms).saturating_sub(room + 1) / self.rooms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(rate: f64, warm_ms: u64, ms: u64, rooms: usize) -> Schedule {
        let (warm_up, duration) = (Duration::from_millis(warm_ms), Duration::from_millis(ms));
        Schedule::new(&Load { rate, size: 64, duration, warm_up }, rooms).unwrap()
    }

    #[test]
    fn messages_are_due_at_equal_distances_and_go_to_the_rooms_in_turn() {
        let schedule = schedule(100.0, 500, 1_000, 3);
        assert_eq!((schedule.total, schedule.measured_from), (150, 50));
        assert_eq!(schedule.due(0), Duration::ZERO);
        assert_eq!(schedule.due(149), Duration::from_millis(1_490));
        for k in 0..schedule.total {
            let (room, number) = schedule.place(k);
            assert_eq!(schedule.message(room, number), Some(k));
        }
        assert_eq!(schedule.message(0, 50), None);
    }

    #[test]
    fn a_rooms_share_of_what_was_said_is_counted() {
        let schedule = schedule(100.0, 0, 1_000, 3);
        for said in 0..100 {
            for room in 0..3 {
                let counted = (0..said).filter(|k| schedule.place(*k).0 == room).count();
                assert_eq!(schedule.of_room(room, said) as usize, counted, "{said} {room}");
            }
        }
    }

    #[test]
    fn a_rate_that_gives_no_message_is_refused() {
        let load = |rate| Load {
            rate,
            size: 64,
            duration: Duration::from_secs(1),
            warm_up: Duration::ZERO,
        };
        assert!(matches!(Schedule::new(&load(0.5), 1), Err(PlanProblem::NoMessage)));
        assert!(matches!(Schedule::new(&load(1e10), 1), Err(PlanProblem::TooMany)));
    }
}
