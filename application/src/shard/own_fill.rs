//! Holes in the rooms of users, where the broker is on another machine: what a user missed is read from the log of
//! its room, as in any room, and what can't be read is a `gap`.
//!
//! Nothing may come out of order: while a hole is read, what comes waits behind it. It does not wait for a look, of which
//! nobody knows that anything is missing. What is of no place in a log, and was missed, nobody can know of.

use std::sync::Arc;
use std::time::Duration;

use domain::policy::NamespacePolicy;
use domain::position::{Offset, Position};
use domain::protocol::ServerFrame;
use domain::recovery::{Gap, GapReason};
use domain::room::RoomId;
use domain::time::Monotonic;
use smallvec::SmallVec;

use super::audiences::Wanted;
use super::calls::{CallTag, ColdCall, Outcome};
use super::held::Held;
use super::{Host, Shard, Slot};
use crate::metrics::HoleCause;
use crate::ports::{BrokerError, ReadLog};
use crate::published::Published;
use crate::services::Services;
use crate::use_cases::recover_room::{RecoverRoom, RecoveredPage};

/// How often each is read though nothing seems to be missing: a room that nobody uses runs out, at the earliest after
/// twice as long, and something may have been lost without a word.
const LOOK_INTERVAL: Duration = Duration::from_secs(300);

/// A user's own room as far as this shard is concerned.
#[derive(Debug, Default)]
pub(super) struct Own {
    pub(super) slots: SmallVec<[Slot; 2]>,
    /// What everybody in it has; none where that could not be found out.
    pub(super) seen: Option<Position>,
    fill: Option<Box<Fill>>,
    /// When it is read next; none before it was thought of.
    look_at: Option<Monotonic>,
}

#[derive(Debug, Default)]
struct Fill {
    held: Held,
    /// Whether the read had no answer, and is to be made again.
    has_failed: bool,
    /// Whether nothing seems to be missing.
    is_look: bool,
}

/// What becomes of a message.
enum Meeting {
    Passes,
    Waits,
    Known,
    IsBehindHole,
}

impl Own {
    /// Whether it is to be read now though nothing seems to be missing. Of one whose beginning is not known nobody can
    /// say what is.
    fn is_due(&mut self, now: Monotonic) -> bool {
        // Not all of those at once that came at once.
        let share = self.slots.first().map_or(0, |slot| slot.index % 64);
        let first = LOOK_INTERVAL / 2 + LOOK_INTERVAL / 128 * share;
        let at = *self.look_at.get_or_insert(now.after(first));
        if at > now || self.fill.is_some() || self.seen.is_none() {
            return false;
        }
        self.look_at = Some(now.after(LOOK_INTERVAL));
        true
    }

    /// Whether everybody in it has what is at this place.
    fn has(&self, at: Position) -> bool {
        self.seen.is_some_and(|seen| seen.epoch == at.epoch && at.offset <= seen.offset)
    }

    fn meet(&mut self, published: &Arc<Published>, held_max: usize) -> Meeting {
        if let Some(fill) = self.fill.as_mut().filter(|fill| !fill.is_look) {
            fill.held.push(published, Wanted::Whole, held_max);
            return Meeting::Waits;
        }
        let publication = &published.publication;
        let Some(offset) = publication.offset else { return Meeting::Passes };
        if let Some(seen) = self.seen {
            if seen.epoch == publication.epoch && offset <= seen.offset {
                return Meeting::Known;
            }
            if seen.epoch != publication.epoch || seen.offset.next() != Some(offset) {
                return Meeting::IsBehindHole;
            }
        }
        self.seen = Some(Position { epoch: publication.epoch, offset });
        Meeting::Passes
    }
}

/// Of a room whose beginning is not known nobody can say what was missed: all of it may have been.
async fn all_of(
    services: &Services,
    room: &RoomId,
    policy: &Arc<NamespacePolicy>,
) -> Result<RecoveredPage, BrokerError> {
    let now = services.ports.clock.now().wall;
    let read = ReadLog { after: Offset::MAX, messages_max: 0, bytes_max: 0, now };
    let reached = services.ports.broker.read(room, policy, read).await?.bounds.top();
    let Position { epoch, offset: to } = reached;
    let gap = Offset::ZERO.next().filter(|from| *from <= to);
    let gap = gap.map(|from| Gap { epoch, from, to, reason: GapReason::Overflow });
    Ok(RecoveredPage { gap, after: to, messages: Vec::new(), reached, more: false })
}

impl Shard {
    /// Whether holes in the rooms of users are filled from their logs.
    pub(super) fn fills_own_rooms(&self) -> bool {
        self.services.rules.limits.look_every().is_some()
    }

    /// A message came to a user's own room.
    pub(super) fn hear_own(&mut self, published: &Arc<Published>, host: &mut Host<'_>) {
        let room = &published.publication.room;
        let is_filled = self.fills_own_rooms();
        let held_max = self.services.rules.limits.held_bytes_max;
        let Some(own) = self.watches.own.get_mut(room) else { return };
        let meeting = if is_filled { own.meet(published, held_max) } else { Meeting::Passes };
        match meeting {
            Meeting::Passes => self.give_own(published, host),
            Meeting::Waits | Meeting::Known => {}
            Meeting::IsBehindHole => {
                self.metrics.holes.add(HoleCause::Order, 1);
                self.fill_own(room, host);
                self.hear_own(published, host);
                self.note_read_of_own(room);
            }
        }
    }

