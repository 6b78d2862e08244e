//! Use case *come back*: `connect` with the rooms that a client was in, answered by one `hello`.
//!
//! Each room is joined as by a `subscribe`; what one frame does not hold follows in pages. Nothing
//! of a room may be sent before the `hello` that says that the client is in it.

use std::borrow::Cow;

use domain::codes::{CloseCode, ErrorCode};
use domain::filter::Filter;
use domain::position::Position;
use domain::protocol::{Resume, ResumeOutcome, Resumed};
use domain::room::RoomId;

use super::audiences::{AudienceKey, mark_page};
use super::calls::{CallTag, ColdCall, JoinTag, Outcome, Resuming};
use super::join::Wish;
use super::{Host, Shard, Slot};
use crate::metrics::JoinOutcome;
use crate::published::WireFormat;
use crate::refusal::Refusal;
use crate::use_cases::join_room::{JoinRefused, Joined};
use crate::use_cases::resume_rooms::ResumeRooms;

/// A room that a client is in again.
struct Back {
    tag: JoinTag,
    joined: Joined,
    /// Whether pages follow.
    more: bool,
    /// In which audience it is.
    audience: AudienceKey,
}

/// A room that a connection is to be in when it is greeted.
pub(super) struct Entrance {
    pub(super) room: RoomId,
    /// Up to where it has everything; none begins with what comes next.
    pub(super) since: Option<Position>,
    pub(super) presence: bool,
    pub(super) filter: Option<Filter>,
}

impl From<Resume> for Entrance {
    fn from(Resume { room, since, presence, filter }: Resume) -> Self {
        Self { room, since: Some(since), presence, filter }
    }
}

impl Shard {
    /// Greets a connection that is let in, with rooms that it is in.
    pub(super) fn bring_in(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        entrances: Vec<Entrance>,
        host: &mut Host<'_>,
    ) {
        if entrances.is_empty() {
            return self.hello(slot, command, &[], host);
        }
        let mut joins = Vec::with_capacity(entrances.len());
        let mut rooms = Vec::with_capacity(entrances.len());
        for Entrance { room, since, presence, filter } in entrances {
            let wish = Wish { room: &room, since, presence, filter };
            rooms.push(match self.begin_join(slot, wish) {
                Ok((tag, join)) => {
                    joins.push(join);
                    tag.map_or(Resuming::Full(room), Resuming::Joining)
                }
                Err(refusal) => {
                    self.metrics.joins.add(JoinOutcome::Refused, 1);
                    Resuming::Refused(room, refusal)
                }
            });
        }
        let limits = &self.services.rules.limits;
        // A frame that the connection's queue can't hold would end it, each time it comes back.
        let bytes_max = limits.resume_bytes_max.min(limits.outbound_queue_bytes_max / 2);
        let call = ResumeRooms { joins, bytes_max };
        let future = Box::pin(async move { Outcome::Resumed(call.execute().await) });
        if let Some(entry) = self.table.get_mut(slot) {
            entry.calls += 1;
        }
        self.calls.push_back(ColdCall { tag: CallTag::Resume { slot, command, rooms }, future });
    }

    pub(super) fn finish_resume(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        rooms: Vec<Resuming>,
        results: Vec<Result<Joined, JoinRefused>>,
        host: &mut Host<'_>,
    ) {
        let mut results = results.into_iter();
        let rooms: Vec<(RoomId, Result<Back, Refusal>)> = rooms
            .into_iter()
            .map(|room| match room {
                Resuming::Refused(room, refusal) => (room, Err(refusal)),
                Resuming::Full(room) => {
                    self.metrics.joins.add(JoinOutcome::Refused, 1);
                    let refused = results.next().and_then(Result::err).map(Refusal::from);
                    (room, Err(refused.unwrap_or_else(Refusal::internal)))
                }
                Resuming::Joining(tag) => {
                    (tag.room.clone(), self.enter_again(slot, tag, results.next()))
                }
            })
            .collect();
        if self.is_turned_away(slot, &rooms, host) {
            return;
        }
        let marked: Vec<_> = rooms.iter().map(|(_, back)| marked(back)).collect();
        let outcomes = rooms.iter().zip(&marked);
        let resumed: Vec<Resumed<'_>> = outcomes
            .map(|((room, back), marked)| Resumed { room, outcome: outcome(back, marked) })
            .collect();
        self.hello(slot, command, &resumed, host);
        for (room, back) in &rooms {
            if let Err(refusal) = back {
                self.note_denied(slot, "resume", room.as_str(), refusal, host.now);
            }
        }
        for back in rooms.iter().filter_map(|(_, back)| back.as_ref().ok()) {
            let page = &back.joined.page;
            if self.format_of(slot) == WireFormat::Document {
                self.tell_each(slot, &back.joined.latest, host);
            }
            self.settle(slot, &back.tag, page.reached, page.more, host);
        }
        self.list_users(slot, host);
        self.open_inbox(slot);
    }

