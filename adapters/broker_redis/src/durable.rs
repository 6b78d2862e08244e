//! Durable rooms: Redis gives out positions, and the archive says which lives a room had and what is stored.
//!
//! A life must begin in the archive first, be written into Redis by the node alone that began it, and only once; and
//! nothing may be answered as durable before the archive has said that it has it. Delivery does not wait for that.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use application::ports::Receipt;
use application::ports::archive::{Archive, ArchiveError, ArchiveRecord, DedupKey, Forget};
use application::ports::succession::{Lives, Succession, Successor};
use domain::id::Epoch;
use domain::message::{Publication, Publish};
use domain::policy::{AckLevel, NamespacePolicy};
use domain::position::{Offset, Position};
use domain::retention::Retention;
use domain::room::RoomId;
use domain::time::Wall;
use redis::Cmd;
use tokio::time::sleep;

use crate::broker::{RedisBroker, strange};
use crate::entry::decode;
use crate::gate::Gates;
use crate::head::{self, Head, packed};
use crate::link::{CallError, Link};
use crate::publish::{Placed, Step};
use crate::sparing::Sparing;

/// How often a call is made anew because a life had to begin first, or the archive to be asked.
pub(crate) const TRIES_MAX: usize = 4;
/// For a node that was quicker to write the life that it began into Redis.
const OTHER_PAUSE: Duration = Duration::from_millis(50);
/// The most rooms whose old messages wait to be forgotten; those beyond wait for their next life.
const KEPT_MAX: usize = 100_000;

/// Each publish may meet it.
static AWAY: Sparing = Sparing::new();

/// The log of durable rooms, which all nodes have in common.
pub struct DurableLog {
    /// Which lives rooms had, and what was published.
    pub lives: Arc<dyn Succession>,
    /// The same value behind its other port.
    pub archive: Arc<dyn Archive>,
}

/// That log, and what this node knows of it.
pub(crate) struct Durable {
    pub(crate) lives: Arc<dyn Succession>,
    pub(crate) archive: Arc<dyn Archive>,
    gates: Gates,
    /// The last message could not be stored.
    is_failing: AtomicBool,
    kept: Mutex<BTreeMap<RoomId, Kept>>,
}

/// A room in which something may have to be forgotten.
#[derive(Clone, Copy)]
struct Kept {
    retention: Retention,
    /// Something came since the last look.
    is_due: bool,
    /// By then all that came is too old.
    until: Wall,
}

/// Why a head in Redis is not one to publish or read by.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Unfit {
    /// What it says; none where there is none.
    epoch: Option<Epoch>,
    /// The next life begins behind this offset at least.
    behind: Offset,
}

impl Unfit {
    /// What a script says: `SUCCEED offset epoch`.
    pub(crate) fn parse(words: &str) -> Option<Self> {
        let (behind, epoch) = words.strip_prefix("SUCCEED ")?.split_once(' ')?;
        let behind = Offset::parse(behind.parse().ok()?).ok()?;
        Some(Self { epoch: Epoch::parse(epoch).ok(), behind })
    }

    /// An epoch that the archive does not go on with.
    pub(crate) const fn known(epoch: Epoch) -> Self {
        Self { epoch: Some(epoch), behind: Offset::ZERO }
    }
}

/// What comes of an archive that did not answer.
pub(crate) fn away(error: &ArchiveError) -> CallError {
    if let Some(left_out) = AWAY.turn() {
        tracing::warn!(%error, left_out, "the archive of durable rooms did not do it");
    }
    CallError::Away
}

