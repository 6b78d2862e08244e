//! Whose turn it is, of the nodes that share letters, to give a user what waits.
//!
//! A turn is a row with an end, put off again and again while this node has it: of a node that is gone it is over soon.
//! What this node believes to have must never outlast what the row says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use application::ports::archive::ArchiveError;
use domain::id::UserId;
use sqlx::postgres::PgConnection;
use tokio::time::{Instant, sleep};

use crate::archive::PostgresArchive;
use crate::error::random_bits;
use crate::inbox::{Change, Changed};
use crate::queue::{Command, Job};

/// How long a turn lasts that nobody puts off.
const TURN: Duration = Duration::from_secs(10);
/// For how long one counts here after it was taken or put off.
const TRUSTED: Duration = Duration::from_secs(5);
/// How often those that are held are put off.
const RENEW_EVERY: Duration = Duration::from_secs(2);

/// Takes a turn that is free, over or this node's already.
const CLAIM: &str = "INSERT INTO letter_turns AS t (recipient, holder, until_ms) \
     VALUES ($1, $2, (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $3) \
     ON CONFLICT (recipient) DO UPDATE SET holder = excluded.holder, until_ms = excluded.until_ms \
     WHERE t.holder = excluded.holder \
     OR t.until_ms < (extract(epoch FROM clock_timestamp()) * 1000)::bigint";

const RENEW: &str = "UPDATE letter_turns \
     SET until_ms = (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $3 \
     WHERE recipient = ANY($1) AND holder = $2";

/// A change of a turn.
#[derive(Clone, Debug)]
pub(crate) enum Turning {
    Claim { user: UserId, holder: i64 },
    Renew { users: Vec<UserId>, holder: i64 },
    Release { user: UserId, holder: i64 },
}

impl Turning {
    /// How many users it names.
    pub(crate) fn users(&self) -> usize {
        match self {
            Self::Claim { .. } | Self::Release { .. } => 1,
            Self::Renew { users, .. } => users.len(),
        }
    }

    /// Part of a writer's transaction. Answers how many turns are this node's by it.
    pub(crate) async fn carry_out(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Changed, sqlx::Error> {
        let turn_ms = i64::try_from(TURN.as_millis()).unwrap_or(i64::MAX);
        let done = match self {
            Self::Claim { user, holder } => {
                sqlx::query(CLAIM).bind(user.as_str()).bind(holder).bind(turn_ms)
            }
            Self::Renew { users, holder } => {
                let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
                sqlx::query(RENEW).bind(users).bind(holder).bind(turn_ms)
            }
            Self::Release { user, holder } => {
                let delete = "DELETE FROM letter_turns WHERE recipient = $1 AND holder = $2";
                sqlx::query(delete).bind(user.as_str()).bind(holder)
            }
        };
        Ok(Changed(done.execute(connection).await?.rows_affected()))
    }
}

/// The turns that this node has.
pub(crate) struct Turns {
    archive: Arc<PostgresArchive>,
    /// This process; nobody else is called so.
    holder: i64,
    /// Since when each is known to be this node's. Held for a look or a change only.
    held: Mutex<BTreeMap<UserId, Instant>>,
}

impl Turns {
    /// Puts off what is held for as long as anybody has this.
    pub(crate) fn run(archive: &Arc<PostgresArchive>) -> Arc<Self> {
        let archive = Arc::clone(archive);
        let holder = random_bits().cast_signed();
        let this = Arc::new(Self { archive, holder, held: Mutex::default() });
        tokio::spawn(renew_all(Arc::downgrade(&this)));
        this
    }

    /// Whether this node has had the turn of a user just now.
    pub(crate) fn has(&self, user: &UserId) -> bool {
        self.held().get(user).is_some_and(|since| since.elapsed() < TRUSTED)
    }

    /// Takes the turn of a user; says whether it is this node's.
    pub(crate) async fn claim(&self, user: &UserId) -> Result<bool, ArchiveError> {
        let asked = Instant::now();
        let claim = Turning::Claim { user: user.clone(), holder: self.holder };
        let is_ours = self.change(claim).await? > 0;
        let mut held = self.held();
        if is_ours {
            held.insert(user.clone(), asked);
        } else {
            held.remove(user);
        }
        Ok(is_ours)
    }

    /// Gives a turn back without waiting for it. Where that can't be said the turn ends by itself.
    pub(crate) fn release(&self, user: &UserId) {
        if self.held().remove(user).is_none() {
            return;
        }
        let (job, _) = Job::new();
        let turning = Turning::Release { user: user.clone(), holder: self.holder };
        let change = Change::Turn(turning);
        if let Err(error) = self.archive.send(Command::Inbox { change, job }) {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "a turn to give letters ends by itself");
        }
    }

    async fn renew(&self) {
        let users: Vec<UserId> = self.held().keys().cloned().collect();
        if users.is_empty() {
            return;
        }
        let asked = Instant::now();
        let n_users = users.len() as u64;
        let renew = Turning::Renew { users: users.clone(), holder: self.holder };
        let renewed = self.change(renew).await;
        let mut held = self.held();
        for user in &users {
            // What was given back meanwhile is not held any more.
            let Some(since) = held.get_mut(user) else { continue };
            if renewed == Ok(n_users) {
                *since = asked.max(*since);
            } else if *since < asked {
                // Some are another's, or nobody knows: whoever goes on takes its turn anew.
                held.remove(user);
            }
        }
    }

    async fn change(&self, turning: Turning) -> Result<u64, ArchiveError> {
        let (job, answer) = Job::new();
        let change = Change::Turn(turning);
        self.archive.ask(Command::Inbox { change, job }, answer).await.map(|changed| changed.0)
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<UserId, Instant>> {
        // Every change is one step, so a poisoned map is still whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn renew_all(turns: Weak<Turns>) {
    loop {
        sleep(RENEW_EVERY).await;
        let Some(turns) = turns.upgrade() else { return };
        turns.renew().await;
    }
}
