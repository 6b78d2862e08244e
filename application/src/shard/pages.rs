//! Further pages of the log for those who join: one at a time for a connection, and only as fast as
//! it takes them, however many rooms it comes back to.
//!
//! It must never read a page for a room that the connection has left.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use domain::codes::CloseCode;
use domain::position::Position;
use domain::protocol::ServerFrame;
use domain::time::Wall;

use super::audiences::{AudienceKey, mark_page};
use super::calls::{JoinTag, Outcome};
use super::rooms::{Joiner, RoomKey};
use super::{Host, Shard, Slot};
use crate::ports::BrokerError;
use crate::published::{Published, WireFormat};
use crate::use_cases::recover_room::{RecoverRoom, RecoveredPage};

/// How often it is looked whether a client has taken its page.
const PARKED_LOOK: Duration = Duration::from_millis(20);

/// A page to be read.
pub(super) struct Page {
    pub(super) tag: JoinTag,
    pub(super) since: Position,
    pub(super) own_hole: bool,
    /// Nothing is missing but what the joiner is owed; the log is not asked.
    pub(super) only_owed: bool,
}

/// The pages that one connection waits for: at most one for each of its rooms.
#[derive(Default)]
pub(super) struct Pages {
    waiting: VecDeque<Page>,
    /// Whether one is being read.
    is_reading: bool,
    /// Whether the shard looks now and then whether the client has taken the last.
    is_parked: bool,
}

impl Shard {
    /// Has a page read in its turn. Commands of the connection wait behind it, whether it is being
    /// read or waits.
    pub(super) fn read_on(&mut self, slot: Slot, page: Page, host: &Host<'_>) {
        let Some(entry) = self.table.get_mut(slot) else { return };
        entry.calls += 1;
        entry.pages.get_or_insert_default().waiting.push_back(page);
        self.read_next_page(slot, host);
    }

    /// Reads the next page, unless one is being read or the client has not taken what it was sent:
    /// a log may be longer than what may wait for a connection.
    fn read_next_page(&mut self, slot: Slot, host: &Host<'_>) {
        let Some(entry) = self.table.get_mut(slot) else { return };
        let Some(pages) = &mut entry.pages else { return };
        if pages.is_reading || pages.is_parked {
            return;
        }
        let Some(page) = pages.waiting.pop_front() else {
            entry.pages = None;
            return;
        };
        if host.outbox.queued_bytes(slot) > 0 {
            pages.waiting.push_front(page);
            pages.is_parked = true;
            return self.park(slot, host);
        }
        entry.calls = entry.calls.saturating_sub(1);
        // Leaving a room drops its page, so the slice is there.
        let Some(slice) = self.rooms.get_mut(page.tag.key) else { return };
        let audience = slice.joiner(slot).map_or(AudienceKey::NONE, |joiner| joiner.audience);
        pages.is_reading = true;
        let call = RecoverRoom {
            services: Arc::clone(&self.services),
            room: slice.id.clone(),
            policy: Arc::clone(&slice.policy),
            since: page.since,
            own_hole: page.own_hole,
            bytes_max: self.services.rules.limits.page_bytes_of_one(),
            filter: slice.audiences.filter(audience).cloned(),
        };
        let (gap, messages, more) = (None, Vec::new(), false);
        let (reached, after) = (page.since, page.since.offset);
        let empty = page.only_owed.then_some(RecoveredPage { gap, after, messages, reached, more });
        let future = Box::pin(async move {
            let page = match empty {
                Some(page) => Ok(page),
                None => call.execute().await,
            };
            Outcome::Paged(page)
        });
        self.call(slot, None, Some(page.tag), future);
    }

    /// Has a connection looked at in a while: whether it has taken what it was sent.
    pub(super) fn park(&mut self, slot: Slot, host: &Host<'_>) {
        if self.parked.is_empty() {
            self.parked_until = host.now.monotonic.after(PARKED_LOOK);
        }
        self.parked.push(slot);
    }

