//! Keys that an identity provider publishes: fetched by one task, kept by id, used until they are
//! too old.
//!
//! A token can only ask for a fetch, and only now and then; what it names never decides where keys
//! come from. When the provider is away, known keys count until `max_age` and unknown ones never.

use std::sync::Arc;
use std::time::Duration;

use application::ports::{KeySource, TokenError};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::compact::Header;
use crate::config::Algorithm;
use crate::jwk_set::read_set;
use crate::keys::KeySet;

/// The shortest time between two fetches that unknown key ids cause: 10,000 tokens with as many
/// ids cost as many fetches as one.
pub const UNKNOWN_KID_INTERVAL: Duration = Duration::from_secs(30);
/// How often keys are fetched while all is well, at the longest.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(300);
/// The pause after the first failure; doubled with each further one, up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(1);
/// The longest pause after failures.
pub const RETRY_MAX: Duration = Duration::from_secs(30);
/// How long a token waits for a fetch that may know its key. A fetch itself is bounded by its
/// source.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// What the last fetches gave.
#[derive(Clone, Debug, Default)]
struct State {
    keys: Option<Known>,
    /// How many fetches have ended, well or not.
    ended: u64,
    /// How many of them went wrong.
    failed: u64,
    /// When the last one ended, and whether it went well.
    last: Option<(Instant, bool)>,
    under_way: bool,
}

#[derive(Clone, Debug)]
struct Known {
    set: Arc<KeySet>,
    text: Arc<str>,
    fetched_at: Instant,
    /// Grows when the published text changes.
    generation: u64,
}

/// What operators want to know of published keys.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct KeyUsage {
    /// How many fetches have ended, well or not.
    pub fetches: u64,
    /// How many of them went wrong.
    pub failures: u64,
    /// How many keys count now.
    pub keys: usize,
    /// For how long they would count if no further fetch went well.
    pub left: Duration,
}

/// Keys of one source. [`RemoteKeys::run`] must be running for as long as they are used.
pub struct RemoteKeys {
    source: Arc<dyn KeySource>,
    algorithms: Vec<Algorithm>,
    max_age: Duration,
    state: watch::Sender<State>,
    wanted: Notify,
}

impl std::fmt::Debug for RemoteKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteKeys").field("algorithms", &self.algorithms).finish_non_exhaustive()
    }
}

impl RemoteKeys {
    /// Keys from `source` for these algorithms alone, which count for `max_age` after they were
    /// last fetched.
    #[must_use]
    pub fn new(
        source: Arc<dyn KeySource>,
        algorithms: Vec<Algorithm>,
        max_age: Duration,
    ) -> Arc<Self> {
        let (state, wanted) = (watch::Sender::default(), Notify::new());
        Arc::new(Self { source, algorithms, max_age, state, wanted })
    }

    /// Fetches at once, then from time to time, and when a token names a key that is not known.
    /// Never ends; there must be one at a time.
    pub async fn run(&self) {
        let mut failures = 0_u32;
        loop {
            failures = if self.fetch().await { 0 } else { failures.saturating_add(1) };
            self.pause(failures).await;
        }
    }

    /// Fetches once, for a process that lives no longer than a look at one token. Answers whether
    /// it went well.
    pub async fn fetch(&self) -> bool {
        self.state.send_modify(|state| state.under_way = true);
        let fetched = self.source.fetch().await;
        let read = match fetched {
            Ok(text) => match read_set(&text, &self.algorithms) {
                Ok((keys, n_passed_over)) => Ok((text, keys, n_passed_over)),
                Err(problem) => Err(problem.to_string()),
            },
            Err(error) => Err(error.to_string()),
        };
        let now = Instant::now();
        let well = read.is_ok();
        self.state.send_modify(|state| {
            state.under_way = false;
            state.ended += 1;
            state.failed += u64::from(!well);
            state.last = Some((now, well));
            match read {
                Ok((text, keys, n_passed_over)) => state.learn(&text, keys, n_passed_over, now),
                Err(reason) => {
                    let age = state.keys.as_ref().map(|keys| now - keys.fetched_at);
                    let left = age.map(|age| self.max_age.saturating_sub(age).as_secs());
                    tracing::warn!(
                        reason,
                        old_keys_count_for_seconds = left.unwrap_or(0),
                        "the token keys of auth.jwks_url could not be fetched"
                    );
                }
            }
        });
        well
    }

