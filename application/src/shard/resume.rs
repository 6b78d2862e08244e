//! Use case *come back*: `connect` with the rooms that a client was in, answered by one `hello`.
//!
//! Each room is joined as by a `subscribe`; what one frame does not hold follows in pages. Nothing
//! of a room may be sent before the `hello` that says that the client is in it.

use std::borrow::Cow;

use domain::protocol::{Resume, ResumeOutcome, Resumed};
use domain::room::RoomId;

use super::calls::{CallTag, ColdCall, JoinTag, Outcome, Resuming};
use super::filters::{FilterKey, mark_page};
use super::join::Wish;
use super::{Host, Shard, Slot};
use crate::metrics::JoinOutcome;
use crate::refusal::Refusal;
use crate::use_cases::join_room::{JoinRefused, Joined};
use crate::use_cases::resume_rooms::ResumeRooms;

/// A room that a client is in again.
struct Back {
    tag: JoinTag,
    joined: Joined,
    /// Whether pages follow.
    more: bool,
    /// Which messages it wants.
    filter: FilterKey,
}

impl Shard {
    /// Greets a connection that is let in, with the rooms that it was in before.
    pub(super) fn bring_back(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        resume: Vec<Resume>,
        host: &mut Host<'_>,
    ) {
        if resume.is_empty() {
            return self.hello(slot, command, &[], host);
        }
        let mut joins = Vec::with_capacity(resume.len());
        let mut rooms = Vec::with_capacity(resume.len());
        for Resume { room, since, presence, filter } in resume {
            let wish = Wish { room: &room, since: Some(since), presence, filter };
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
            self.settle(slot, &back.tag, page.reached, page.more, host);
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
                let Some((more, filter)) = self.enter_slice(slot, &tag, &mut joined) else {
                    // Put out meanwhile, and what it did there since has to be undone.
                    self.undo(Some(tag), Outcome::Done);
                    self.metrics.joins.add(JoinOutcome::Refused, 1);
                    return Err(Refusal::denied());
                };
                self.count_join(&joined);
                Ok(Back { tag, joined, more, filter })
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
    back.as_ref().map_or_else(|_| Vec::new(), |back| mark_page(&back.joined.page, back.filter))
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
