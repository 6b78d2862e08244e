//! The connections of a shard, by slot.
//!
//! A slot that is used again has another generation, so an answer that comes late finds nobody
//! rather than a stranger.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use domain::connection::Connection;
use domain::id::ConnectionId;
use domain::membership::Membership;
use domain::policy::AckLevel;
use domain::position::Position;
use domain::rate_limit::RateLimiter;
use domain::time::{Monotonic, Wall};

use super::Slot;
use super::letters::{Giving, Retry};
use super::own_room::OwnRoom;
use super::pages::Pages;
use super::revalidate::Rights;
use super::rooms::RoomKey;
use super::showing::Showing;
use super::watches::Followed;
use crate::directory::Admission;
use crate::extensions::middleware::Who;
use crate::ports::Receipt;
use crate::view::View;

/// One connection.
pub(super) struct Entry {
    pub(super) generation: u32,
    pub(super) who: Arc<Who>,
    pub(super) view: View,
    pub(super) life: Connection,
    pub(super) rooms: Membership<RoomKey, u32>,
    /// Whether it is let in: its commands count, once those before them are done.
    pub(super) greeted: bool,
    /// What `connect` may still bring.
    pub(super) door: Door,
    /// How many cold calls are under way; commands wait in the inbox until there is none. A page
    /// that a joiner turns out to need can come beside a command.
    pub(super) calls: u32,
    /// Only while something waits.
    pub(super) inbox: Option<Box<Inbox>>,
    /// The pages that its joins need; only while there are some.
    pub(super) pages: Option<Box<Pages>>,
    pub(super) commands: RateLimiter,
    pub(super) refused_commands: RateLimiter,
    pub(super) unparsable: RateLimiter,
    pub(super) presence_updates: RateLimiter,
    /// What it shows of itself and came too fast; only while something waits.
    pub(super) showing: Option<Box<Showing>>,
    pub(super) opened_at: Wall,
    /// The one entry of the timer wheel that counts; others are stale.
    pub(super) visit_at: Option<Monotonic>,
    pub(super) admission: Option<Admission>,
    /// Publishes with `echo:false` whose place in the order is still to come or was just there.
    pub(super) echoes: Vec<Echo>,
    /// The publish with `echo:false` whose answer from the broker is still to come.
    pub(super) publishing: Option<Option<u64>>,
    /// The patterns it follows, or is about to.
    pub(super) patterns: Vec<Followed>,
    /// The room of its own, while it is in it without having asked.
    pub(super) own_room: OwnRoom,
    /// What it is being given of what waited for its user; only while the client has not taken it.
    pub(super) giving: Option<Box<Giving>>,
    /// What waited for its user could not be read or removed: its next visit tries again.
    pub(super) letters_wait: Option<Box<Retry>>,
    /// Set while draining: close as soon as nothing is under way.
    pub(super) leaving: bool,
    /// Only where an authorizer is asked again from time to time.
    pub(super) rights: Option<Box<Rights>>,
}

impl Entry {
    /// Whether a cold call is under way.
    pub(super) const fn is_busy(&self) -> bool {
        self.calls > 0
    }

    /// Takes out what is written down about a publish.
    pub(super) fn take_echo(&mut self, room: RoomKey, position: Position) -> Option<Echo> {
        let at = self.echoes.iter().position(|e| e.room == room && e.position == position)?;
        Some(self.echoes.remove(at))
    }
}

/// What `connect` may still bring.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Door {
    /// Anything: it is not known who the connection is.
    Open,
    /// A ticket of the same user, and rooms: a token came with the upgrade.
    Named,
    /// Nothing: it came, or a room was joined.
    Shut,
}

/// A publish with `echo:false`: the `ack` stands where the message would. Written down by
/// whichever comes first, the answer of the broker or the publication; the second removes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Echo {
    pub(super) room: RoomKey,
    pub(super) position: Position,
    pub(super) command: Option<u64>,
    /// What the `ack` says.
    pub(super) level: AckLevel,
    pub(super) acknowledged: bool,
    /// How many reads of the room's log had begun when it was written down: a later read knows
    /// whether its epoch has ended.
    pub(super) n_reads: u64,
}

