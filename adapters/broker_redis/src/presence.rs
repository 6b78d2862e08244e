//! The port of presence on Redis: who is where, over all nodes.
//!
//! A node says over how many of its connections a member is in a room, in a place of its own, and Redis
//! adds up; the step from none to some is a join, the step back a leave, numbered and published with it.
//! A node holds a lease; what it said is taken back by others once that has run out and one of them has
//! claimed it. A node whose lease was claimed, or whose Redis may have lost something, begins again under
//! another name and says everything anew: what it said before is taken back, by itself once everything was said and by
//! others where it can't, so nothing is counted twice for long and nothing stays; until then it keeps others from it.
//! One task tells one change after another, so that no older word can overtake a newer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use application::planted::{Mistake, is_planted};
use application::ports::{Presence, PresenceError};
use async_trait::async_trait;
use bytes::Bytes;
use domain::id::{ConnectionId, UserId};
use domain::presence::{PresenceChange, PresenceEvent, PresenceKey, PresenceList, PresentMember};
use domain::room::RoomId;
use redis::{Cmd, Value};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::batch::Batch;
use crate::broker::{RETRY_AFTER, RedisBroker, millis, parse};
use crate::link::{CallError, Link};
use crate::present::{Local, Telling};
use crate::slots::SlotMap;

/// The most changes of one pipeline.
const BATCH: usize = 256;
/// The most nodes that one look finds gone.
pub(crate) const GONE_MAX: usize = 16;
/// The most names of one list: Redis does nothing else meanwhile.
const LIST_MAX: usize = 10_000;

/// Presence of this node.
pub(crate) struct Present {
    local: Mutex<Local>,
    pub(crate) changed: Notify,
    leased: Notify,
    /// Rung when this node has another name.
    pub(crate) renamed: Notify,
    /// Held while changes are told.
    pub(crate) telling: tokio::sync::Mutex<()>,
    pub(crate) is_finishing: AtomicBool,
    /// Whether who leaves was told to come back over another node.
    pub(crate) is_parting: AtomicBool,
    /// Nodes whose leases had run out at the last look.
    pub(crate) over: Mutex<Vec<String>>,
    /// Names that this node had, and since when it has another.
    pub(crate) former: Mutex<Vec<(String, Instant)>>,
    /// Rung when everything was said again that one of those had said.
    pub(crate) said_again: Notify,
    /// The name under which this node speaks; none until it has a lease.
    lease: Mutex<Option<Lease>>,
}

/// A name, and the connection over which it was taken.
#[derive(Clone)]
pub(crate) struct Lease {
    pub(crate) node: String,
    pub(crate) link: Arc<Link>,
}

impl Present {
    pub(crate) fn new() -> Self {
        Self {
            local: Mutex::default(),
            changed: Notify::new(),
            leased: Notify::new(),
            renamed: Notify::new(),
            telling: tokio::sync::Mutex::default(),
            is_finishing: AtomicBool::new(false),
            is_parting: AtomicBool::new(false),
            over: Mutex::default(),
            former: Mutex::default(),
            said_again: Notify::new(),
            lease: Mutex::default(),
        }
    }

    pub(crate) fn local(&self) -> MutexGuard<'_, Local> {
        // A panic while it is held can only come from memory running out.
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lease(&self) -> Option<Lease> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The name under which this node speaks to the Redis behind this connection, if it has one.
    pub(crate) fn name_over(&self, link: &Link) -> Option<String> {
        self.lease().filter(|lease| lease.link.life == link.life).map(|lease| lease.node)
    }

    /// Whether this node speaks under that name.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        let lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        lease.as_ref().is_some_and(|lease| lease.node == name)
    }

    /// Whoever was said to be here under this name is said to be here under the new one.
    fn rename(&self, before: Option<String>) {
        let now = Instant::now();
        let mut local = self.local();
        if !is_planted(Mistake::NotSaidAgain) {
            local.note_all(now);
        }
        if let Some(name) = before {
            self.note_former(name, now);
        }
    }

    pub(crate) fn set_lease(&self, lease: Option<Lease>) {
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = lease;
    }
}

/// A member's name in Redis; those of users come first, as in every list.
fn name(who: &PresenceKey) -> String {
    match who {
        PresenceKey::User(user) => format!("u{user}"),
        PresenceKey::Anonymous(connection) => format!("~{connection}"),
    }
}

pub(crate) fn who(name: &str) -> Option<PresenceKey> {
    match name.strip_prefix('u') {
        Some(user) => UserId::parse(user).ok().map(PresenceKey::User),
        None => {
            let connection = ConnectionId::parse(name.strip_prefix('~')?).ok()?;
            Some(PresenceKey::Anonymous(connection))
        }
    }
}

