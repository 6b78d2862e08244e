//! The lines of this host against the contract of the outbox.

use std::collections::{BTreeMap, VecDeque};

use application::ports::outbox::Outbox;
use application::shard::Slot;
use application::testing::outbox_contract::{Heard, OutboxHost};

use crate::host::Lines;

#[derive(Default)]
struct Ends {
    lines: Lines,
    heard: BTreeMap<Slot, VecDeque<Heard>>,
    unread: BTreeMap<Slot, usize>,
}

impl OutboxHost for Ends {
    fn queue_bytes_max(&self) -> usize {
        Lines::QUEUE_BYTES_MAX
    }

    fn unread_bytes_max(&self) -> usize {
        0
    }

    fn open(&mut self, at: Slot) {
        self.lines.open(at);
    }

    fn outbox(&mut self, act: &mut dyn FnMut(&mut dyn Outbox)) {
        act(&mut self.lines);
    }

    fn stall(&mut self, at: Slot) {
        self.lines.stall(at, true);
    }

    fn resume(&mut self, at: Slot) {
        self.lines.stall(at, false);
    }

    fn hear(&mut self, at: Slot) -> Heard {
        let heard = self.heard.entry(at).or_default();
        let (taken, code) = self.lines.taken(at);
        for line in taken.split_inclusive(|byte| *byte == b'\n') {
            let text = String::from_utf8(line.to_vec()).unwrap();
            heard.push_back(Heard::Message(text.trim_end_matches('\n').to_owned()));
        }
        let closed = code.map_or(Heard::Silence, |code| Heard::Closed(code.number()));
        heard.pop_front().unwrap_or(closed)
    }

    fn say(&mut self, from: Slot, _text: &str) {
        *self.unread.entry(from).or_default() += 1;
        self.reads_all(from);
    }

    fn reads_all(&mut self, of: Slot) -> bool {
        if self.lines.is_read(of) {
            self.unread.remove(&of);
        }
        !self.has_unread(of)
    }

    fn has_unread(&mut self, of: Slot) -> bool {
        self.unread.contains_key(&of)
    }
}

application::outbox_contract_tests!(Ends::default);
