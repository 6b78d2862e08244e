//! Reading a room's log: what Redis has of it, and before that what the archive of a durable room has.
//!
//! No place may be passed over in silence: an entry that nobody can read is a tombstone, and a page begins behind
//! places that hold nothing, as its bounds say.

use std::sync::Arc;

use application::ports::{LogPage, ReadLog};
use application::published::Published;
use bytes::Bytes;
use domain::id::Epoch;
use domain::message::{Publication, TombstoneReason};
use domain::policy::NamespacePolicy;
use domain::position::{Offset, Position};
use domain::recovery::{EarlierLives, LogBounds};
use domain::room::RoomId;
use domain::time::Wall;
use redis::{Cmd, Value};

use crate::broker::{RedisBroker, parse, parse_epoch, parse_offset, strange};
use crate::durable::{Durable, TRIES_MAX, Unfit, away};
use crate::entry::{decode, lost};
use crate::head::packed;
use crate::link::{CallError, Link};
use crate::sparing::Sparing;
use crate::status::count;

/// The most messages of one page, whatever the reader asks for: Redis does nothing else meanwhile.
const PAGE_MESSAGES_MAX: u32 = 1_024;

/// Each read may meet such a thing.
static UNREADABLE: Sparing = Sparing::new();

/// What Redis has of what was asked for.
struct Reading {
    page: LogPage,
    latest: Vec<Arc<Published>>,
    /// The oldest offset that is in Redis.
    first: Offset,
}

/// What the archive has before Redis's log.
enum Archived {
    Page(LogPage),
    /// Nothing at all up to there.
    Nothing,
}

enum Answer {
    Read(Reading),
    /// The next life of a durable room has to begin first.
    Begin(Unfit),
}

impl RedisBroker {
    /// Reads a piece of a room's log, and with `latest` the newest message of each key.
    pub(crate) async fn call_read(
        &self,
        room: &RoomId,
        policy: &NamespacePolicy,
        read: &ReadLog,
        latest: bool,
    ) -> Result<(LogPage, Vec<Arc<Published>>), CallError> {
        for _ in 0..TRIES_MAX {
            let answer = self.read_here(room, policy, read, latest).await?;
            let unfit = match (answer, self.durable_of(policy)) {
                (Answer::Begin(unfit), Some(_)) => unfit,
                (Answer::Begin(_), None) => return Err(strange("an answer")),
                (Answer::Read(read), None) => return Ok((read.page, read.latest)),
                (Answer::Read(here), Some(durable)) => {
                    let is_before = here.page.bounds.first < here.first
                        && read.after < here.first.previous()
                        && read.messages_max > 0;
                    if !is_before {
                        return Ok((here.page, here.latest));
                    }
                    match self.read_archived(durable, room, read, &here).await? {
                        Some(Archived::Page(page)) => return Ok((page, here.latest)),
                        Some(Archived::Nothing) => {
                            match self.read_behind_nothing(room, policy, read, &here).await? {
                                Some(page) => return Ok((page, here.latest)),
                                None => continue,
                            }
                        }
                        None => Unfit::known(here.page.bounds.epoch),
                    }
                }
            };
            self.begin_life(room, policy, read.now, &unfit).await?;
        }
        Err(CallError::Away)
    }

    async fn read_here(
        &self,
        room: &RoomId,
        policy: &NamespacePolicy,
        read: &ReadLog,
        latest: bool,
    ) -> Result<Answer, CallError> {
        let (link, fresh) = self.link_and_epoch()?;
        let fill = |command: &mut Cmd, link: &Link| {
            self.begin(command, (link, fresh), room, policy, read.now);
            command
                .arg(packed(&[
                    read.after.get() as f64,
                    f64::from(read.messages_max.min(PAGE_MESSAGES_MAX)),
                    read.bytes_max as f64,
                ]))
                .arg(u8::from(latest));
        };
        let answer = self.commands.run_script(&link, &self.commands.scripts().read, fill).await?;
        if let Value::SimpleString(words) = &answer {
            return Unfit::parse(words).map(Answer::Begin).ok_or_else(|| strange("an answer"));
        }
        let answer: (String, u64, u64, String, u8, Vec<Value>, Vec<Value>, u64) = parse(answer)?;
        let (epoch, first, last, earlier, more, entries, newest, first_here) = answer;
        let epoch = parse_epoch(&epoch)?;
        let bounds = LogBounds {
            epoch,
            first: parse_offset(first)?,
            last: parse_offset(last)?,
            earlier: EarlierLives::new(earlier.split(' ').filter_map(parse_life)),
        };
        let first = parse_offset(first_here)?;
        let mut offset = read.after.max(bounds.first.previous());
        let mut messages = Vec::with_capacity(entries.len());
        for entry in entries {
            offset = offset.next().ok_or_else(|| strange("an offset"))?;
            let publication = self.read_place(entry, room, Position { epoch, offset }, read.now);
            messages.push(Arc::new(Published::new(publication)));
        }
        let latest = newest.into_iter().filter_map(|entry| {
            // One that can't be read is not worth a subscription.
            let mut publication = readable(entry).or_else(|| self.unreadable(room))?;
            publication.epoch = epoch;
            Some(Arc::new(Published::new(publication)))
        });
        let latest = latest.collect();
        let page = LogPage { bounds, messages, more: more == 1 };
        Ok(Answer::Read(Reading { page, latest, first }))
    }