impl Durable {
    pub(crate) fn new(log: DurableLog) -> Self {
        let DurableLog { lives, archive } = log;
        let (gates, kept) = (Gates::new(), Mutex::default());
        Self { lives, archive, gates, is_failing: AtomicBool::new(false), kept }
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<RoomId, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the archive could not store the last message, whether it can by now: what it would refuse is not
    /// given out at all.
    async fn try_out(&self, room: &RoomId, fresh: Epoch) -> Result<(), CallError> {
        // Changes nothing of a room that there is, but goes the way that messages go.
        let nothing = Successor { of: None, epoch: fresh, behind: Offset::ZERO };
        self.lives.succeed(room, nothing).await.map_err(|error| away(&error))?;
        self.is_failing.store(false, Ordering::Release);
        Ok(())
    }

    /// Where a publish is stored, if it is.
    async fn find(&self, publish: &Publish) -> Result<Option<Position>, CallError> {
        let Some(msg_id) = publish.msg_id.clone() else { return Ok(None) };
        let (room, publisher) = (publish.room.clone(), publish.publisher.clone());
        let found = self.archive.find(vec![DedupKey { room, publisher, msg_id }]).await;
        Ok(found.map_err(|error| away(&error))?.into_iter().next().flatten())
    }

    /// Stores one message, also when nobody waits for it any more: it was handed to all.
    async fn place(&self, record: ArchiveRecord) -> Result<(), ArchiveError> {
        let lives = Arc::clone(&self.lives);
        let placed = tokio::spawn(async move { lives.place(vec![record]).await });
        placed.await.unwrap_or(Err(ArchiveError::Closed))
    }

    /// Has what is old in a room forgotten now and then.
    fn keep(&self, room: &RoomId, retention: Retention, at: Wall) {
        let until = at.after(retention.age_max);
        let mut kept = self.kept();
        if let Some(one) = kept.get_mut(room) {
            *one = Kept { retention, is_due: true, until: until.max(one.until) };
        } else if kept.len() < KEPT_MAX {
            kept.insert(room.clone(), Kept { retention, is_due: true, until });
        }
    }

    /// The rooms to look at now.
    fn take_due(&self, now: Wall) -> Vec<(RoomId, Kept)> {
        let mut due = Vec::new();
        self.kept().retain(|room, kept| {
            let is_over = kept.until < now;
            if is_over || kept.is_due {
                due.push((room.clone(), *kept));
                kept.is_due = false;
            }
            !is_over
        });
        due
    }
}

const fn stored(at: Position, is_duplicate: bool) -> Receipt {
    let (epoch, offset) = (at.epoch, Some(at.offset));
    Receipt { epoch, offset, duplicate: is_duplicate, level: AckLevel::Durable }
}

fn before(now: Wall, age: Duration) -> Wall {
    let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    Wall::from_millis(now.as_millis().saturating_sub(age))
}

impl RedisBroker {
    /// Publishes in a durable room: a place in Redis, then one in the archive.
    pub(crate) async fn publish_durable(
        &self,
        durable: &Durable,
        publish: Publish,
        policy: &NamespacePolicy,
    ) -> Result<Receipt, CallError> {
        if durable.is_failing.load(Ordering::Acquire) {
            durable.try_out(&publish.room, self.fresh_epoch()?).await?;
        }
        let mut is_asked = false;
        for _ in 0..TRIES_MAX {
            match self.position(&publish, policy, is_asked).await? {
                Step::Placed(placed) => {
                    return self.store(durable, publish, policy, placed).await;
                }
                Step::Ask => match durable.find(&publish).await? {
                    Some(at) => return Ok(stored(at, true)),
                    None => is_asked = true,
                },
                Step::Begin(unfit) => {
                    self.begin_life(&publish.room, policy, publish.at, &unfit).await?;
                }
            }
        }
        Err(CallError::Away)
    }

    fn fresh_epoch(&self) -> Result<Epoch, CallError> {
        self.entropy.bits().map(Epoch::from_bits).map_err(|_| CallError::Away)
    }

    /// Stores what has a place. What was published before may not be stored yet: its publisher had no answer.
    async fn store(
        &self,
        durable: &Durable,
        publish: Publish,
        policy: &NamespacePolicy,
        placed: Placed,
    ) -> Result<Receipt, CallError> {
        let receipt = placed.receipt;
        let Some(offset) = receipt.offset else { return Ok(receipt) };
        let at = Position { epoch: receipt.epoch, offset };
        let publication = if !receipt.duplicate {
            positioned(&publish, at)
        } else if placed.entry.is_empty() {
            // The log keeps it no longer.
            let found = durable.find(&publish).await?;
            return Ok(found.map_or(receipt, |at| stored(at, true)));
        } else {
            let entry = decode(&placed.entry).map_err(|_| strange("an entry"))?;
            Publication { origin: None, ..entry.publication }
        };
        let (publisher, msg_id) = (publish.publisher.clone(), publish.msg_id.clone());
        match durable.place(ArchiveRecord { publication, publisher, msg_id }).await {
            Ok(()) => {
                durable.keep(&publish.room, policy.retention, publish.at);
                Ok(stored(at, receipt.duplicate))
            }
            Err(ArchiveError::Ended) => {
                // Its publisher repeats it; by then the room has a life that goes on.
                let unfit = Unfit::known(at.epoch);
                self.begin_life(&publish.room, policy, publish.at, &unfit).await?;
                Err(CallError::Away)
            }
            Err(error) => self.look_again(durable, &publish, policy, at, error).await,
        }
    }