    fn give_own(&mut self, published: &Arc<Published>, host: &mut Host<'_>) {
        let publication = &published.publication;
        let Some(own) = self.watches.own.get(&publication.room) else { return };
        let slots = own.slots.clone();
        let origin = publication.origin.filter(|origin| !origin.echo);
        let silent = origin.and_then(|origin| self.table.slot_of(origin.connection));
        for slot in slots.into_iter().filter(|slot| Some(*slot) != silent) {
            let frame = self.frame_of(published, self.format_of(slot), host);
            self.give_frame(slot, &frame, host);
        }
    }

    /// Something of a user's own room may be missing: it is read, or the room ends for who is in it.
    pub(super) fn fill_own(&mut self, room: &RoomId, host: &mut Host<'_>) {
        let Some(own) = self.watches.own.get_mut(room) else { return };
        match &mut own.fill {
            // The read that is under way may have ended before what is missing.
            Some(fill) => {
                fill.held.overflow();
                fill.is_look = false;
            }
            None => {
                own.fill = Some(Box::default());
                self.read_own(room, host);
            }
        }
    }

    fn read_own(&mut self, room: &RoomId, host: &mut Host<'_>) {
        let Some(own) = self.watches.own.get(room) else { return };
        let Ok(policy) = self.find_policy(room) else { return self.end_own(room, host) };
        let Some(since) = own.seen else {
            let (services, id) = (Arc::clone(&self.services), room.clone());
            let future =
                Box::pin(async move { Outcome::Filled(all_of(&services, &id, &policy).await) });
            self.calls.push_back(ColdCall { tag: CallTag::OwnRoom(room.clone()), future });
            return self.note_read_of_own(room);
        };
        let call = RecoverRoom {
            services: Arc::clone(&self.services),
            room: room.clone(),
            policy,
            since,
            own_hole: true,
            bytes_max: self.services.rules.limits.page_bytes_of_one(),
            filter: None,
        };
        let future = Box::pin(async move { Outcome::Filled(call.execute().await) });
        self.calls.push_back(ColdCall { tag: CallTag::OwnRoom(room.clone()), future });
        self.note_read_of_own(room);
    }

    /// What is held by now came before the read that begins.
    fn note_read_of_own(&mut self, room: &RoomId) {
        let fill = self.watches.own.get_mut(room).and_then(|own| own.fill.as_mut());
        if let Some(fill) = fill {
            fill.held.n_before_read = fill.held.publications.len();
        }
    }

    pub(super) fn finish_own_fill(&mut self, room: &RoomId, outcome: Outcome, host: &mut Host<'_>) {
        let Some(own) = self.watches.own.get_mut(room) else { return };
        let Some(fill) = &mut own.fill else { return };
        match outcome {
            Outcome::Filled(Ok(page)) => self.fill_own_with(room, &page, host),
            // It is made again when it is due.
            Outcome::Filled(Err(_)) if fill.is_look => own.fill = None,
            Outcome::Filled(Err(_)) => fill.has_failed = true,
            _ => self.end_own(room, host),
        }
    }

    fn fill_own_with(&mut self, room: &RoomId, page: &RecoveredPage, host: &mut Host<'_>) {
        // During a look some of it came by itself.
        let Some(own) = self.watches.own.get(room) else { return };
        let is_new = |epoch, offset| !own.has(Position { epoch, offset });
        let gap = page.gap.filter(|gap| is_new(gap.epoch, gap.to));
        let of_place = |published: &Published| {
            let publication = &published.publication;
            publication.offset.is_none_or(|offset| is_new(publication.epoch, offset))
        };
        let messages: Vec<_> = page.messages.iter().filter(|one| of_place(one)).cloned().collect();
        if let Some(gap) = gap {
            self.metrics.gaps.add(gap.reason, 1);
            let slots = self.watches.own.get(room).map(|own| own.slots.clone());
            for slot in slots.unwrap_or_default() {
                self.tell(slot, &ServerFrame::Gap { room, gap }, host);
            }
        }
        for published in &messages {
            self.give_own(published, host);
        }
        let Some(own) = self.watches.own.get_mut(room) else { return };
        if !own.has(page.reached) {
            own.seen = Some(page.reached);
        }
        if page.more {
            return self.read_own(room, host);
        }
        let Some(fill) = own.fill.take() else { return };
        if !fill.is_look || gap.is_some() || !messages.is_empty() {
            self.metrics.holes_filled.add(1);
        }
        if fill.held.overflowed {
            // What has a place is in the log.
            let held = fill.held.forget_positioned();
            own.fill = Some(Box::new(Fill { held, ..Fill::default() }));
            return self.read_own(room, host);
        }
        for (at, (published, _)) in fill.held.publications.into_iter().enumerate() {
            // The log is at least as new as what came before it was read: of another epoch, that is a late
            // message of a log that was lost.
            let publication = &published.publication;
            let is_other = publication.epoch != page.reached.epoch;
            if !(publication.offset.is_some() && is_other && at < fill.held.n_before_read) {
                self.hear_own(&published, host);
            }
        }
    }

    /// Reads again what had no answer and what is due, and has the rooms of users come if they do not yet.
    pub(super) fn look_at_own_rooms(&mut self, host: &mut Host<'_>) {
        self.watch_own_rooms();
        let fills = self.fills_own_rooms();
        let mut to_read = Vec::new();
        for (room, own) in &mut self.watches.own {
            if let Some(fill) = own.fill.as_mut().filter(|fill| fill.has_failed) {
                fill.has_failed = false;
                to_read.push(room.clone());
            } else if fills && own.is_due(host.now.monotonic) {
                own.fill = Some(Box::new(Fill { is_look: true, ..Fill::default() }));
                to_read.push(room.clone());
            }
        }
        for room in to_read {
            self.read_own(&room, host);
        }
    }
}