/// What the script publishes begins with this; no entry of a log does.
const MARK: &[u8] = b"presence ";

/// Reads a change that came over a room's channel. None where it is a publication; an error where it
/// should be a change and can't be read.
pub(crate) fn decode_event(bytes: &Bytes) -> Option<Result<(RoomId, PresenceEvent), ()>> {
    bytes.starts_with(MARK).then(|| read_event(bytes).ok_or(()))
}

fn read_event(bytes: &Bytes) -> Option<(RoomId, PresenceEvent)> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let mut words = std::str::from_utf8(bytes.get(MARK.len()..end)?).ok()?.split(' ');
    let seq = words.next()?.parse().ok()?;
    let change = match words.next()? {
        "join" => PresenceChange::Join,
        "leave" => PresenceChange::Leave,
        "update" => PresenceChange::Update,
        _ => return None,
    };
    let who = who(words.next()?)?;
    let room = RoomId::parse(words.next()?).ok()?;
    let total = words.next()?.parse().ok()?;
    Some((room, PresenceEvent { seq, change, who, data: bytes.slice(end + 1..), total }))
}

impl RedisBroker {
    /// Keeps the lease, tells what changes and cleans up behind others, for as long as it is polled.
    pub(crate) async fn run_presence(&self) {
        tokio::join!(self.keep_lease(), self.tell_changes(), self.clean_up());
    }

    async fn keep_lease(&self) {
        let mut said_at = Instant::now();
        loop {
            if self.present.is_finishing.load(Ordering::Acquire) {
                return;
            }
            // Long before anything of it runs out.
            if said_at.elapsed() > self.config.presence_kept / 4 {
                said_at = Instant::now();
                self.present.local().note_all(said_at);
                self.present.changed.notify_one();
            }
            match self.renew().await {
                Ok(over) => {
                    *self.present.over.lock().unwrap_or_else(PoisonError::into_inner) = over;
                    // Or as soon as there is another connection.
                    let _ = timeout(self.config.lease / 5, self.commands.linked()).await;
                }
                Err(_) => {
                    // What is needed of Redis may be there when all of it is not.
                    let (lease, up) = (self.config.lease, self.status().until_commands_up());
                    let _ = timeout(lease / 20, up).await;
                    sleep(lease / 100).await;
                }
            }
        }
    }

    /// Renews the lease, or takes one under another name. Answers whose have run out.
    async fn renew(&self) -> Result<Vec<String>, CallError> {
        let (link, fresh) = self.link_and_epoch()?;
        let held = self.present.lease();
        // What another life of Redis may have lost is said anew, under another name.
        let kept = held.as_ref().filter(|lease| lease.link.life == link.life);
        let node = kept.map_or_else(|| fresh.to_string(), |lease| lease.node.clone());
        let fill = |command: &mut Cmd, _: &Link| {
            command.arg(2);
            for key in self.names.nodes() {
                command.arg(key);
            }
            command.arg(&node).arg(millis(self.config.lease)).arg(GONE_MAX);
            command.arg(millis(self.config.presence_kept));
        };
        let answer = self.commands.run_script(&link, &self.commands.scripts().lease, fill).await?;
        let (was_there, over): (u8, Vec<String>) = parse(answer)?;
        if kept.is_some() && was_there == 0 {
            // Others take back what was said under this name: it is theirs.
            self.present.set_lease(None);
            return Ok(over);
        }
        let is_new = kept.is_none();
        self.present.set_lease(Some(Lease { node, link: Arc::clone(&link) }));
        self.present.leased.notify_one();
        if is_new {
            let before = held.map(|before| before.node);
            self.present.rename(before.clone());
            self.present.changed.notify_one();
            self.present.renamed.notify_one();
            self.keep_former(&link).await;
            // No seat under it counts any more, whatever is to be said of members first.
            if let Some(before) = before {
                self.run_out(&link, &before).await;
            }
        } else {
            self.keep_former(&link).await;
        }
        Ok(over)
    }

    async fn tell_changes(&self) {
        loop {
            if self.present.is_finishing.load(Ordering::Acquire) {
                return;
            }
            let now = Instant::now();
            let due = self.present.local().next_due(now);
            match due {
                Some(due) if due <= now => {
                    if self.tell_some(now).await.is_err() {
                        // Until there is a lease again, or a while has passed.
                        let _ =
                            timeout(self.config.lease / 20, self.present.leased.notified()).await;
                    }
                }
                Some(due) => {
                    tokio::select! {
                        biased;
                        () = self.present.changed.notified() => {}
                        () = sleep_until(due) => {}
                    }
                }
                None => self.present.changed.notified().await,
            }
        }
    }

