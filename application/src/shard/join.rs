//! Use cases *join*, *recover* and *leave*: a connection's way into a room and out of it.
//!
//! A joiner gets the log page by page while live messages are held behind it, and becomes live
//! when the two meet by offset. It must never miss a message in between, nor get one twice.

use std::sync::Arc;

use domain::codes::ErrorCode;
use domain::filter::Filter;
use domain::membership::{JoinError, MemberState};
use domain::position::Position;
use domain::protocol::ServerFrame;
use domain::room::RoomId;
use smallvec::SmallVec;

use super::calls::{JoinTag, Outcome};
use super::filters::{FilterKey, Wanted, mark_page};
use super::pages::Page;
use super::rooms::{Held, Joiner, Member, RoomKey, RoomSlice, VACATED};
use super::table::{Door, Echo};
use super::{Host, Shard, Slot};
use crate::metrics::JoinOutcome;
use crate::planted::{Mistake, is_planted};
use crate::ports::Receipt;
use crate::refusal::Refusal;
use crate::traces::{self, traced};
use crate::use_cases::join_room::{JoinRefused, JoinRoom, Joined, presence_key};
use crate::use_cases::leave_room::LeaveRoom;
use crate::use_cases::recover_room::RecoveredPage;

/// What a client says of a room that it wants to join.
pub(super) struct Wish<'r> {
    pub(super) room: &'r RoomId,
    pub(super) since: Option<Position>,
    pub(super) presence: bool,
    pub(super) filter: Option<Filter>,
}

impl Shard {
    pub(super) fn subscribe(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        wish: Wish<'_>,
        host: &mut Host<'_>,
    ) {
        let room = wish.room;
        match self.begin_join(slot, wish) {
            Err(refusal) => {
                self.metrics.joins.add(JoinOutcome::Refused, 1);
                self.refuse_in(slot, command, ("subscribe", room), &refusal, host);
            }
            Ok((Some(tag), join)) => {
                let span = traces::of_command("subscribe", &join.who, Some(room), None);
                let future = Box::pin(async move { Outcome::Joined(join.execute().await) });
                self.call(slot, command, Some(tag), traced(span, future));
            }
            Ok((None, join)) => {
                let span = traces::of_command("subscribe", &join.who, Some(room), None);
                let room = room.clone();
                let refused = |error| Outcome::Refused { refusal: Refusal::from(error), room };
                let answer =
                    async move { join.execute().await.map_or_else(refused, |_| Outcome::Done) };
                self.call(slot, command, None, traced(span, Box::pin(answer)));
            }
        }
    }

    /// Makes a connection a joiner of a room, and answers what is to be done elsewhere. In a full
    /// room it is none, and the join only asks whether it may know that.
    pub(super) fn begin_join(
        &mut self,
        slot: Slot,
        wish: Wish<'_>,
    ) -> Result<(Option<JoinTag>, JoinRoom), Refusal> {
        let Wish { room, since, presence, filter } = wish;
        let policy = self.find_policy(room)?;
        let limits = &self.services.rules.limits;
        let (rooms_max, filters_max) =
            (limits.rooms_per_connection_max, limits.filters_per_room_max);
        let key = self.rooms.find_or_create(room, &policy, &self.services.directory);
        self.metrics.rooms.set(self.rooms.len() as u64);
        let entry = self.table.get_mut(slot).ok_or_else(Refusal::internal)?;
        if let Err(error) = entry.rooms.begin(key, rooms_max) {
            let code = match error {
                JoinError::Already => ErrorCode::AlreadySubscribed,
                JoinError::TooMany => ErrorCode::TooManyRooms,
            };
            self.release_if_unused(key);
            return Err(Refusal::new(code, error.to_string()).field("room"));
        }
        entry.door = Door::Shut;
        let who = Arc::clone(&entry.who);
        let slice = self.rooms.get_mut(key).ok_or_else(Refusal::internal)?;
        let places = slice.take_places(&policy, filter.as_ref(), filters_max);
        let (filter_key, full) = match places {
            Ok(filter_key) => (Some(filter_key), None),
            Err(full) => (None, Some(full)),
        };
        let join = JoinRoom {
            services: Arc::clone(&self.services),
            who: Arc::clone(&who),
            room: room.clone(),
            policy: Arc::clone(&policy),
            since,
            presence,
            filter,
            mailbox: Arc::clone(&self.mailbox),
            token: slice.token,
            bytes_max: limits.page_bytes_max,
            full,
        };
        let Some(filter_key) = filter_key else {
            entry.rooms.leave(key);
            self.release_if_unused(key);
            return Ok((None, join));
        };
        self.metrics.members.add(1);
        slice.n_followers += u32::from(presence);
        slice.joiners.push(Joiner {
            slot,
            presence,
            filter: filter_key,
            held: Held::default(),
            told: false,
            owed: Vec::new(),
            reached: None,
        });
        let tag = JoinTag {
            key,
            room: room.clone(),
            token: slice.token,
            listed: policy.presence_listed.then(|| (presence_key(&who), who.connection)),
        };
        // From here on its messages come by position.
        self.leave_own_room(slot, room);
        Ok((Some(tag), join))
    }

