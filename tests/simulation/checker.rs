//! What must hold for what the line shows of a room, checked frame by frame against the truth.
//!
//! A view believes only what it was told; whatever a view cannot explain is a violation with the
//! name of its invariant. It never forgives because a fault has fired.

use std::collections::BTreeMap;

use domain::filter::Filter;
use domain::id::Epoch;
use domain::protocol::server_event::{Ack, Gap, LogEntry, Message, Page, Subscribed, Tombstone};
use domain::room::RoomId;
use domain::time::Wall;

use crate::broker::SimRoom;
use crate::crowd::{Change, Crowd, Known, NamesMax};

/// An invariant that does not hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Violation {
    pub(crate) invariant: &'static str,
    pub(crate) text: String,
}

impl Violation {
    pub(crate) fn new(invariant: &'static str, text: impl Into<String>) -> Self {
        Self { invariant, text: text.into() }
    }
}

pub(crate) type Checked = Result<(), Violation>;

fn fail(invariant: &'static str, text: impl Into<String>) -> Checked {
    Err(Violation::new(invariant, text))
}

/// How far a membership is, as its client knows it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stage {
    Off,
    Joining {
        /// Whether the client named its position.
        named: bool,
        /// Whether a gap was told since.
        gap: bool,
    },
    On,
    Leaving,
}

/// One client's view of one room.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) room: RoomId,
    /// Whether the room lists its members.
    pub(crate) listed: bool,
    /// Whether its log has an archive.
    pub(crate) durable: bool,
    pub(crate) wanted: bool,
    /// Which messages it asks for; none means all.
    pub(crate) filter: Option<Filter>,
    pub(crate) stage: Stage,
    /// Up to where the server has told everything behind what the client named, or said what is missing.
    pub(crate) at: Option<(Epoch, u64)>,
    pub(crate) present: Presence,
    /// When the client asked to be a member last.
    pub(crate) asked_ms: u64,
    /// When it was told that a moderator has put it out.
    pub(crate) put_out_ms: Option<u64>,
    /// What would be wrong if the client was not about to be put out.
    pub(crate) doubted: Option<Violation>,
}

/// Changes of presence, from one number to another; kept where they came while no list was there.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) from: u64,
    pub(crate) seq: u64,
    /// How many are there behind them.
    pub(crate) total: u64,
    pub(crate) changes: Vec<Change>,
}

/// What a follower believes about who is in a room.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    pub(crate) followed: bool,
    seq: u64,
    known: Known,
    /// The last change that was counted.
    count_seq: u64,
    early: Vec<Seen>,
}

impl View {
    pub(crate) fn new(room: RoomId) -> Self {
        Self {
            listed: !room.as_str().starts_with("quiet"),
            durable: room.as_str().starts_with("kept"),
            room,
            wanted: false,
            filter: None,
            stage: Stage::Off,
            at: None,
            present: Presence::default(),
            asked_ms: 0,
            put_out_ms: None,
            doubted: None,
        }
    }

    pub(crate) fn was_put_out_since(&self, since_ms: u64) -> bool {
        self.put_out_ms.is_some_and(|at_ms| at_ms >= since_ms)
    }

    /// The connection is gone; the position stays.
    pub(crate) fn disconnect(&mut self) {
        self.stage = Stage::Off;
        self.present = Presence::default();
        self.put_out_ms = None;
        self.doubted = None;
    }