    async fn pause(&self, failures: u32) {
        let pause = match failures {
            0 => REFRESH_INTERVAL.min(self.max_age / 2),
            n => RETRY_MIN.saturating_mul(1 << (n - 1).min(10)).min(RETRY_MAX),
        };
        let due = Instant::now() + pause;
        let asked = Instant::now() + UNKNOWN_KID_INTERVAL;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(due) => return,
                // After a failure the pause is short as it is.
                () = self.wanted.notified(), if failures == 0 => {
                    // Asked for while a fetch was under way: that one has answered it.
                    if Instant::now() >= asked {
                        return;
                    }
                }
            }
        }
    }

    /// What is known about them now.
    #[must_use]
    pub fn usage(&self) -> KeyUsage {
        let state = self.state.borrow();
        let known = state.keys.as_ref().filter(|keys| keys.fetched_at.elapsed() <= self.max_age);
        KeyUsage {
            fetches: state.ended,
            failures: state.failed,
            keys: known.map_or(0, |known| known.set.len()),
            left: known.map_or(Duration::ZERO, |known| {
                self.max_age.saturating_sub(known.fetched_at.elapsed())
            }),
        }
    }

    /// The keys that count now, with their generation.
    pub(crate) fn current(&self) -> Option<(Arc<KeySet>, u64)> {
        let state = self.state.borrow();
        let known = state.keys.as_ref()?;
        (known.fetched_at.elapsed() <= self.max_age)
            .then(|| (Arc::clone(&known.set), known.generation))
    }

    /// The keys among which the header's is. Waits for a fetch where one may help, and asks for it
    /// where the last is long enough ago.
    pub(crate) async fn keys_for(&self, header: &Header) -> Result<(Arc<KeySet>, u64), TokenError> {
        let mut changes = self.state.subscribe();
        let ended = match self.look(header) {
            Look::Found(keys) => return Ok(keys),
            Look::Not(error) => return Err(error),
            Look::Wait { ended, asks } => {
                if asks {
                    self.wanted.notify_one();
                }
                ended
            }
        };
        let newer = changes.wait_for(|state| state.ended > ended);
        // Neither a timeout nor the end of the process is told apart from a failed fetch.
        let _ = tokio::time::timeout(WAIT_MAX, newer).await.map(|state| state.map(drop));
        match self.look(header) {
            Look::Found(keys) => Ok(keys),
            Look::Not(error) => Err(error),
            Look::Wait { .. } => Err(TokenError::KeysUnavailable),
        }
    }

    fn look(&self, header: &Header) -> Look {
        let current = self.current();
        let counts = current.is_some();
        if let Some(keys) = current.filter(|(keys, _)| keys.choose(header).is_ok()) {
            return Look::Found(keys);
        }
        let state = self.state.borrow();
        match state.last {
            _ if state.under_way => Look::Wait { ended: state.ended, asks: false },
            // The first fetch has not begun yet.
            None => Look::Wait { ended: state.ended, asks: false },
            Some((_, false)) => Look::Not(TokenError::KeysUnavailable),
            // Too old already although the last fetch went well: the next one is late.
            Some((_, true)) if !counts => Look::Not(TokenError::KeysUnavailable),
            Some((at, true)) if at.elapsed() >= UNKNOWN_KID_INTERVAL => {
                Look::Wait { ended: state.ended, asks: true }
            }
            Some((_, true)) => Look::Not(TokenError::UnknownKey),
        }
    }
}

enum Look {
    Found((Arc<KeySet>, u64)),
    Not(TokenError),
    Wait { ended: u64, asks: bool },
}

impl State {
    fn learn(&mut self, text: &str, keys: KeySet, n_passed_over: usize, now: Instant) {
        if let Some(known) = &mut self.keys
            && *known.text == *text
        {
            known.fetched_at = now;
            return;
        }
        let generation = self.keys.as_ref().map_or(0, |known| known.generation + 1);
        tracing::info!(keys = keys.len(), n_passed_over, "token keys fetched from auth.jwks_url");
        let (set, text) = (Arc::new(keys), Arc::from(text));
        self.keys = Some(Known { set, text, fetched_at: now, generation });
    }
}
