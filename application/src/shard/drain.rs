//! Use case *drain*: the node stops, and its connections are told when to come back.
//!
//! Nothing that a client was promised an answer for is cut off before the window's end. New
//! connections are none of its business: they find the door shut.

use std::collections::VecDeque;
use std::time::Duration;

use domain::codes::CloseCode;
use domain::drain::{DrainMode, Pace, Turn};
use domain::protocol::ServerFrame;
use domain::time::Monotonic;

use super::{Host, Shard, Slot};
use crate::planted::{Mistake, is_planted};

/// A drain that has begun.
#[derive(Debug)]
pub(super) struct Draining {
    /// The window's end: nobody stays longer.
    until: Monotonic,
    pace: Pace,
    /// Those whose time is still to come, in turn; nobody where all went at once.
    waiting: VecDeque<Slot>,
}

impl Draining {
    /// When somebody's time comes next.
    pub(super) fn next_at(&self) -> Option<Monotonic> {
        self.pace.next_at().filter(|_| !self.waiting.is_empty())
    }
}

impl Shard {
    /// Begins a drain that ends at `until`. A second order changes nothing.
    pub(super) fn drain(&mut self, until: Monotonic, host: &mut Host<'_>) {
        if self.draining.is_some() {
            return;
        }
        let slots = self.table.slots();
        let count = u32::try_from(slots.len()).unwrap_or(u32::MAX);
        let pace = Pace::new(host.now.monotonic, until, count, self.turn());
        match self.services.rules.drain_mode {
            DrainMode::Paced => {
                self.draining = Some(Draining { until, pace, waiting: slots.into() });
                self.part_in_turn(host);
            }
            DrainMode::Early => {
                self.draining = Some(Draining { until, pace, waiting: VecDeque::new() });
                let window = until.since(host.now.monotonic);
                for (place, slot) in (0u32..).zip(slots) {
                    self.part(slot, window * place / count.max(1), until, host);
                }
            }
        }
    }

    /// This shard's place among those of the node.
    fn turn(&self) -> Turn {
        let mailboxes = &self.services.mailboxes;
        let number = mailboxes.iter().position(|other| other.id() == self.mailbox.id());
        let of = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Turn { number: of(number.unwrap_or(0)), of: of(mailboxes.len()) }
    }

    /// Parts with those whose time has come. Who is gone already costs no time.
    pub(super) fn part_in_turn(&mut self, host: &mut Host<'_>) {
        while let Some(draining) = &mut self.draining {
            let table = &self.table;
            while draining.waiting.front().is_some_and(|slot| table.get(*slot).is_none()) {
                draining.waiting.pop_front();
            }
            let is_at_once = is_planted(Mistake::DrainedAtOnce);
            if draining.waiting.is_empty()
                || !(draining.pace.take(host.now.monotonic) || is_at_once)
            {
                return;
            }
            let until = draining.until;
            let Some(slot) = draining.waiting.pop_front() else { return };
            self.part(slot, Duration::ZERO, until, host);
        }
    }

    /// Tells a connection when to come back, and closes it as soon as nothing of it is under way, at
    /// the latest at `until`.
    fn part(&mut self, slot: Slot, wait: Duration, until: Monotonic, host: &mut Host<'_>) {
        let frame = ServerFrame::Disconnect {
            code: CloseCode::ServiceRestart,
            reconnect_after_ms: Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        };
        self.tell(slot, &frame, host);
        let Some(entry) = self.table.get_mut(slot) else { return };
        entry.leaving = true;
        let visit = entry.life.drain(until);
        self.visit_at(slot, visit);
        self.leave_if_idle(slot, host);
    }

    /// Closes a connection that was told to go once nothing of it is under way.
    pub(super) fn leave_if_idle(&mut self, slot: Slot, host: &mut Host<'_>) {
        let Some(entry) = self.table.get(slot) else { return };
        let waits = entry.echoes.iter().any(|echo| !echo.acknowledged);
        if entry.leaving && !entry.is_busy() && entry.inbox.is_none() && !waits {
            let code = CloseCode::ServiceRestart;
            host.outbox.close(slot, bytes::Bytes::new(), code.into());
            self.forget(slot, code, host);
        }
    }
}