    /// Reads pages for the clients that have caught up, and the commands of those that wait for none any more.
    pub(super) fn look_at_parked(&mut self, host: &mut Host<'_>) {
        self.parked_until = host.now.monotonic.after(PARKED_LOOK);
        // A connection may wait with a page and with letters; it is looked at once.
        let mut parked = std::mem::take(&mut self.parked);
        parked.sort_unstable();
        parked.dedup();
        for slot in parked {
            let Some(entry) = self.table.get_mut(slot) else { continue };
            if let Some(pages) = &mut entry.pages {
                pages.is_parked = false;
            }
            self.read_next_page(slot, host);
            self.go_on_giving(slot, host);
            if self.table.get(slot).is_some_and(|entry| !entry.is_busy()) {
                self.read_inbox(slot, host);
            }
        }
    }

    /// The connection has left a room: its page is not read any more. What waited behind it goes on with the
    /// next look: whoever takes members out of a room is in the middle of something.
    pub(super) fn drop_pages(&mut self, slot: Slot, key: RoomKey) {
        let Some(entry) = self.table.get_mut(slot) else { return };
        let Some(pages) = &mut entry.pages else { return };
        let n_waiting = pages.waiting.len();
        pages.waiting.retain(|page| page.tag.key != key);
        let n_dropped = n_waiting - pages.waiting.len();
        entry.calls = entry.calls.saturating_sub(u32::try_from(n_dropped).unwrap_or(u32::MAX));
        if n_dropped > 0 && !entry.is_busy() && entry.inbox.is_some() {
            self.parked.push(slot);
        }
    }

    pub(super) fn finish_page(
        &mut self,
        slot: Slot,
        tag: &JoinTag,
        result: Result<RecoveredPage, BrokerError>,
        host: &mut Host<'_>,
    ) {
        if let Some(pages) = self.table.get_mut(slot).and_then(|entry| entry.pages.as_mut()) {
            pages.is_reading = false;
        }
        self.tell_page(slot, tag, result, host);
        self.read_next_page(slot, host);
    }

    fn tell_page(
        &mut self,
        slot: Slot,
        tag: &JoinTag,
        result: Result<RecoveredPage, BrokerError>,
        host: &mut Host<'_>,
    ) {
        let Ok(page) = result else {
            // What it missed can't be read now and can't be named either: come back.
            return self.end(slot, CloseCode::InsufficientState, None, host);
        };
        self.metrics.pages.add(1);
        self.count_page(&page);
        let bytes_left = self.bytes_left(slot, &page.messages, host);
        let Some(slice) = self.rooms.get_mut(tag.key) else { return };
        let Some(joiner) = slice.joiner(slot) else { return };
        let (overflowed, audience) = (joiner.held.overflowed, joiner.audience);
        let owed = joiner.take_owed(bytes_left, page.messages.is_empty(), host.now.wall);
        let overflowed = overflowed || !joiner.owed.is_empty();
        if let Some(gap) = page.gap {
            self.tell(slot, &ServerFrame::Gap { room: &tag.room, gap }, host);
        }
        if self.format_of(slot) == WireFormat::Document {
            self.tell_each(slot, page.messages.iter().chain(&owed), host);
            return self.settle(slot, tag, page.reached, page.more, host);
        }
        let marked = mark_page(&page, audience);
        let owed = owed.iter().map(|published| &published.message()[..]);
        let messages = marked.iter().map(|message| &message[..]).chain(owed);
        let frame = ServerFrame::Page {
            room: &tag.room,
            position: page.reached,
            messages: &messages.collect::<Vec<_>>(),
            more: page.more || overflowed,
        };
        self.tell(slot, &frame, host);
        self.settle(slot, tag, page.reached, page.more, host);
    }
}

impl Joiner {
    /// Takes of the values that it is owed what fits in so many bytes of encoded messages, and one
    /// at least if it gets nothing else; what has expired meanwhile is not owed any more.
    fn take_owed(
        &mut self,
        mut bytes_left: usize,
        is_first: bool,
        now: Wall,
    ) -> Vec<Arc<Published>> {
        self.owed.retain(|published| !published.publication.is_expired(now));
        let mut n_taken = 0;
        for published in &self.owed {
            let bytes = published.message().len();
            if bytes > bytes_left && !(is_first && n_taken == 0) {
                break;
            }
            bytes_left = bytes_left.saturating_sub(bytes);
            n_taken += 1;
        }
        self.owed.drain(..n_taken).collect()
    }
}
