//! Use cases *join* and *recover*: a connection's way into a room.
//!
//! A joiner gets the log page by page while live messages are held behind it, and becomes live
//! when the two meet by offset. It must never miss a message in between, nor get one twice.

use std::sync::Arc;

use domain::codes::{CloseCode, ErrorCode};
use domain::filter::Filter;
use domain::matches::MatchId;
use domain::membership::JoinError;
use domain::policy::NamespacePolicy;
use domain::position::Position;
use domain::principal::Action;
use domain::protocol::ServerFrame;
use domain::room::RoomId;
use smallvec::SmallVec;

use super::audiences::{AudienceKey, Wanted, mark_page};
use super::calls::{JoinTag, Outcome};
use super::held::Held;
use super::own_room::owner_of;
use super::pages::Page;
use super::rooms::{Follows, Joiner, Member, RoomKey, RoomSlice};
use super::seated::{not_joined, refused};
use super::table::{Door, Echo};
use super::{Host, Shard, Slot};
use crate::metrics::JoinOutcome;
use crate::planted::{Mistake, is_planted};
use crate::published::WireFormat;
use crate::refusal::Refusal;
use crate::traces::{self, traced};
use crate::use_cases::authorize::by_claims;
use crate::use_cases::join_room::{JoinRefused, JoinRoom, Joined, presence_key};
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
                let otherwise = || Outcome::Joined(Err(not_joined()));
                self.call_seated(slot, command, Some(tag), traced(span, future), otherwise);
            }
            Ok((None, join)) => {
                let span = traces::of_command("subscribe", &join.who, Some(room), None);
                let room = room.clone();
                let full = |error| Outcome::Refused { refusal: Refusal::from(error), room };
                let answer =
                    async move { join.execute().await.map_or_else(full, |_| Outcome::Done) };
                self.call_seated(slot, command, None, traced(span, Box::pin(answer)), refused);
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
        self.ask_claims(slot, room, &policy)?;
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
        let (who, format) = (Arc::clone(&entry.who), entry.view.format());
        let slice = self.rooms.get_mut(key).ok_or_else(Refusal::internal)?;
        let places = slice.take_places(&policy, format, filter.as_ref(), filters_max);
        let (audience, full) = match places {
            Ok(audience) => (Some(audience), None),
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
            bytes_max: limits.page_bytes_of_one(),
            full,
        };
        let Some(audience) = audience else {
            entry.rooms.leave(key);
            self.release_if_unused(key);
            return Ok((None, join));
        };
        self.metrics.members.add(1);
        let listener = owner_of(&who, room);
        if let Some(user) = listener {
            self.services.directory.listens(user);
        }
        let from_own_room = entry.own_room.joined() == Some(room);
        slice.n_followers += u32::from(presence);
        slice.joiners.push(Joiner {
            slot,
            follows: Follows::of(presence, format),
            audience,
            held: Held::default(),
            from_own_room,
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
            Err(error) => return self.refuse_join(slot, command, tag, &error.into(), host),
        };
        joined.fit(&mut self.bytes_left(slot, &[], host));
        let Some((more, audience)) = self.enter_slice(slot, tag, &mut joined) else {
            // Put out while it was on its way in, and what it did there since has to be undone.
            self.undo(Some(tag.clone()), Outcome::Done);
            return self.refuse_join(slot, command, tag, &Refusal::denied(), host);
        };
        self.count_join(&joined);
        let Joined { page, recovered, latest, .. } = joined;
        if let Some(gap) = page.gap {
            self.tell(slot, &ServerFrame::Gap { room: &tag.room, gap }, host);
        }
        let joined_latest = latest;
        let marked = mark_page(&page, audience);
        let latest = joined_latest.iter().map(|published| &published.message()[..]);
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
        if self.format_of(slot) == WireFormat::Document {
            self.tell_each(slot, page.messages.iter().chain(&joined_latest), host);
        }
        self.settle(slot, tag, page.reached, page.more, host);
    }

    /// What needs no room to be known: a stranger must not keep a place in one while it waits for
    /// its answer. A host's authorizer takes its time, and is asked on the way in.
    fn ask_claims(
        &self,
        slot: Slot,
        room: &RoomId,
        policy: &NamespacePolicy,
    ) -> Result<(), Refusal> {
        let who = &self.table.get(slot).ok_or_else(Refusal::internal)?.who;
        // So is who is in a match.
        if self.services.ports.authorizer.is_some() || MatchId::of_room(room).is_some() {
            return Ok(());
        }
        by_claims(&self.services, who, Action::Subscribe, room, policy).map_err(Refusal::from)
    }

    fn refuse_join(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        tag: &JoinTag,
        refusal: &Refusal,
        host: &mut Host<'_>,
    ) {
        let joiner = self.rooms.get_mut(tag.key).and_then(|slice| slice.joiner(slot));
        let own = joiner.filter(|joiner| joiner.from_own_room);
        let held = own.map(|joiner| std::mem::take(&mut joiner.held));
        self.remove_from_slice(slot, tag.key);
        self.release_if_unused(tag.key);
        self.metrics.joins.add(JoinOutcome::Refused, 1);
        self.refuse_in(slot, command, ("subscribe", &tag.room), refusal, host);
        if let Some(held) = held {
            self.return_to_own_room(slot, &tag.room, held, host);
        }
    }

    /// The room has answered, and the joiner is about to be told. Answers whether pages follow what
    /// it is told, and what it wants; none if it is no joiner any more.
    pub(super) fn enter_slice(
        &mut self,
        slot: Slot,
        tag: &JoinTag,
        joined: &mut Joined,
    ) -> Option<(bool, AudienceKey)> {
        let slice = self.rooms.get_mut(tag.key)?;
        slice.begin_at(joined.top);
        let joiner = slice.joiner(slot)?;
        joiner.told = true;
        joiner.held.forget_known(&joined.latest);
        if joined.latest_later {
            joiner.owed = std::mem::take(&mut joined.latest);
        }
        let more = joined.page.more || joined.latest_later || joiner.held.overflowed;
        Some((more, joiner.audience))
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
        let (mut is_owed, mut overflowed) = (false, false);
        if let Some(joiner) = joiner {
            is_owed = !joiner.owed.is_empty();
            overflowed = joiner.held.overflowed;
            if joiner.held.is_lost {
                return self.end(slot, CloseCode::InsufficientState, None, host);
            }
            if overflowed {
                // It was told that a page follows, and what was not held is read there.
                joiner.held = std::mem::take(&mut joiner.held).forget_positioned();
            }
        }
        if more || is_owed || overflowed {
            let (own_hole, only_owed) = (overflowed && !more, !more && !overflowed);
            let page = Page { tag: tag.clone(), since: reached, own_hole, only_owed };
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
        let (mut again, mut lost) = (Vec::new(), Vec::new());
        let mut is_behind = false;
        while let Some(joiner) = slice.joiners.get_mut(at) {
            let Some(reached) = joiner.reached else {
                at += 1;
                continue;
            };
            let other_epoch = reached.epoch != seen.epoch;
            if joiner.held.is_lost {
                lost.push(joiner.slot);
            }
            // Where the log was read further than the live stream has come, that much is skipped.
            let is_ahead = !other_epoch && reached.offset > seen.offset;
            if is_ahead || joiner.held.is_lost || (other_epoch && slice.fill.is_some()) {
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
                let is_marked = matches!(wanted, Wanted::Own(_));
                if is_marked && is_planted(Mistake::HeldForFilterLost) {
                    continue;
                }
                if !passed || is_planted(Mistake::HeldNotTrimmed) {
                    self.give_held(joiner.slot, (key, &slice), (&published, wanted), host);
                }
            }
            is_behind |= self.answer_passed(joiner.slot, key, &slice, host);
            let place = slice.members.len() as u32;
            let Joiner { slot, follows, audience, .. } = joiner;
            slice.members.push(Member::new(slot, slice.accepted, follows, audience));
            if let Some(entry) = self.table.get_mut(slot) {
                entry.rooms.place(key, place);
            }
        }
        let (room, token) = (slice.id.clone(), slice.token);
        let listed = slice.policy.presence_listed;
        self.rooms.put_back(key, slice);
        for slot in lost {
            self.end(slot, CloseCode::InsufficientState, None, host);
        }
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
        for echo in answered.into_iter().filter(|echo| !echo.acknowledged) {
            self.acknowledge(slot, echo.command, &slice.id, &echo.receipt(), host);
        }
        let Some(entry) = self.table.get(slot) else { return false };
        entry.echoes.iter().any(|echo| echo.room == key && slice.is_foreign(echo.position))
    }
}