    pub(crate) async fn tell_some(&self, now: Instant) -> Result<(), CallError> {
        // One after another, whoever asks for it.
        let _turn = self.present.telling.lock().await;
        let telling = self.present.local().take(now, BATCH);
        if telling.is_empty() {
            return Ok(());
        }
        let Some(lease) = self.present.lease() else {
            // There will be one in a moment, unless Redis is away.
            let is_away = self.commands.link().is_err();
            self.present.local().put_back(telling, Instant::now(), is_away);
            return Err(CallError::Away);
        };
        // A connection may have come since to a Redis that has lost nothing.
        let now_there = self.commands.link().ok().filter(|link| link.life == lease.link.life);
        let lease = Lease { link: now_there.unwrap_or(lease.link), ..lease };
        let answers = self.tell(&lease, &telling).await;
        let (mut unused, mut failed, mut n_told) = (Vec::new(), Vec::new(), 0);
        for (one, answer) in telling.into_iter().zip(answers) {
            if answer.is_err() {
                failed.push(one);
                continue;
            }
            n_told += 1;
            if self.present.local().told(&one.seat, one.connections) {
                unused.push(one.seat.0);
            }
            for waiting in one.waiting {
                let _ = waiting.send(());
            }
        }
        let has_failed = !failed.is_empty();
        // Others don't wait for what can't be told.
        let later = Instant::now() + self.config.lease / 20;
        self.present.local().put_back(failed, later, true);
        // Where that fails others look there in vain.
        let _ = self.forget_rooms(&lease, &unused).await;
        if self.present.has_said_again() {
            self.present.said_again.notify_one();
        }
        if has_failed && n_told == 0 { Err(CallError::Away) } else { Ok(()) }
    }

    /// Says it, and answers of each whether Redis has it.
    async fn tell(&self, lease: &Lease, telling: &[Telling]) -> Vec<Result<Value, CallError>> {
        let (mut before, mut batch) = (Batch::default(), Batch::default());
        let rooms = self.names.rooms_of(&lease.node);
        let script = &self.commands.scripts().presence_set;
        // Before: whoever cleans up behind this node has to find the room.
        let mut command = redis::cmd("SADD");
        command.arg(&rooms);
        for Telling { seat: (room, _), .. } in telling {
            command.arg(room.as_str());
        }
        before.ask(command);
        let mut command = redis::cmd("PEXPIRE");
        command.arg(&rooms).arg(millis(self.config.presence_kept));
        before.tell(command);
        let failed = |error: &CallError| telling.iter().map(|_| Err(error.clone())).collect();
        // One server does one after the other, so both can be on their way.
        let is_one = lease.link.slots == SlotMap::One;
        if is_one {
            std::mem::swap(&mut before, &mut batch);
        } else if let Some(Err(error)) = self.commands.run_batch(&lease.link, &before).await.pop() {
            return failed(&error);
        }
        for Telling { seat: (room, key), connections, data, .. } in telling {
            let mut command = redis::cmd("EVALSHA");
            command.arg(script.get_hash()).arg(5);
            for name in self.names.presence_keys(room, &lease.node) {
                command.arg(name);
            }
            command
                .arg(name(key))
                .arg(connections)
                .arg(self.names.room_channel(room))
                .arg(room.as_str())
                .arg(millis(self.config.presence_kept))
                .arg(&data[..]);
            batch.ask(command);
        }
        let mut answers = self.commands.run_batch(&lease.link, &batch).await;
        if is_one && let Err(error) = answers.remove(0) {
            return failed(&error);
        }
        answers
    }

    /// Nobody is in these rooms over this node any more. Where it fails others look there in vain.
    async fn forget_rooms(&self, lease: &Lease, unused: &[RoomId]) -> Result<(), CallError> {
        if unused.is_empty() {
            return Ok(());
        }
        let fill = |command: &mut Cmd| {
            command.arg("SREM").arg(self.names.rooms_of(&lease.node));
            for room in unused {
                command.arg(room.as_str());
            }
        };
        self.commands.ask_for::<i64>(&lease.link, fill).await.map(drop)
    }