    pub(super) fn finish_join(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        tag: &JoinTag,
        result: Result<Joined, JoinRefused>,
        host: &mut Host<'_>,
    ) {
        let mut joined = match result {
            Ok(joined) => joined,
            Err(error) => {
                self.remove_from_slice(slot, tag.key);
                self.release_if_unused(tag.key);
                self.metrics.joins.add(JoinOutcome::Refused, 1);
                return self.refuse_in(
                    slot,
                    command,
                    ("subscribe", &tag.room),
                    &error.into(),
                    host,
                );
            }
        };
        joined.fit(&mut self.bytes_left(slot, &[], host));
        self.count_join(&joined);
        let Some((more, filter)) = self.enter_slice(slot, tag, &mut joined) else { return };
        let Joined { page, recovered, latest, .. } = joined;
        if let Some(gap) = page.gap {
            self.tell(slot, &ServerFrame::Gap { room: &tag.room, gap }, host);
        }
        let marked = mark_page(&page, filter);
        let latest = latest.iter().map(|published| &published.message()[..]);
        let messages: Vec<&[u8]> =
            marked.iter().map(|message| &message[..]).chain(latest).collect();
        let subscribed = ServerFrame::Subscribed {
            id: command,
            room: &tag.room,
            position: page.reached,
            recovered,
            messages: &messages,
            more,
        };
        self.tell(slot, &subscribed, host);
        self.settle(slot, tag, page.reached, page.more, host);
    }

    /// The room has answered, and the joiner is about to be told. Answers whether pages follow what
    /// it is told, and what it wants; none if it is no joiner any more.
    pub(super) fn enter_slice(
        &mut self,
        slot: Slot,
        tag: &JoinTag,
        joined: &mut Joined,
    ) -> Option<(bool, FilterKey)> {
        let slice = self.rooms.get_mut(tag.key)?;
        slice.begin_at(joined.top);
        let joiner = slice.joiner(slot)?;
        joiner.told = true;
        if joined.latest_later {
            joiner.owed = std::mem::take(&mut joined.latest);
        }
        let more = joined.page.more || joined.latest_later || joiner.held.overflowed;
        Some((more, joiner.filter))
    }

    pub(super) fn count_join(&self, joined: &Joined) {
        let outcome = match joined.page.gap {
            Some(_) => JoinOutcome::Gap,
            None if joined.recovered => JoinOutcome::Recovered,
            None => JoinOutcome::Fresh,
        };
        self.metrics.joins.add(outcome, 1);
        self.count_page(&joined.page);
    }

    pub(super) fn count_page(&self, page: &RecoveredPage) {
        self.metrics.recovered_messages.add(page.messages.len() as u64);
        if let Some(gap) = page.gap {
            self.metrics.gaps.add(gap.reason, 1);
        }
    }

    /// A joiner stands at `reached`: read on, or meet the live stream.
    pub(super) fn settle(
        &mut self,
        slot: Slot,
        tag: &JoinTag,
        reached: Position,
        more: bool,
        host: &mut Host<'_>,
    ) {
        let joiner = self.rooms.get_mut(tag.key).and_then(|slice| slice.joiner(slot));
        let is_owed = joiner.is_some_and(|joiner| !joiner.owed.is_empty());
        if more || is_owed {
            let (tag, only_owed) = (tag.clone(), !more);
            let page = Page { tag, since: reached, own_hole: false, only_owed };
            return self.read_on(slot, page, host);
        }
        if let Some(slice) = self.rooms.get_mut(tag.key) {
            let seen = slice.seen;
            if let Some(joiner) = slice.joiner(slot) {
                joiner.reach(reached, seen);
            }
        }
        self.promote(tag.key, host);
    }

