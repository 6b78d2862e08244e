//! Revocations of all nodes: in Redis, and in the memory of each.
//!
//! A node asks its own memory only. It is told of each by the channel of all nodes, and reads all of them
//! whenever that channel is on again; what Redis has lost it is given back. Until a node has read them for
//! the first time it knows of nobody that their tokens still count, and says so.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use application::ports::{Revocations, RevokeError};
use async_trait::async_trait;
use domain::id::{ConnectionId, TokenId, UserId};
use domain::principal::Principal;
use domain::revocation::{Revocation, RevokedSet};
use domain::time::Wall;
use redis::Cmd;
use tokio::time::sleep;

use crate::broker::RedisBroker;
use crate::link::{CallError, Link};

/// How many are read at a time.
const PAGE: usize = 512;
/// Between two attempts to read them, at first; twice as long after each that failed, up to the other.
const AGAIN: Duration = Duration::from_millis(200);
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// What is said to all nodes begins with this.
const MARK: &[u8] = b"revoke ";

type Heard = Box<dyn Fn(&Revocation) + Send + Sync>;

/// See the module's text.
pub struct RedisRevocations {
    broker: Arc<RedisBroker>,
    span: Duration,
    /// Held for one look or one change.
    set: RwLock<RevokedSet>,
    is_known: AtomicBool,
    heard: OnceLock<Heard>,
}

impl RedisRevocations {
    /// Remembers each for `span`, which should be as long as the longest token lives. The host spawns
    /// [`run`](Self::run).
    #[must_use]
    pub fn build(broker: &Arc<RedisBroker>, span: Duration) -> Arc<Self> {
        let this = Arc::new(Self {
            broker: Arc::clone(broker),
            span,
            set: RwLock::default(),
            is_known: AtomicBool::new(false),
            heard: OnceLock::new(),
        });
        let weak = Arc::downgrade(&this);
        broker.news().listen(move |said| {
            if let (Some(this), Some(said)) = (weak.upgrade(), said.strip_prefix(MARK)) {
                this.hear(said);
            }
        });
        this
    }

    /// Has this called for each revocation that another node made: it ends connections. There is one at most.
    pub fn on_heard(&self, heard: impl Fn(&Revocation) + Send + Sync + 'static) {
        let _ = self.heard.set(Box::new(heard));
    }