    pub(crate) fn on_gap(&mut self, gap: &Gap<'_>, truth: &SimRoom, now: Wall) -> Checked {
        match &mut self.stage {
            Stage::Off => return fail("I11", format!("gap for {}, which is left", self.room)),
            Stage::Joining { gap, .. } => *gap = true,
            Stage::On | Stage::Leaving => {}
        }
        // What lies before it was not wanted.
        if self.filter.is_some() && self.at.is_some_and(|(epoch, _)| epoch == gap.epoch) {
            self.pass_over((gap.epoch, gap.from.saturating_sub(1)), truth, now)?;
        }
        let text = format!("{} at {:?} was told {gap:?}", self.room, self.at);
        let Some((epoch, offset)) = self.at else { return fail("I7", text) };
        let Some(number) = truth.number_of(gap.epoch) else { return fail("I8", text) };
        let kept = gap.epoch == truth.life().epoch && gap.to >= truth.first;
        if kept || gap.to > truth.lives[number].messages.len() as u64 {
            return fail("I7", format!("{text}, which the log has"));
        }
        let follows = match &*gap.reason {
            "epoch_changed" => gap.from == 1 && Some(number) > truth.number_of(epoch),
            "retention" | "overflow" => {
                gap.epoch == epoch && gap.from == offset + 1 && gap.to >= gap.from
            }
            _ => false,
        };
        if !follows {
            return fail("I7", text);
        }
        self.at = Some((gap.epoch, gap.to));
        Ok(())
    }

    pub(crate) fn on_subscribed(
        &mut self,
        told: &Subscribed<'_>,
        truth: &SimRoom,
        now: Wall,
    ) -> Checked {
        let Stage::Joining { named, gap } = self.stage else {
            return fail("I11", format!("subscribed to {} unasked", self.room));
        };
        if told.recovered != (named && !gap) {
            let text = format!("{}: recovered is {}", self.room, told.recovered);
            return fail("I7", format!("{text}, named {named}, gap told {gap}"));
        }
        self.stage = Stage::On;
        if !named {
            self.at = Some((told.epoch, told.offset));
            let exists = truth.number_of(told.epoch);
            let lies = exists.is_none_or(|n| told.offset > truth.lives[n].messages.len() as u64);
            if lies {
                return fail("I8", format!("{} does not stand at {:?}", self.room, self.at));
            }
        }
        self.on_entries(&told.messages, (told.epoch, told.offset), truth, now)
    }

    pub(crate) fn on_page(&mut self, page: &Page<'_>, truth: &SimRoom, now: Wall) -> Checked {
        self.on_entries(&page.messages, (page.epoch, page.offset), truth, now)
    }