    /// Makes live every joiner of a room that stands where the slice stands.
    pub(super) fn promote(&mut self, key: RoomKey, host: &mut Host<'_>) {
        let Some(mut slice) = self.rooms.take(key) else { return };
        let Some(seen) = slice.seen else { return self.rooms.put_back(key, slice) };
        let mut at = 0;
        let mut again = Vec::new();
        let mut is_behind = false;
        while let Some(joiner) = slice.joiners.get_mut(at) {
            let Some(reached) = joiner.reached else {
                at += 1;
                continue;
            };
            if reached.epoch == seen.epoch && reached.offset > seen.offset {
                // The log was read further than the live stream has come; that much is skipped.
                at += 1;
                continue;
            }
            let other_epoch = reached.epoch != seen.epoch;
            if other_epoch && slice.fill.is_some() {
                at += 1;
                continue;
            }
            let held = std::mem::take(&mut joiner.held);
            let leads = held.leads(reached, seen) || is_planted(Mistake::JoinedOverHole);
            if other_epoch || !leads {
                // One of the two has not heard of a lost log yet. Both ask.
                is_behind |= other_epoch;
                joiner.held = held.forget_positioned();
                joiner.reached = None;
                again.push((joiner.slot, reached));
                at += 1;
                continue;
            }
            let joiner = slice.joiners.remove(at);
            for (published, wanted) in held.publications {
                let passed = published.publication.offset.is_some_and(|o| o <= reached.offset);
                let is_marked = matches!(wanted, Wanted::Marked(_));
                if is_marked && is_planted(Mistake::HeldForFilterLost) {
                    continue;
                }
                if !passed || is_planted(Mistake::HeldNotTrimmed) {
                    let level = slice.policy.ack_level();
                    let place = (key, &slice.id, level);
                    self.give_held(joiner.slot, place, (&published, wanted), host);
                }
            }
            is_behind |= self.answer_passed(joiner.slot, key, &slice, host);
            let place = slice.members.len() as u32;
            let Joiner { slot, presence, filter, .. } = joiner;
            slice.members.push(Member::new(slot, slice.accepted, presence, filter));
            if let Some(entry) = self.table.get_mut(slot) {
                entry.rooms.place(key, place);
            }
        }
        let (room, token) = (slice.id.clone(), slice.token);
        let listed = slice.policy.presence_listed;
        self.rooms.put_back(key, slice);
        for (slot, reached) in again {
            let Some(who) = self.who(slot) else { continue };
            let listed = listed.then(|| (presence_key(&who), who.connection));
            let tag = JoinTag { key, room: room.clone(), token, listed };
            let page = Page { tag, since: reached, own_hole: true, only_owed: false };
            self.read_on(slot, page, host);
        }
        if is_behind && self.rooms.get(key).is_some_and(|slice| slice.fill.is_none()) {
            self.start_fill(key);
        }
    }

    /// Gives a new member the acknowledgements whose messages it has got in a page, or was told
    /// that they are lost. Answers whether the slice has to ask the log about others.
    fn answer_passed(
        &mut self,
        slot: Slot,
        key: RoomKey,
        slice: &RoomSlice,
        host: &mut Host<'_>,
    ) -> bool {
        let Some(entry) = self.table.get_mut(slot) else { return false };
        let passed = |echo: &Echo| echo.room == key && slice.has_passed(echo.position);
        let answered: SmallVec<[Echo; 2]> = entry.echoes.iter().copied().filter(passed).collect();
        entry.echoes.retain(|echo| !passed(echo));
        let level = slice.policy.ack_level();
        for echo in answered.into_iter().filter(|echo| !echo.acknowledged) {
            let Position { epoch, offset } = echo.position;
            let receipt = Receipt { epoch, offset: Some(offset), duplicate: false, level };
            self.acknowledge(slot, echo.command, &slice.id, &receipt, host);
        }
        let Some(entry) = self.table.get(slot) else { return false };
        entry.echoes.iter().any(|echo| echo.room == key && slice.is_foreign(echo.position))
    }

    pub(super) fn unsubscribe(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        room: &RoomId,
        host: &mut Host<'_>,
    ) {
        let state = self.rooms.find(room).and_then(|key| {
            let state = self.table.get(slot)?.rooms.state(key)?;
            Some((key, state))
        });
        let Some((key, _)) = state else {
            if self.leave_own_room(slot, room) {
                return self.tell_unsubscribed(slot, command, room, host);
            }
            return self.refuse_non_member(slot, command, host);
        };
        let leave = self.leave_room(slot, key, host);
        self.tell_unsubscribed(slot, command, room, host);
        if let Some(leave) = leave {
            // The next join of this connection waits until presence has seen the leave.
            let future = Box::pin(async move {
                leave.execute().await;
                Outcome::Done
            });
            self.call(slot, None, None, future);
        }
    }