    /// Ends a connection that may not be in the room that its endpoint is for.
    fn is_turned_away(
        &mut self,
        slot: Slot,
        rooms: &[(RoomId, Result<Back, Refusal>)],
        host: &mut Host<'_>,
    ) -> bool {
        let is_document = self.format_of(slot) == WireFormat::Document;
        let Some((room, Err(refusal))) = rooms.first().filter(|_| is_document) else {
            return false;
        };
        self.note_denied(slot, "subscribe", room.as_str(), refusal, host.now);
        let is_nobody = self.table.get(slot).is_none_or(|entry| entry.who.principal.user.is_none());
        let code = match refusal.code {
            ErrorCode::PermissionDenied if is_nobody => CloseCode::Unauthenticated,
            ErrorCode::PermissionDenied | ErrorCode::UnknownRoom => CloseCode::Forbidden,
            _ => CloseCode::TryAgainLater,
        };
        self.end(slot, code, refusal.retry_after, host);
        true
    }

    /// Tells a connection whose endpoint follows who is there, who is there.
    fn list_users(&mut self, slot: Slot, host: &mut Host<'_>) {
        let Some(entry) = self.table.get(slot) else { return };
        if entry.view.follows_presence()
            && let Some(room) = entry.view.first_rooms(&entry.who, true, 1).pop()
        {
            self.presence(slot, None, room, host);
        }
    }

    fn enter_again(
        &mut self,
        slot: Slot,
        tag: JoinTag,
        result: Option<Result<Joined, JoinRefused>>,
    ) -> Result<Back, Refusal> {
        match result {
            Some(Ok(mut joined)) => {
                let Some((more, audience)) = self.enter_slice(slot, &tag, &mut joined) else {
                    // Put out meanwhile, and what it did there since has to be undone.
                    self.undo(Some(tag), Outcome::Done);
                    self.metrics.joins.add(JoinOutcome::Refused, 1);
                    return Err(Refusal::denied());
                };
                self.count_join(&joined);
                Ok(Back { tag, joined, more, audience })
            }
            Some(Err(error)) => {
                self.remove_from_slice(slot, tag.key);
                self.release_if_unused(tag.key);
                self.metrics.joins.add(JoinOutcome::Refused, 1);
                Err(error.into())
            }
            None => Err(Refusal::internal()),
        }
    }

    /// Undoes the joins of a connection that is gone.
    pub(super) fn undo_resume(&mut self, rooms: Vec<Resuming>) {
        for room in rooms {
            if let Resuming::Joining(tag) = room {
                self.undo(Some(tag), Outcome::Done);
            }
        }
    }
}

/// The messages that come with a room.
fn marked(back: &Result<Back, Refusal>) -> Vec<Cow<'_, [u8]>> {
    back.as_ref().map_or_else(|_| Vec::new(), |back| mark_page(&back.joined.page, back.audience))
}

fn outcome<'b>(back: &'b Result<Back, Refusal>, marked: &'b [Cow<'_, [u8]>]) -> ResumeOutcome<'b> {
    match back {
        Ok(Back { joined, more, .. }) => {
            let latest = joined.latest.iter().map(|published| &published.message()[..]);
            let messages = marked.iter().map(|message| &message[..]).chain(latest);
            ResumeOutcome::Back {
                position: joined.page.reached,
                recovered: joined.recovered,
                gap: joined.page.gap,
                messages: messages.collect(),
                more: *more,
            }
        }
        Err(refusal) => {
            let millis = |wait: std::time::Duration| u64::try_from(wait.as_millis());
            ResumeOutcome::Refused {
                code: refusal.code,
                message: &refusal.message,
                retry_after_ms: refusal.retry_after.map(|wait| millis(wait).unwrap_or(u64::MAX)),
            }
        }
    }
}