    fn on_entries(
        &mut self,
        entries: &[LogEntry<'_>],
        end: (Epoch, u64),
        truth: &SimRoom,
        now: Wall,
    ) -> Checked {
        for entry in entries {
            match entry {
                LogEntry::Message(message) => self.on_message(message, truth, now)?,
                LogEntry::Tombstone(tombstone) => self.on_tombstone(tombstone, truth, now)?,
            }
        }
        if self.filter.is_some() {
            return self.pass_over(end, truth, now);
        }
        if self.at == Some(end) {
            return Ok(());
        }
        fail("I7", format!("{} is said to stand at {end:?}, not {:?}", self.room, self.at))
    }

    pub(crate) fn on_message(
        &mut self,
        message: &Message<'_>,
        truth: &SimRoom,
        now: Wall,
    ) -> Checked {
        self.check_wanted(message)?;
        let Some(offset) = message.offset else {
            if self.stage == Stage::Off {
                return fail("I11", format!("a message of {}, which is left", self.room));
            }
            return Ok(());
        };
        if self.filter.is_some() && self.stage != Stage::Off {
            self.step_over((message.epoch, offset), message.previous, truth, now)?;
        } else {
            self.step(message.epoch, offset)?;
        }
        match truth.at(message.epoch, offset) {
            Some(published) if published.publication.data == message.data.as_bytes() => Ok(()),
            _ => fail("I5", format!("{} {offset} is not {}", self.room, message.data)),
        }
    }

    pub(crate) fn on_tombstone(
        &mut self,
        tombstone: &Tombstone<'_>,
        truth: &SimRoom,
        now: Wall,
    ) -> Checked {
        let offset = tombstone.offset.unwrap_or(0);
        self.step(tombstone.epoch, offset)?;
        match truth.at(tombstone.epoch, offset) {
            Some(published) if published.publication.is_expired(now) => Ok(()),
            _ => fail("I5", format!("{} {offset} is not gone", self.room)),
        }
    }

    /// The next message, or the place of one, is at this position.
    fn step(&mut self, epoch: Epoch, offset: u64) -> Checked {
        let text = format!("{} at {:?} got ({epoch:?}, {offset})", self.room, self.at);
        if self.stage == Stage::Off {
            return fail("I11", text);
        }
        match self.at {
            Some((known, _)) if known != epoch => return fail("I8", text),
            Some((_, at)) if offset <= at => return fail("I2", text),
            Some((_, at)) if offset > at + 1 => return fail("I1", text),
            None => return fail("I8", text),
            Some(_) => {}
        }
        self.at = Some((epoch, offset));
        Ok(())
    }

    /// An `ack` in place of a message of ours. Answers whether it stood in the message's place.
    pub(crate) fn on_silent_ack(
        &mut self,
        ack: &Ack<'_>,
        truth: &SimRoom,
        now: Wall,
    ) -> Result<bool, Violation> {
        let (Some(offset), Some((epoch, at))) = (ack.offset, self.at) else { return Ok(false) };
        // The ack of a duplicate stands nowhere: the message takes its place by itself.
        if ack.duplicate || !matches!(self.stage, Stage::On | Stage::Leaving) {
            return Ok(false);
        }
        if self.filter.is_some() && epoch == ack.epoch && offset > at {
            return self.on_filtered_ack((epoch, offset), truth, now);
        }
        if epoch == ack.epoch && offset == at + 1 {
            self.at = Some((epoch, offset));
            return Ok(true);
        }
        let passed = if epoch == ack.epoch {
            offset <= at
        } else {
            truth.number_of(ack.epoch) < truth.number_of(epoch)
        };
        if passed || self.stage == Stage::Leaving {
            return Ok(false);
        }
        let text = format!("{} at {:?} got an ack of {:?} {offset}", self.room, self.at, ack.epoch);
        Err(Violation::new("I3 (ack in place)", text))
    }
}

impl Presence {
    /// Answers false when something is missing between the list and what has come before it.
    pub(crate) fn on_list(
        &mut self,
        seq: u64,
        crowd: Crowd,
        room: &RoomId,
    ) -> Result<bool, Violation> {
        // A list may be older than what came while it was on its way.
        if self.known != Known::Nothing && seq < self.seq {
            return Ok(true);
        }
        (self.seq, self.known) = (seq, Known::Named(crowd));
        for seen in std::mem::take(&mut self.early) {
            if !self.on_event(seen, room)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Answers false when something is missing before the event: a list is needed.
    pub(crate) fn on_event(&mut self, seen: Seen, room: &RoomId) -> Result<bool, Violation> {
        let crowd = match &mut self.known {
            Known::Nothing => {
                self.early.push(seen);
                return Ok(true);
            }
            _ if seen.seq <= self.seq => return Ok(true),
            Known::Named(crowd) if seen.from <= self.seq + 1 => crowd,
            // Names behind a number without a list between them are as much of a hole.
            Known::Named(_) | Known::Counted(_) => {
                self.known = Known::Nothing;
                self.early.push(seen);
                return Ok(false);
            }
        };
        self.seq = seen.seq;
        let done = match &seen.changes[..] {
            [change] if seen.from == seen.seq => crowd.change(change, seen.total),
            changes => crowd.change_all(changes, seen.total),
        };
        done.map_err(|text| Violation::new("I9", format!("{room}: {text}")))?;
        Ok(true)
    }

    /// Compares who is there with what was told, when all has been told.
    pub(crate) fn check(
        &self,
        expected: &BTreeMap<String, String>,
        most: NamesMax,
    ) -> Result<(), String> {
        self.known.check(expected, most)
    }

    /// Only how many there are is told from here on. A number may come behind a list that was read later; answers false
    /// where it is behind a later number.
    pub(crate) fn on_count(&mut self, seq: u64, total: u64) -> bool {
        self.early.clear();
        (self.seq, self.known) = (self.seq.max(seq), Known::Counted(total));
        let goes_on = self.count_seq <= seq;
        self.count_seq = self.count_seq.max(seq);
        goes_on
    }
}
