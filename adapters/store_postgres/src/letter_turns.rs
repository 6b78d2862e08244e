//! Whose turn it is, of the nodes that share letters, to give a user what waits.
//!
//! A turn is a row with an end, put off again and again while this node has it: of a node that is gone it is over soon.
//! What this node believes to have must never outlast what the row says, and a row that may be this node's must never be
//! left to its end by somebody who gives it back.

use std::collections::{BTreeMap, BTreeSet};
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

/// One of which no page was asked for that long is left to its end: nobody gives it back any more. Whoever takes a page is
/// faster, or closed.
const IDLE_MAX: Duration = Duration::from_secs(600);

/// Takes a turn that is free, over or this node's already.
const CLAIM: &str = "INSERT INTO letter_turns AS t (recipient, holder, until_ms) \
     VALUES ($1, $2, (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $3) \
     ON CONFLICT (recipient) DO UPDATE SET holder = excluded.holder, until_ms = excluded.until_ms \
     WHERE t.holder = excluded.holder \
     OR t.until_ms < (extract(epoch FROM clock_timestamp()) * 1000)::bigint";

const RENEW: &str = "UPDATE letter_turns \
     SET until_ms = (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $3 \
     WHERE recipient = ANY($1) AND holder = $2 RETURNING recipient";

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

    /// Part of a writer's transaction. Answers how many turns are this node's by it, and whose.
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
                let renew = sqlx::query_scalar(RENEW).bind(users).bind(holder).bind(turn_ms);
                let whose: Vec<String> = renew.fetch_all(connection).await?;
                return Ok(Changed { n: whose.len() as u64, whose: whose.into_iter().collect() });
            }
            Self::Release { user, holder } => {
                let delete = "DELETE FROM letter_turns WHERE recipient = $1 AND holder = $2";
                sqlx::query(delete).bind(user.as_str()).bind(holder)
            }
        };
        Ok(done.execute(connection).await?.rows_affected().into())
    }
}

/// What this node knows of one turn.
#[derive(Debug)]
struct Turn {
    /// Since when it is known to be this node's; none where nobody knows.
    since: Option<Instant>,
    /// When a page was asked for.
    used: Instant,
}

/// The turns that are or may be this node's.
#[derive(Debug, Default)]
struct Held(BTreeMap<UserId, Turn>);

impl Held {
    /// Whether a turn has been this node's just now, for somebody who uses it.
    fn has(&mut self, user: &UserId, now: Instant) -> bool {
        let Some(turn) = self.0.get_mut(user) else { return false };
        turn.used = now;
        turn.since.is_some_and(|since| now.duration_since(since) < TRUSTED)
    }

    /// It is asked for.
    fn ask(&mut self, user: &UserId, now: Instant) {
        self.0.entry(user.clone()).or_insert(Turn { since: None, used: now }).used = now;
    }

    /// What was asked for then was answered, unless nobody knows. Says whether this node has it: it may have been given
    /// back meanwhile.
    fn answered(&mut self, user: &UserId, asked: Instant, is_ours: bool) -> bool {
        if !is_ours {
            self.0.remove(user);
            return false;
        }
        let Some(turn) = self.0.get_mut(user) else { return false };
        turn.since = Some(asked);
        true
    }

    /// Those that are to be put off; of the others nobody knows any more.
    fn in_use(&mut self, now: Instant) -> Vec<UserId> {
        self.0.retain(|_, turn| now.duration_since(turn.used) < IDLE_MAX);
        self.0.keys().cloned().collect()
    }

    /// Of all that were to be put off then these are this node's. What was given back meanwhile is not held any more.
    fn renewed(&mut self, users: &[UserId], asked: Instant, ours: &BTreeSet<String>) {
        for user in users {
            let Some(turn) = self.0.get_mut(user) else { continue };
            let is_newer = turn.since.is_some_and(|since| since >= asked);
            if ours.contains(user.as_str()) {
                turn.since = turn.since.max(Some(asked));
            } else if !is_newer {
                self.0.remove(user);
            }
        }
    }
}

/// The turns that this node has.
pub(crate) struct Turns {
    archive: Arc<PostgresArchive>,
    /// This process; nobody else is called so.
    holder: i64,
    /// Held for a look or a change only.
    held: Mutex<Held>,
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