    /// The archive did not store a message. It may have it all the same, or have had it long before; or does not
    /// know the life that Redis goes on with.
    async fn look_again(
        &self,
        durable: &Durable,
        publish: &Publish,
        policy: &NamespacePolicy,
        at: Position,
        error: ArchiveError,
    ) -> Result<Receipt, CallError> {
        durable.is_failing.store(true, Ordering::Release);
        let why = away(&error);
        if let Some(found) = durable.find(publish).await? {
            durable.is_failing.store(false, Ordering::Release);
            return Ok(stored(found, found != at));
        }
        let lives = durable.lives.lives(&publish.room).await.map_err(|error| away(&error))?;
        if lives.is_none_or(|lives| lives.epoch != at.epoch) {
            let unfit = Unfit { epoch: Some(at.epoch), behind: at.offset };
            self.begin_life(&publish.room, policy, publish.at, &unfit).await?;
        }
        Err(why)
    }

    /// Begins the next life of a durable room, unless somebody else has. Nothing is known then but that a call is
    /// worth being made again.
    pub(crate) async fn begin_life(
        &self,
        room: &RoomId,
        policy: &NamespacePolicy,
        now: Wall,
        unfit: &Unfit,
    ) -> Result<(), CallError> {
        let durable = self.durable_of(policy).ok_or_else(|| strange("an answer"))?;
        let turn = durable.gates.enter(room).await.ok_or(CallError::Away)?;
        let begun = self.begin_in_turn(durable, room, policy, now, unfit).await;
        if begun.is_err() {
            turn.fail();
        }
        begun
    }

    async fn begin_in_turn(
        &self,
        durable: &Durable,
        room: &RoomId,
        policy: &NamespacePolicy,
        now: Wall,
        unfit: &Unfit,
    ) -> Result<(), CallError> {
        let link = self.commands.link()?;
        let head = self.names.head(room);
        // What is written below is written in this life of the server, or not at all.
        let life = link.life_of(&head).to_owned();
        let ask = |command: &mut Cmd| {
            command.arg("HGET").arg(&head).arg(head::FIELD);
        };
        let written: Option<Vec<u8>> = self.commands.ask_for(&link, ask).await?;
        let found = written.and_then(|written| Head::read(&written));
        let is_fit = |head: &Head| head.is_durable && head.life == life.as_bytes();
        if found.is_some_and(|head| is_fit(&head) && Some(head.epoch) != unfit.epoch) {
            return Ok(());
        }
        let present = durable.lives.lives(room).await.map_err(|error| away(&error))?;
        let ended = present.map(|lives| lives.epoch);
        let fresh = self.fresh_epoch()?;
        let next = Successor { of: ended, epoch: fresh, behind: unfit.behind };
        let lives = durable.lives.succeed(room, next).await.map_err(|error| away(&error))?;
        if lives.epoch != fresh {
            // Whoever began that one writes it into Redis; nobody else knows whether it was lost there again.
            sleep(OTHER_PAUSE).await;
            return Ok(());
        }
        let first = self.forget_old(durable, room, policy, now, &lives).await?;
        let ended = [unfit.epoch, ended].map(|epoch| epoch.map(|epoch| epoch.to_string()));
        let earlier = lives.earlier.iter().map(|end| format!("{}:{}", end.epoch, end.offset.get()));
        let earlier = earlier.collect::<Vec<_>>().join(" ");
        let fill = |command: &mut Cmd, link: &Link| {
            self.begin(command, (link, fresh), room, policy, now);
            let behind = [lives.last.get() as f64, first.get() as f64];
            command.arg(packed(&behind)).arg(fresh.to_string());
            for epoch in &ended {
                command.arg(epoch.as_deref().unwrap_or_default());
            }
            command.arg(&earlier).arg(&life);
        };
        self.commands.run_script(&link, &self.commands.scripts().begin, fill).await?;
        Ok(())
    }