    /// Reads Redis's log from its beginning, as the next that there is. None where it begins elsewhere by now.
    async fn read_behind_nothing(
        &self,
        room: &RoomId,
        policy: &NamespacePolicy,
        read: &ReadLog,
        here: &Reading,
    ) -> Result<Option<LogPage>, CallError> {
        let read = ReadLog { after: here.first.previous(), ..*read };
        let Answer::Read(mut found) = self.read_here(room, policy, &read, false).await? else {
            return Ok(None);
        };
        let bounds = &mut found.page.bounds;
        if found.first != here.first || bounds.epoch != here.page.bounds.epoch {
            return Ok(None);
        }
        bounds.first = bounds.first.max(here.first);
        Ok(Some(found.page))
    }

    /// Reads what lies before Redis's log. A page ends before places that hold nothing, and the next one begins behind
    /// them: whoever stands before them is told a gap. None where another life goes on by now.
    async fn read_archived(
        &self,
        durable: &Durable,
        room: &RoomId,
        read: &ReadLog,
        here: &Reading,
    ) -> Result<Option<Archived>, CallError> {
        let mut bounds = here.page.bounds;
        let after = read.after.max(bounds.first.previous());
        let limit = read.messages_max.min(PAGE_MESSAGES_MAX);
        let found = durable.lives.read_lives(room, after, limit, read.bytes_max).await;
        let found = found.map_err(|error| away(&error))?;
        let Some(found) = found.filter(|found| found.lives.epoch == bounds.epoch) else {
            return Ok(None);
        };
        bounds.first = bounds.first.max(found.first.min(here.first));
        let to = here.first.previous();
        let mut at = after.max(bounds.first.previous());
        let mut stored = found.messages.into_iter().filter_map(|one| Some((one.offset?, one)));
        let mut next = stored.find(|(offset, _)| *offset > at).filter(|(offset, _)| *offset <= to);
        let Some(first) = next.as_ref().map(|(offset, _)| *offset) else {
            return Ok(Some(Archived::Nothing));
        };
        if at.next() != Some(first) {
            bounds.first = first;
            at = first.previous();
        }
        let mut messages = Vec::new();
        while let Some((offset, publication)) = next {
            if at.next() != Some(offset) || offset > to || messages.len() == limit as usize {
                break;
            }
            let publication = present(publication, bounds.epoch, read.now);
            messages.push(Arc::new(Published::new(publication)));
            at = offset;
            next = stored.next();
        }
        Ok(Some(Archived::Page(LogPage { bounds, messages, more: at < bounds.last })))
    }

    /// What stands at a place of the log. What no node has written there is gone, and its place remains: nobody
    /// can wait for it.
    fn read_place(&self, entry: Value, room: &RoomId, at: Position, now: Wall) -> Publication {
        let is_its = |publication: &Publication| {
            publication.room == *room && publication.offset == Some(at.offset)
        };
        let found = readable(entry).filter(is_its).or_else(|| self.unreadable(room));
        found.map_or_else(|| lost(room, at, now), |publication| present(publication, at.epoch, now))
    }

    /// Counts what can't be read.
    fn unreadable(&self, room: &RoomId) -> Option<Publication> {
        count(&self.status.unreadable, 1);
        if let Some(left_out) = UNREADABLE.turn() {
            tracing::warn!(%room, left_out, "redis holds what no node has written; its place is passed over");
        }
        None
    }
}

/// A stored message as readers get it now.
fn present(mut publication: Publication, epoch: Epoch, now: Wall) -> Publication {
    publication.epoch = epoch;
    if publication.is_expired(now) {
        publication = publication.into_tombstone(TombstoneReason::Expired);
    }
    publication
}

/// An entry of a log, under the epoch that it was written in.
fn readable(entry: Value) -> Option<Publication> {
    let Value::BulkString(bytes) = entry else { return None };
    decode(&Bytes::from(bytes)).ok().map(|entry| entry.publication)
}

fn parse_life(text: &str) -> Option<Position> {
    let (epoch, last) = text.split_once(':')?;
    let offset = Offset::parse(last.parse().ok()?).ok()?;
    Some(Position { epoch: Epoch::parse(epoch).ok()?, offset })
}