impl Echo {
    pub(super) const fn receipt(&self) -> Receipt {
        let Position { epoch, offset } = self.position;
        Receipt { epoch, offset: Some(offset), duplicate: false, level: self.level }
    }
}

/// A text whose commands before `at` have been carried out.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) text: Box<str>,
    pub(super) at: usize,
    /// Whether something stood before it, so that it can't be plain text.
    pub(super) is_rest: bool,
    /// Whether a handler wants it done: its words are those of protocol v2, whatever the endpoint.
    pub(super) is_own: bool,
}

/// Messages that wait behind a cold call, as they came.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) texts: VecDeque<Waiting>,
    pub(super) bytes: usize,
    /// Whether the host was told to stop reading.
    pub(super) paused: bool,
    /// How many bytes waited for the client when it was visited last, if it was paused then.
    pub(super) queued_bytes: usize,
}

#[derive(Default)]
pub(super) struct Table {
    entries: Vec<Option<Box<Entry>>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    by_id: HashMap<ConnectionId, Slot>,
    /// When anything was last sent, by slot; apart from the entries so that a delivery touches
    /// eight bytes of it.
    pub(super) sent_at: Vec<Monotonic>,
}

impl Table {
    /// Something was sent to all of these. Who could not be given it is about to end and has no use
    /// for a ping either.
    pub(super) fn sent(&mut self, to: &[Slot], at: Monotonic) {
        for slot in to {
            if let Some(sent_at) = self.sent_at.get_mut(slot.index as usize) {
                *sent_at = at;
            }
        }
    }

    /// A slot that nobody uses; it stays reserved until `insert` or `release`.
    pub(super) fn reserve(&mut self) -> Slot {
        if let Some(index) = self.free.pop() {
            return Slot { index, generation: self.generations[index as usize] };
        }
        let index = self.entries.len() as u32;
        self.entries.push(None);
        self.generations.push(0);
        self.sent_at.push(Monotonic::START);
        Slot { index, generation: 0 }
    }

    pub(super) fn insert(&mut self, slot: Slot, entry: Box<Entry>) {
        self.by_id.insert(entry.who.connection, slot);
        self.entries[slot.index as usize] = Some(entry);
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Entry> {
        let entry = self.entries.get(slot.index as usize)?.as_deref()?;
        (entry.generation == slot.generation).then_some(entry)
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(slot.index as usize)?.as_deref_mut()?;
        (entry.generation == slot.generation).then_some(entry)
    }

    pub(super) fn remove(&mut self, slot: Slot) -> Option<Box<Entry>> {
        self.get(slot)?;
        let entry = self.entries[slot.index as usize].take()?;
        self.by_id.remove(&entry.who.connection);
        self.release(slot);
        Some(entry)
    }

    /// Gives a reserved slot back.
    pub(super) fn release(&mut self, slot: Slot) {
        let generation = &mut self.generations[slot.index as usize];
        *generation = generation.wrapping_add(1);
        self.free.push(slot.index);
    }

    pub(super) fn slot_of(&self, connection: ConnectionId) -> Option<Slot> {
        self.by_id.get(&connection).copied()
    }

    pub(super) fn slots(&self) -> Vec<Slot> {
        let entries = self.entries.iter().enumerate();
        entries
            .filter_map(|(index, entry)| {
                let generation = entry.as_ref()?.generation;
                Some(Slot { index: index as u32, generation })
            })
            .collect()
    }

    /// Behind the last place.
    pub(super) fn end(&self) -> u32 {
        self.entries.len() as u32
    }

    /// Who has a place, with its slot.
    pub(super) fn entry_at(&self, index: u32) -> Option<(Slot, &Entry)> {
        let entry = self.entries.get(index as usize)?.as_deref()?;
        Some((Slot { index, generation: entry.generation }, entry))
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }
}
