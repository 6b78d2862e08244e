//! What a client can be told about itself. Every queue has its maximum here.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use domain::client::backoff::{Backoff, FullJitter};
use domain::client::life::LifeConfig;
use domain::client::{Settings, Token, TokenPlace};
use domain::id::ClientId;

use crate::tls::Authorities;
use crate::tokens::TokenSource;

/// How often a client that has made all its attempts would try again. It has ended by then.
const PROBE: Duration = Duration::from_secs(60);

/// Where a server listens that was started without any settings.
pub const DEFAULT_URL: &str = "ws://127.0.0.1:8000/ws/v2/connect";

/// Settings of one client; `Options::default()` talks to a server on this machine.
#[derive(Clone, Debug)]
pub struct Options {
    /// `ws://host:port/path`, or `wss://` for TLS. Without a path the protocol's own path is taken.
    pub url: String,
    /// Who the client is; none asks to stay anonymous.
    pub token: Option<Token>,
    /// Where tokens come from when one is needed; none makes do with `token`. With both, `token` is shown
    /// first. Each has four fifths of `connect_timeout` to come.
    pub tokens: Option<TokenSource>,
    /// How the token is shown to the server. It never stands in the URL, which ends up in logs.
    pub token_in: TokenPlace,
    /// Whose certificates are trusted for `wss://`.
    pub authorities: Authorities,
    /// A label to be recognised by over reconnects; it grants nothing. A client without a token that is given
    /// none draws one for its life: an anonymous publisher's message ids belong to its label.
    pub client_id: Option<ClientId>,
    /// From the beginning of an attempt to `hello`.
    pub connect_timeout: Duration,
    /// How long a request other than a publish waits for its answer.
    pub request_timeout: Duration,
    /// How long a publish is tried, reconnects included.
    pub publish_timeout: Duration,
    /// How many events wait for the application before the socket is no longer read.
    pub event_queue_max: usize,
    /// How many commands wait for the task before the application waits.
    pub command_queue_max: usize,
    /// How many publishes wait for their acknowledgement.
    pub outbox_max: usize,
    /// How many bytes they may have together.
    pub outbox_bytes_max: usize,
    /// The largest message that is taken from a server.
    pub message_bytes_max: usize,
    /// The size of the read buffer, which is there from the start, and of the write buffer.
    pub buffer_bytes: usize,
    /// When to come back after a loss.
    pub backoff: BackoffOptions,
    /// What jitter and message ids are drawn from.
    pub random: RandomSource,
}

impl Options {
    /// The defaults, for a server at `url`.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            token: None,
            tokens: None,
            token_in: TokenPlace::Header,
            authorities: Authorities::default(),
            client_id: None,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            publish_timeout: Duration::from_secs(60),
            event_queue_max: 1024,
            command_queue_max: 64,
            outbox_max: 1024,
            outbox_bytes_max: 32 << 20,
            message_bytes_max: 64 << 20,
            buffer_bytes: 16 << 10,
            backoff: BackoffOptions::default(),
            random: RandomSource::default(),
        }
    }

    /// The part that decisions need.
    pub(crate) fn settings(&self) -> Settings {
        let BackoffOptions { base, cap, attempts_max, stable_after } = self.backoff;
        Settings {
            token: self.token.clone(),
            brings_tokens: self.tokens.is_some(),
            token_in: self.token_in,
            request_timeout: self.request_timeout,
            outbox_max: self.outbox_max,
            outbox_bytes_max: self.outbox_bytes_max,
            life: LifeConfig {
                connect_timeout: self.connect_timeout,
                heartbeat: true,
                backoff: Backoff::FullJitter(FullJitter { base, cap, attempts_max }),
                stable_after,
                probe: PROBE,
            },
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new(DEFAULT_URL)
    }
}

/// Full-jitter exponential backoff: attempt `n`, from 0 on, waits between nothing and `base * 2^n`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BackoffOptions {
    /// The longest wait before the first attempt.
    pub base: Duration,
    /// The longest wait before any attempt.
    pub cap: Duration,
    /// How many attempts in a row may fail; none tries for ever, zero never comes back.
    pub attempts_max: Option<u32>,
    /// How long a connection must have stood before the next loss counts as the first.
    pub stable_after: Duration,
}

impl Default for BackoffOptions {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(200),
            cap: Duration::from_secs(20),
            attempts_max: None,
            stable_after: Duration::from_secs(20),
        }
    }
}

/// Where random numbers come from.
#[derive(Clone)]
pub struct RandomSource(Arc<dyn Fn() -> u64 + Send + Sync>);

impl RandomSource {
    /// Takes the numbers from `draw`, so that a test can say what comes.
    pub fn new(draw: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(draw))
    }

    pub(crate) fn draw(&self) -> u64 {
        (self.0)()
    }

    /// A number in [0, 1), of 32 bits.
    pub(crate) fn fraction(&self) -> f64 {
        let bits = u32::try_from(self.draw() >> 32).unwrap_or(u32::MAX);
        f64::from(bits) / (f64::from(u32::MAX) + 1.0)
    }
}

impl Default for RandomSource {
    /// The keys that the standard library hashes with, which it seeds from the operating system:
    /// enough for jitter and for ids that only have to differ.
    fn default() -> Self {
        Self::new(|| RandomState::new().hash_one(0u8))
    }
}

impl fmt::Debug for RandomSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RandomSource(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_client_does_not_show_its_token() {
        let options = Options { token: Some(Token::new("secret")), ..Options::default() };
        assert!(!format!("{options:?}").contains("secret"));
    }

    #[test]
    fn random_numbers_differ_from_draw_to_draw() {
        let random = RandomSource::default();
        assert_ne!(random.draw(), random.draw());
    }
}