    /// Whether this node has had the turn of a user just now; whoever asks goes on with it.
    pub(crate) fn has(&self, user: &UserId) -> bool {
        self.held().has(user, Instant::now())
    }

    /// Takes the turn of a user; says whether it is this node's.
    pub(crate) async fn claim(&self, user: &UserId) -> Result<bool, ArchiveError> {
        let asked = Instant::now();
        // Before it is known: whoever goes meanwhile gives it back behind this.
        self.held().ask(user, asked);
        let claim = Turning::Claim { user: user.clone(), holder: self.holder };
        let is_ours = self.change(claim).await?.n > 0;
        Ok(self.held().answered(user, asked, is_ours))
    }

    /// Gives a turn back without waiting for it. Where that can't be said the turn ends by itself.
    pub(crate) fn release(&self, user: &UserId) {
        if self.held().0.remove(user).is_none() {
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
        let asked = Instant::now();
        let users = self.held().in_use(asked);
        if users.is_empty() {
            return;
        }
        let renew = Turning::Renew { users: users.clone(), holder: self.holder };
        // Where it is not known whose they are none is trusted for long: whoever goes on takes its turn anew, and gives
        // it back all the same.
        if let Ok(renewed) = self.change(renew).await {
            self.held().renewed(&users, asked, &renewed.whose);
        }
    }

    async fn change(&self, turning: Turning) -> Result<Changed, ArchiveError> {
        let (job, answer) = Job::new();
        let change = Change::Turn(turning);
        self.archive.ask(Command::Inbox { change, job }, answer).await
    }

    fn held(&self) -> MutexGuard<'_, Held> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> [UserId; 3] {
        ["ann", "bob", "carl"].map(|name| UserId::parse(name).unwrap())
    }

    fn names(users: &[&UserId]) -> BTreeSet<String> {
        users.iter().map(|user| user.to_string()).collect()
    }

    #[test]
    fn one_that_is_given_back_while_all_are_put_off_costs_nobody_else_its_turn() {
        let (mut held, now, [ann, bob, carl]) = (Held::default(), Instant::now(), users());
        for user in [&ann, &bob, &carl] {
            held.ask(user, now);
            assert!(!held.has(user, now) && held.answered(user, now, true) && held.has(user, now));
        }
        let asked = now + RENEW_EVERY;
        let all = held.in_use(asked);
        held.0.remove(&bob);
        // Somebody else has taken what was over.
        held.renewed(&all, asked, &names(&[&ann]));
        let later = now + TRUSTED + Duration::from_secs(1);
        assert!(held.has(&ann, later) && !held.has(&carl, later));
        assert_eq!(held.0.keys().collect::<Vec<_>>(), [&ann]);
        // One that was taken anew meanwhile is not lost with the old one.
        held.ask(&carl, later);
        assert!(held.answered(&carl, later, true));
        held.renewed(&[ann, carl.clone()], asked, &BTreeSet::new());
        assert!(held.has(&carl, later));
    }

    #[test]
    fn what_is_not_known_to_be_held_is_not_used_and_is_given_back_all_the_same() {
        let (mut held, now, [ann, bob, _]) = (Held::default(), Instant::now(), users());
        held.ask(&ann, now);
        // Neither a claim without an answer nor a turn that could not be put off.
        assert!(!held.has(&ann, now));
        held.ask(&bob, now);
        assert!(held.answered(&bob, now, true));
        assert!(!held.has(&bob, now + TRUSTED));
        assert!(held.0.remove(&ann).is_some() && held.0.remove(&bob).is_some());
        // Given back before the answer came.
        assert!(!held.answered(&ann, now, true) && !held.has(&ann, now));
    }

    #[test]
    fn a_turn_that_nobody_uses_any_more_is_left_to_its_end() {
        let (mut held, now, [ann, bob, _]) = (Held::default(), Instant::now(), users());
        for user in [&ann, &bob] {
            held.ask(user, now);
            assert!(held.answered(user, now, true));
        }
        let later = now + IDLE_MAX;
        let _ = held.has(&bob, later - Duration::from_secs(1));
        assert_eq!(held.in_use(later), [bob]);
    }
}
