//! Use case *heartbeat sweep*: looks after connections when their time has come.

use domain::connection::Effect;
use domain::protocol::ServerFrame;
use domain::time::Monotonic;

use super::{Host, Shard, Slot};

impl Shard {
    /// Has a connection visited at `at`, or earlier: a visit that is planned already says itself
    /// when the next one is due, so that no command can fill the wheel.
    pub(super) fn visit_at(&mut self, slot: Slot, at: Monotonic) {
        let Some(entry) = self.table.get_mut(slot) else { return };
        if entry.visit_at.is_none_or(|planned| at < planned) {
            entry.visit_at = Some(at);
            self.timers.add(at, (slot, at));
        }
    }

    pub(super) fn tick(&mut self, host: &mut Host<'_>) {
        let mut due = Vec::new();
        self.timers.advance(host.now.monotonic, &mut due);
        for (slot, at) in due {
            self.visit(slot, at, host);
        }
        self.tell_gathered(host);
        self.part_in_turn(host);
        if !self.parked.is_empty() && host.now.monotonic >= self.parked_until {
            self.look_at_parked(host);
        }
        if let Some(interval) = self.services.rules.limits.look_every()
            && host.now.monotonic >= self.position_check_at
        {
            self.position_check_at = host.now.monotonic.after(interval);
            self.look_at_positions();
            self.look_at_own_rooms(host);
        }
    }

    fn visit(&mut self, slot: Slot, at: Monotonic, host: &mut Host<'_>) {
        let sent_at = self.table.sent_at.get(slot.index as usize).copied().unwrap_or_default();
        let Some(entry) = self.table.get_mut(slot) else { return };
        let timing = entry.view.timing(&self.services.rules);
        if entry.visit_at != Some(at) {
            return;
        }
        entry.visit_at = None;
        if let Some(inbox) = entry.inbox.as_mut().filter(|inbox| inbox.paused) {
            // What it says is not read, so its silence means nothing. That it takes what it is sent
            // tells whether it is there.
            let queued_bytes = host.outbox.queued_bytes(slot);
            if queued_bytes == 0 || queued_bytes < inbox.queued_bytes {
                entry.life.heard(host.now.monotonic);
            }
            inbox.queued_bytes = queued_bytes;
        }
        let (effect, next) = entry.life.visit(host.now, sent_at, &self.stalls, &timing);
        match effect {
            None => {}
            Some(Effect::Ping) => {
                self.metrics.pings.add(1);
                self.tell(slot, &ServerFrame::Ping, host);
            }
            Some(Effect::TokenExpiring(expires_at)) => {
                self.tell(slot, &ServerFrame::TokenExpiring { expires_at }, host);
            }
            Some(Effect::Close(code)) => return self.end(slot, code, None, host),
        }
        self.retry_letters(slot);
        self.show_waiting(slot, host);
        let rights = self.look_at_rights(slot, host);
        self.visit_at(slot, rights.map_or(next, |at| at.min(next)));
    }
}