    /// Forgets what is beyond retention when a life begins, and answers what the oldest is.
    async fn forget_old(
        &self,
        durable: &Durable,
        room: &RoomId,
        policy: &NamespacePolicy,
        now: Wall,
        lives: &Lives,
    ) -> Result<Offset, CallError> {
        let Retention { messages_max, age_max, .. } = policy.retention;
        let first = lives.last.get().saturating_add(1).saturating_sub(messages_max.into());
        let first = Offset::parse(first).unwrap_or(Offset::MAX);
        let old = Forget::Old { first, before: before(now, age_max) };
        durable.archive.forget(room, old).await.map_err(|error| away(&error))?;
        durable.keep(room, policy.retention, now);
        let page = durable.lives.read_lives(room, Offset::ZERO, 0, 0).await;
        let page = page.map_err(|error| away(&error))?;
        Ok(page.map_or(first, |page| page.first.max(first)))
    }

    /// Has the archive forget what rooms keep no longer, of those in which this node published; for the host to
    /// call now and then. Several nodes may do it at once.
    pub async fn forget_in_time(&self, now: Wall) {
        let Some(durable) = self.durable() else { return };
        for (room, kept) in durable.take_due(now) {
            let head = self.names.head(&room);
            let Ok(link) = self.commands.link() else { return };
            let ask = |command: &mut Cmd| {
                command.arg("HGET").arg(&head).arg(head::FIELD);
            };
            let written: Result<Option<Vec<u8>>, _> = self.commands.ask_for(&link, ask).await;
            let found = written.ok().flatten().and_then(|written| Head::read(&written));
            let first = found.and_then(|head| head.first).unwrap_or(Offset::ZERO);
            let old = Forget::Old { first, before: before(now, kept.retention.age_max) };
            if let Err(error) = durable.archive.forget(&room, old).await {
                let _ = away(&error);
                // All the same at the next look.
                durable.keep(&room, kept.retention, now);
            }
        }
    }
}

fn positioned(publish: &Publish, at: Position) -> Publication {
    let Publish { room, class, key, sender, data, tags, ttl, at: said_at, .. } = publish.clone();
    Publication {
        room,
        epoch: at.epoch,
        offset: Some(at.offset),
        class,
        key,
        sender,
        data,
        tags,
        origin: None,
        at: said_at,
        expires_at: ttl.map(|ttl| said_at.after(ttl)),
        tombstone: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_script_says_of_a_head_is_read_and_nothing_else() {
        let epoch = Some(Epoch::from_bits(0x4e5d_e2e0_af0d_01c5));
        for (words, behind, epoch) in
            [("SUCCEED 0 ", 0, None), ("SUCCEED 17 4e5de2e0af0d01c5", 17, epoch)]
        {
            let behind = Offset::parse(behind).unwrap();
            assert_eq!(Unfit::parse(words), Some(Unfit { epoch, behind }));
        }
        for words in
            ["ASK", "", "SUCCEED", "SUCCEED x ", "SUCCEED -1 ", "SUCCEED 99999999999999999999 "]
        {
            assert_eq!(Unfit::parse(words), None, "{words}");
        }
    }

    #[test]
    fn a_room_is_looked_at_when_something_came_and_once_more_when_all_of_it_is_old() {
        let archive = Arc::new(application::testing::memory_archive::MemoryArchive::new());
        let log = DurableLog { lives: Arc::clone(&archive) as _, archive };
        let (durable, room) = (Durable::new(log), RoomId::parse("chat:a").unwrap());
        let (retention, at) = (Retention::default(), Wall::from_millis(1_000));
        durable.keep(&room, retention, at);
        let due = |now| durable.take_due(now).len();
        assert_eq!((due(at), due(at)), (1, 0));
        let old = at.after(retention.age_max).after(Duration::from_millis(1));
        assert_eq!((due(old), due(old), durable.kept().len()), (1, 0, 0));
    }
}
