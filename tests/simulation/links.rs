//! The network between clients and nodes: one link per connection, in order, with a delay, and
//! the outbox that a shard writes to.
//!
//! A link never loses a byte in the middle: what is cut is cut from some point on.

use std::collections::{BTreeMap, VecDeque};

use application::outbound_queue::OutboundQueue;
use application::ports::outbox::Ending;
use application::ports::{Batch, Delivered, Outbox};
use application::shard::Slot;
use bytes::Bytes;
use domain::delivery::{SlowDecision, decide_slow};
use domain::id::ConnectionId;

use crate::checker::Violation;
use crate::inbox::number_in;
use crate::rng::Rng;

/// What arrives at a client.
#[derive(Clone, Debug)]
pub(crate) enum Down {
    Bytes(Bytes),
    Closed(u16),
}

/// What arrives at a node.
#[derive(Clone, Debug)]
pub(crate) enum Up {
    Text(String),
    Closed,
}

/// A private message on its way to a writer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passed {
    pub(crate) link: usize,
    pub(crate) number: usize,
    /// A shard has just given it to the link.
    pub(crate) is_given: bool,
    /// The socket has taken it whole.
    pub(crate) is_taken: bool,
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) client: usize,
    pub(crate) node: usize,
    pub(crate) shard: usize,
    pub(crate) slot: Slot,
    pub(crate) id: ConnectionId,
    pub(crate) queue: OutboundQueue,
    /// It is nobody's: what it shows it has from another one.
    pub(crate) is_thief: bool,
    /// It is a writer's: private messages are looked at.
    pub(crate) takes_letters: bool,
    /// Those that the socket has not taken yet.
    letters: Vec<usize>,
    /// The client's side takes nothing at the moment.
    pub(crate) stalled: bool,
    /// It took nothing for a while: what waited for it then may have given way to its end.
    pub(crate) was_stalled: bool,
    /// What the stalled side has taken before it stopped.
    in_flight: Vec<u8>,
    /// The largest piece that was begun when the stall set in: it waits outside of the cap.
    begun_bytes: usize,
    /// Nothing arrives any more, in either direction, and nobody is told.
    pub(crate) silent: bool,
    /// A full queue has dropped a message whose class allows that.
    pub(crate) dropped: bool,
    /// It was refused something, and is about to be closed.
    refused: bool,
    pub(crate) server_open: bool,
    pub(crate) client_open: bool,
    closing: Option<u16>,
    down_ms: u64,
    up_ms: u64,
    /// The node reads nothing until it has caught up.
    pub(crate) paused: bool,
    pub(crate) unread: VecDeque<Up>,
}

impl Link {
    pub(crate) fn new(
        client: usize,
        node: usize,
        shard: usize,
        slot: Slot,
        id: ConnectionId,
    ) -> Self {
        Self {
            client,
            node,
            shard,
            slot,
            id,
            queue: OutboundQueue::default(),
            is_thief: false,
            takes_letters: false,
            letters: Vec::new(),
            stalled: false,
            was_stalled: false,
            in_flight: Vec::new(),
            begun_bytes: 0,
            silent: false,
            dropped: false,
            refused: false,
            server_open: true,
            client_open: true,
            closing: None,
            down_ms: 0,
            up_ms: 0,
            paused: false,
            unread: VecDeque::new(),
        }
    }

    /// When something that leaves the client now arrives.
    pub(crate) fn up_at(&mut self, now_ms: u64, rng: &mut Rng) -> u64 {
        self.up_ms = self.up_ms.max(now_ms + rng.between(1, 8));
        self.up_ms
    }

    fn down_at(&mut self, now_ms: u64, rng: &mut Rng) -> u64 {
        self.down_ms = self.down_ms.max(now_ms + rng.between(1, 8));
        self.down_ms
    }

    /// Notes that a frame was given to it, if it is a private message.
    fn note_letter(
        &mut self,
        link: usize,
        frame: &Bytes,
        is_taken: bool,
        passed: &mut Vec<Passed>,
    ) {
        if !self.takes_letters {
            return;
        }
        let Some(number) = number_in(frame) else { return };
        passed.push(Passed { link, number, is_given: true, is_taken });
        if !is_taken {
            self.letters.push(number);
        }
    }

    /// What waited has been taken.
    pub(crate) fn take_letters(&mut self, link: usize) -> Vec<Passed> {
        let taken = self.letters.drain(..).filter(|_| self.server_open);
        taken.map(|number| Passed { link, number, is_given: false, is_taken: true }).collect()
    }

    /// The client's side takes again what waits.
    pub(crate) fn flush(&mut self, index: usize, wires: &mut Wires<'_>) {
        self.stalled = false;
        if !self.in_flight.is_empty() {
            let bytes = Bytes::from(std::mem::take(&mut self.in_flight));
            self.send(index, Down::Bytes(bytes), wires);
        }
        while let Some(front) = self.queue.front().cloned() {
            self.queue.advance(front.len());
            self.send(index, Down::Bytes(front), wires);
        }
        if let Some(code) = self.closing.take() {
            self.send(index, Down::Closed(code), wires);
        }
    }