    /// Ends a membership without waiting for anything.
    pub(super) fn leave_now(&mut self, slot: Slot, key: RoomKey, host: &mut Host<'_>) {
        if let Some(leave) = self.leave_room(slot, key, host) {
            self.call_detached(Box::pin(async move {
                leave.execute().await;
                Outcome::Done
            }));
        }
    }

    /// Takes a connection out of a slice and answers what is left to do outside.
    fn leave_room(&mut self, slot: Slot, key: RoomKey, host: &mut Host<'_>) -> Option<LeaveRoom> {
        self.answer_echoes(slot, key, host);
        let who = self.who(slot)?;
        self.remove_from_slice(slot, key);
        let slice = self.rooms.get(key)?;
        let listed = slice.policy.presence_listed.then(|| (presence_key(&who), who.connection));
        let room = slice.id.clone();
        let unsubscribe = self.release_slice(key).map(|token| (Arc::clone(&self.mailbox), token));
        if listed.is_none() && unsubscribe.is_none() {
            return None;
        }
        Some(LeaveRoom { services: Arc::clone(&self.services), room, listed, unsubscribe })
    }

    /// Gives the acknowledgements that waited for a place in an order that the connection will
    /// not see any more.
    fn answer_echoes(&mut self, slot: Slot, key: RoomKey, host: &mut Host<'_>) {
        let Some(entry) = self.table.get_mut(slot) else { return };
        if entry.echoes.is_empty() {
            return;
        }
        let Some(slice) = self.rooms.get(key) else { return };
        let (room, level) = (slice.id.clone(), slice.policy.ack_level());
        let mut waiting = Vec::new();
        entry.echoes.retain(|echo| {
            if echo.room == key && !echo.acknowledged {
                waiting.push(*echo);
            }
            echo.room != key
        });
        for echo in waiting {
            let Position { epoch, offset } = echo.position;
            let receipt = Receipt { epoch, offset: Some(offset), duplicate: false, level };
            self.acknowledge(slot, echo.command, &room, &receipt, host);
        }
    }

    /// Takes a connection out of a slice's lists and out of its own.
    pub(super) fn remove_from_slice(&mut self, slot: Slot, key: RoomKey) {
        self.drop_pages(slot, key);
        let Some(entry) = self.table.get_mut(slot) else { return };
        let state = entry.rooms.leave(key);
        let Some(slice) = self.rooms.get_mut(key) else { return };
        if state.is_some() {
            slice.seats.give_back();
            self.metrics.members.sub(1);
        }
        match state {
            None => {}
            Some(MemberState::Joining) => {
                let joiner = slice.joiner(slot).map(|joiner| (joiner.presence, joiner.filter));
                if let Some((followed, filter)) = joiner {
                    slice.n_followers -= u32::from(followed);
                    slice.filters.leave(filter);
                }
                slice.joiners.retain(|joiner| joiner.slot != slot);
            }
            Some(MemberState::Live(place)) => {
                let place = place as usize;
                let Member { presence, filter, .. } = slice.members[place];
                slice.n_followers -= u32::from(presence);
                slice.filters.leave(filter);
                if let Some(walk) = &mut slice.walk {
                    walk.vacated = true;
                    slice.members[place].slot = VACATED;
                    return;
                }
                slice.members.swap_remove(place);
                if let Some(moved) = slice.members.get(place).map(|member| member.slot)
                    && let Some(entry) = self.table.get_mut(moved)
                {
                    entry.rooms.place(key, place as u32);
                }
            }
        }
    }

    /// Undoes a join whose connection is gone.
    pub(super) fn undo(&mut self, tag: Option<JoinTag>, outcome: Outcome) {
        let Some(tag) = tag else { return };
        drop(outcome);
        if is_planted(Mistake::GhostOfJoin) {
            return;
        }
        // A slice that is gone has ended its subscription, but this join may have renewed it.
        let gone = self.rooms.get(tag.key).is_none();
        let leave = LeaveRoom {
            services: Arc::clone(&self.services),
            room: tag.room,
            listed: tag.listed,
            unsubscribe: gone.then(|| (Arc::clone(&self.mailbox), tag.token)),
        };
        self.call_detached(Box::pin(async move {
            leave.execute().await;
            Outcome::Done
        }));
    }
}