    async fn call_update(
        &self,
        room: &RoomId,
        key: &PresenceKey,
        data: &Bytes,
    ) -> Result<bool, CallError> {
        let link = self.commands.link()?;
        let fill = |command: &mut Cmd, _: &Link| {
            command.arg(5);
            for name in self.names.presence_keys(room, "") {
                command.arg(name);
            }
            command
                .arg(name(key))
                .arg(&data[..])
                .arg(self.names.room_channel(room))
                .arg(room.as_str());
        };
        let script = &self.commands.scripts().presence_update;
        let is_here: u8 = parse(self.commands.run_script(&link, script, fill).await?)?;
        Ok(is_here == 1)
    }

    async fn call_list(
        &self,
        room: &RoomId,
        members_max: usize,
    ) -> Result<PresenceList, CallError> {
        let link = self.commands.link()?;
        let fill = |command: &mut Cmd, _: &Link| {
            command.arg(5);
            for name in self.names.presence_keys(room, "") {
                command.arg(name);
            }
            command.arg(members_max.min(LIST_MAX));
        };
        let script = &self.commands.scripts().presence_list;
        let answer = self.commands.run_script(&link, script, fill).await?;
        type Answer = (u64, usize, usize, Vec<String>, Vec<usize>, Vec<Vec<u8>>);
        let (seq, total, connections, names, counts, data): Answer = parse(answer)?;
        let members =
            names.iter().zip(counts).zip(data).filter_map(|((name, connections), data)| {
                Some(PresentMember { who: who(name)?, data: Bytes::from(data), connections })
            });
        Ok(PresenceList { seq, total, connections, members: members.collect() })
    }
}

const fn unavailable() -> PresenceError {
    PresenceError::Unavailable { retry_after: RETRY_AFTER }
}

#[async_trait]
impl Presence for RedisBroker {
    async fn enter(
        &self,
        room: &RoomId,
        key: &PresenceKey,
        connection: ConnectionId,
    ) -> Result<(), PresenceError> {
        let seat = (room.clone(), key.clone());
        let told = self.present.local().enter(&seat, connection, Instant::now());
        self.present.changed.notify_one();
        match timeout(self.config.answer_timeout, told).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(unavailable()),
        }
    }

    async fn leave(&self, room: &RoomId, key: &PresenceKey, connection: ConnectionId) {
        let seat = (room.clone(), key.clone());
        self.present.local().leave(&seat, connection, Instant::now(), self.grace());
        self.present.changed.notify_one();
    }

    async fn update(
        &self,
        room: &RoomId,
        key: &PresenceKey,
        data: Bytes,
    ) -> Result<(), PresenceError> {
        // Who is here only over another node speaks over that one.
        if !self.present.local().is_here(&(room.clone(), key.clone())) {
            return Err(PresenceError::NotPresent);
        }
        match self.call_update(room, key, &data).await {
            Ok(true) => {
                self.present.local().show(&(room.clone(), key.clone()), data);
                Ok(())
            }
            Ok(false) => Err(PresenceError::NotPresent),
            Err(_) => Err(unavailable()),
        }
    }

    async fn list(&self, room: &RoomId, members_max: usize) -> Result<PresenceList, PresenceError> {
        self.call_list(room, members_max).await.map_err(|_| unavailable())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_names_and_users_come_first() {
        let user = PresenceKey::User(UserId::parse("~zed").unwrap());
        let anonymous = PresenceKey::Anonymous(ConnectionId::from_bits(7));
        assert!(name(&user) < name(&anonymous));
        for key in [user, anonymous] {
            assert_eq!(who(&name(&key)), Some(key));
        }
        assert_eq!((who("x"), who("u"), who("~7")), (None, None, None));
    }

    #[test]
    fn a_change_is_read_and_what_is_none_of_ours_is_an_error() {
        let read = |text: &'static str| decode_event(&Bytes::from_static(text.as_bytes()));
        let (room, event) = read("presence 9 update uann public:a 3\n{\"a\":1}").unwrap().unwrap();
        assert_eq!(
            (room.as_str(), event.seq, event.change, event.total),
            ("public:a", 9, PresenceChange::Update, 3)
        );
        assert_eq!((event.who.to_string(), &event.data[..]), ("ann".to_owned(), &b"{\"a\":1}"[..]));
        assert!(read("00000000000000ff 1 1 1 0\n{}\n1").is_none());
        for wrong in [
            "presence ",
            "presence 1 x ua public:a 1\n",
            "presence x join ua public:a 1\n",
            "presence 1 join ua\n",
            "presence 1 join ua public:a\n",
            "presence 1 join ua public:a some\n",
            "presence 1 join ua public:a 1",
        ] {
            assert!(read(wrong).unwrap().is_err(), "{wrong}");
        }
    }
}