    pub(crate) fn send(&mut self, index: usize, down: Down, wires: &mut Wires<'_>) {
        let at = self.down_at(wires.now_ms, wires.rng);
        wires.sent.push((at, index, down));
    }

    /// Nothing goes down but the first part of the piece. Answers whether that is all of it.
    fn begin_stalled(&mut self, piece: &Bytes, rng: &mut Rng) -> bool {
        let taken = rng.index(piece.len() + 1);
        self.in_flight.extend_from_slice(&piece[..taken]);
        if taken < piece.len() {
            self.queue.start(piece.slice(taken..));
            self.begun_bytes = piece.len();
        }
        taken == piece.len()
    }
}

/// Where bytes and closes are put on their way.
pub(crate) struct Wires<'a> {
    pub(crate) now_ms: u64,
    pub(crate) rng: &'a mut Rng,
    pub(crate) sent: &'a mut Vec<(u64, usize, Down)>,
}

/// The outbox of one shard.
pub(crate) struct SimOutbox<'a> {
    pub(crate) links: &'a mut Vec<Link>,
    pub(crate) by_slot: &'a mut BTreeMap<Slot, usize>,
    pub(crate) wires: Wires<'a>,
    pub(crate) queue_bytes_max: usize,
    pub(crate) resumed: &'a mut Vec<usize>,
    pub(crate) paused: &'a mut u64,
    pub(crate) dropped: &'a mut u64,
    pub(crate) closed: &'a mut Vec<(usize, u16)>,
    pub(crate) passed: &'a mut Vec<Passed>,
    /// The frames that are given to anybody; only where somebody may be told nothing of a room.
    pub(crate) told: Option<&'a mut Vec<(usize, Bytes)>>,
    pub(crate) violation: &'a mut Option<Violation>,
}

impl Outbox for SimOutbox<'_> {
    fn frame(&mut self, message: &[u8]) -> Bytes {
        let mut framed = Vec::with_capacity(message.len() + 1);
        framed.extend_from_slice(message);
        framed.push(b'\n');
        Bytes::from(framed)
    }

    fn deliver(&mut self, to: Slot, batch: &Batch<'_>) -> Delivered {
        let Some(index) = self.by_slot.get(&to).copied() else { return Delivered::Gone };
        let link = &mut self.links[index];
        if link.refused {
            return Delivered::Refused;
        }
        if let Some(told) = &mut self.told {
            told.extend(batch.frames.iter().map(|frame| (index, frame.bytes.clone())));
        }
        if !link.stalled {
            for frame in batch.frames {
                link.note_letter(index, &frame.bytes, true, self.passed);
            }
            link.send(index, Down::Bytes(batch.joined.clone()), &mut self.wires);
            return Delivered::Taken;
        }
        // The kernel's buffer is small here: it is full once the first piece has met the stall.
        if link.queue.is_empty() && link.in_flight.is_empty() {
            let is_taken = link.begin_stalled(batch.joined, self.wires.rng);
            for frame in batch.frames {
                link.note_letter(index, &frame.bytes, is_taken, self.passed);
            }
            return Delivered::Taken;
        }
        for frame in batch.frames {
            let before = link.queue.bytes();
            let may_drop =
                decide_slow(frame.class, before, frame.bytes.len(), self.queue_bytes_max);
            if may_drop == SlowDecision::Drop {
                link.dropped = true;
                *self.dropped += 1;
            }
            if link.queue.push(frame.clone(), self.queue_bytes_max).is_err() {
                link.refused = true;
                return Delivered::Refused;
            }
            link.note_letter(index, &frame.bytes, false, self.passed);
        }
        let most = self.queue_bytes_max + link.begun_bytes + OutboundQueue::URGENT_BYTES_MAX;
        if link.queue.bytes() > most {
            let text = format!("{} bytes wait for a client", link.queue.bytes());
            self.violation.get_or_insert(Violation::new("I12", text));
        }
        Delivered::Taken
    }

    fn close(&mut self, to: Slot, last: Bytes, Ending { code, .. }: Ending) {
        let Some(index) = self.by_slot.remove(&to) else { return };
        let link = &mut self.links[index];
        link.server_open = false;
        self.closed.push((index, code.number()));
        link.queue.drop_messages();
        link.letters.clear();
        if !last.is_empty() {
            link.queue.push_urgent(last);
        }
        link.closing = Some(code.number());
        if !link.stalled {
            link.flush(index, &mut self.wires);
        }
    }

    fn set_reading(&mut self, of: Slot, reading: bool) {
        let Some(index) = self.by_slot.get(&of).copied() else { return };
        self.links[index].paused = !reading;
        if reading {
            self.resumed.push(index);
        } else {
            *self.paused += 1;
        }
    }

    fn queued_bytes(&self, of: Slot) -> usize {
        self.by_slot.get(&of).map_or(0, |index| self.links[*index].queue.bytes())
    }
}