    /// Whether all that count have been read.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Acquire)
    }

    /// Reads all of them whenever the channel of all nodes is on again, for as long as it is polled.
    pub async fn run(self: Arc<Self>) {
        let mut times_on = self.broker.news().times_on();
        let (mut read, mut again) = (0, AGAIN);
        loop {
            if times_on.wait_for(|times| *times > read).await.is_err() {
                return;
            }
            let times = *times_on.borrow();
            match self.read_all().await {
                Ok(()) => (read, again) = (times, AGAIN),
                Err(error) => {
                    let pause = again;
                    // What is refused for want of place takes a while to change.
                    again = match error {
                        CallError::Away => AGAIN,
                        _ => (again * 2).min(AGAIN_MAX),
                    };
                    tokio::select! {
                        () = sleep(pause) => {}
                        _ = times_on.changed() => {}
                    }
                }
            }
        }
    }

    async fn read_all(&self) -> Result<(), CallError> {
        let link = self.broker.commands.link()?;
        let [key, _] = self.broker.names.revocations();
        let before: BTreeSet<_> =
            self.look().iter().map(|(revocation, _)| stamp(&revocation)).collect();
        let mut known = BTreeSet::new();
        let mut cursor = 0_u64;
        loop {
            let fill = |command: &mut Cmd| {
                command.arg("HSCAN").arg(&key).arg(cursor).arg("COUNT").arg(PAGE);
            };
            let (next, page): (u64, Vec<String>) =
                self.broker.commands.ask_for(&link, fill).await?;
            for pair in page.chunks_exact(2) {
                if let Some((revocation, end)) = read(&pair[0], &pair[1]) {
                    known.insert(key_of(&revocation));
                    self.keep(&revocation, end);
                    // Before the first time nobody is here whom it could concern.
                    if self.is_known() && !before.contains(&stamp(&revocation)) {
                        self.enforce(&revocation);
                    }
                }
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        // Whether or not Redis takes back what it has lost.
        self.is_known.store(true, Ordering::Release);
        let here: Vec<_> = self.look().iter().collect();
        for (revocation, end) in here {
            if !known.contains(&key_of(&revocation)) {
                // Redis has lost it.
                self.call_add(&revocation, end, Wall::default()).await?;
            }
        }
        Ok(())
    }

    /// What another node says, or this one.
    fn hear(&self, said: &[u8]) {
        let Ok(text) = std::str::from_utf8(said) else { return };
        let mut words = text.splitn(3, ' ');
        let (Some(end), Some(moment), Some(key)) = (words.next(), words.next(), words.next())
        else {
            return;
        };
        if let Some((revocation, end)) = read(key, &format!("{end} {moment}")) {
            self.keep(&revocation, end);
            self.enforce(&revocation);
        }
    }

    fn keep(&self, revocation: &Revocation, end: Wall) {
        // One that does not fit is one of a hundred thousand: it counts for who is here all the same.
        let is_full = self.change().add(revocation, end).is_err();
        if is_full {
            tracing::error!("a revocation of another node does not fit into this one's memory");
        }
    }

    fn enforce(&self, revocation: &Revocation) {
        if let Some(heard) = self.heard.get() {
            heard(revocation);
        }
    }

    async fn call_add(
        &self,
        revocation: &Revocation,
        end: Wall,
        now: Wall,
    ) -> Result<(), CallError> {
        let link = self.broker.commands.link()?;
        let moment = match revocation {
            Revocation::User { issued_until, .. } => issued_until.as_millis().to_string(),
            Revocation::Token(_) | Revocation::Connection(_) => String::new(),
        };
        let fill = |command: &mut Cmd, _: &Link| {
            command.arg(2);
            for key in self.broker.names.revocations() {
                command.arg(key);
            }
            command
                .arg(key_of(revocation))
                .arg(&moment)
                .arg(end.as_millis())
                .arg(now.as_millis())
                .arg(RevokedSet::ENTRIES_MAX)
                .arg(self.broker.names.news_channel());
        };
        let script = &self.broker.commands.scripts().revoke;
        self.broker.commands.run_script(&link, script, fill).await.map(drop)
    }

    fn look(&self) -> RwLockReadGuard<'_, RevokedSet> {
        // A change that panicked may be half done; what was whole before it still counts.
        self.set.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, RevokedSet> {
        self.set.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One text for each thing that can be taken back.
fn key_of(revocation: &Revocation) -> String {
    match revocation {
        Revocation::Token(id) => format!("t{id}"),
        Revocation::User { user, .. } => format!("u{user}"),
        Revocation::Connection(id) => format!("c{id}"),
    }
}

/// What tells a revocation from an earlier one of the same user, too.
fn stamp(revocation: &Revocation) -> (String, Option<Wall>) {
    let moment = match revocation {
        Revocation::User { issued_until, .. } => Some(*issued_until),
        Revocation::Token(_) | Revocation::Connection(_) => None,
    };
    (key_of(revocation), moment)
}

/// Reads one: its key, and `forget moment`.
fn read(key: &str, value: &str) -> Option<(Revocation, Wall)> {
    let (end, moment) = value.split_once(' ')?;
    let end = Wall::from_millis(end.parse().ok()?);
    let kind = key.chars().next()?;
    let id = &key[kind.len_utf8()..];
    let revocation = match kind {
        't' => Revocation::Token(TokenId::parse(id).ok()?),
        'u' => Revocation::User {
            user: UserId::parse(id).ok()?,
            issued_until: Wall::from_millis(moment.parse().ok()?),
        },
        'c' => Revocation::Connection(ConnectionId::parse(id).ok()?),
        _ => return None,
    };
    Some((revocation, end))
}

#[async_trait]
impl Revocations for RedisRevocations {
    fn concerns(&self, principal: &Principal, connection: ConnectionId) -> bool {
        !self.is_known() || self.look().concerns(principal, connection)
    }

    fn remembered(&self) -> usize {
        self.look().len()
    }

    async fn add(&self, revocation: &Revocation, now: Wall) -> Result<(), RevokeError> {
        let end = now.after(self.span);
        self.change().add(revocation, end).map_err(|_| RevokeError::Full)?;
        match self.call_add(revocation, end, now).await {
            Ok(()) => Ok(()),
            Err(error) => Err(RevokeError::Storage(error.to_string())),
        }
    }

    async fn forget(&self, now: Wall) {
        self.change().forget(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_read_as_it_was_written_and_nothing_else_is() {
        let user = UserId::parse("ann").unwrap();
        let issued_until = Wall::from_millis(-5);
        for (revocation, moment) in [
            (Revocation::Token(TokenId::parse("a-token").unwrap()), ""),
            (Revocation::User { user, issued_until }, "-5"),
            (Revocation::Connection(ConnectionId::from_bits(7)), ""),
        ] {
            let value = format!("9000 {moment}");
            assert_eq!(
                read(&key_of(&revocation), &value),
                Some((revocation, Wall::from_millis(9_000)))
            );
        }
        for (key, value) in
            [("", "1 "), ("x1", "1 "), ("uann", "1 "), ("c1", "1 "), ("ta", "x "), ("ta", "1")]
        {
            assert_eq!(read(key, value), None, "{key} {value}");
        }
    }
}
