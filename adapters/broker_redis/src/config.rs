//! Where Redis is, and the limits of what is asked of it.
//!
//! An address or a password must never stand in an error or a log line.

use std::fmt;
use std::time::Duration;

use secrecy::SecretString;
use thiserror::Error;

use crate::servers::Servers;

/// Why a broker can't be made of these settings.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The address is none. Why is in words of the library, without the address.
    #[error("not an address of Redis: {0}")]
    Address(String),
    /// The certificate authority can't be read, or is of no use.
    #[error("the certificate authority: {0}")]
    Authority(String),
    /// What names begin with would break them.
    #[error("a prefix is 1 to 32 of a-z, A-Z, 0-9, _ - and .")]
    Prefix,
    /// A lease would run out while an answer is waited for.
    #[error("a lease must last three times as long as an answer may take, or longer")]
    Lease,
}

/// Settings of a [`RedisBroker`](crate::RedisBroker).
#[derive(Clone)]
pub struct Config {
    /// `redis://`, `rediss://` for TLS, or `redis+unix://`; `redis+sentinel://HOST:PORT,HOST:PORT/MASTER/DATABASE`,
    /// whose user and password are those of the servers that the sentinels name; `redis+cluster://HOST:PORT,HOST:PORT`,
    /// of which one that answers is enough.
    pub url: SecretString,
    /// Instead of the one in the address.
    pub password: Option<SecretString>,
    /// Who the sentinels are told that this is.
    pub sentinel_username: Option<String>,
    /// The password of the sentinels; none where they have none.
    pub sentinel_password: Option<SecretString>,
    /// The certificates that are trusted with TLS, as PEM, instead of those of the system.
    pub authority: Option<Vec<u8>>,
    /// How many replicas must have a message of a room whose policy asks for it.
    pub replicas: u32,
    /// How long they may take.
    pub replication_timeout: Duration,
    /// What the names of all keys and channels begin with. Nodes that share it are one server.
    pub prefix: String,
    /// How long a connection or an answer may take; what takes longer counts as away, and its
    /// connection is given up.
    pub answer_timeout: Duration,
    /// How often a connection that nobody uses is asked whether it is there.
    pub probe_interval: Duration,
    /// The longest pause between two attempts to connect.
    pub retry_pause_max: Duration,
    /// For how long at least a publish is known by its `msg_id`.
    pub dedup_window: Duration,
    /// The most publishes of one room that are known from half a window; with more, the oldest are
    /// forgotten sooner.
    pub dedup_entries_max: u32,
    /// How long a node that says nothing more counts as there, with all who are here over it. Others look for
    /// such nodes five times in this span.
    pub lease: Duration,
    /// For how long who has left is still shown, and can come back without having left; while a node parts with its
    /// connections for at least `lease`.
    pub leave_grace: Duration,
    /// For how long what is said of a room's members stays without being said again.
    pub presence_kept: Duration,
    /// The most mailboxes of one room: the number of shards.
    pub subscribers_max: usize,
    /// The most rooms with subscribers on this node, users' own among them.
    pub rooms_max: usize,
    /// The most calls that may wait for an answer; more wait for their turn.
    pub calls_max: usize,
}

impl Config {
    /// The settings of one server at this address: answers within 2 s, probes every 2 s, pauses of at
    /// most 1 s, leases of 7 s, one replica within 1 s, 10 minutes or three times 50,000 publishes of a room remembered, 256 mailboxes, 300,000
    /// rooms, 4,096 calls.
    #[must_use]
    pub fn new(url: SecretString) -> Self {
        Self {
            url,
            password: None,
            sentinel_username: None,
            sentinel_password: None,
            authority: None,
            replicas: 1,
            replication_timeout: Duration::from_secs(1),
            prefix: "roomkeeper".to_owned(),
            answer_timeout: Duration::from_secs(2),
            probe_interval: Duration::from_secs(2),
            retry_pause_max: Duration::from_secs(1),
            dedup_window: Duration::from_secs(600),
            dedup_entries_max: 50_000,
            lease: Duration::from_secs(7),
            leave_grace: Duration::from_secs(2),
            presence_kept: Duration::from_secs(24 * 60 * 60),
            subscribers_max: 256,
            rooms_max: 300_000,
            calls_max: 4_096,
        }
    }

    /// Checks the settings and reads the address; connects to nothing yet.
    pub(crate) fn servers(&self) -> Result<Servers, ConfigError> {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if self.prefix.is_empty() || self.prefix.len() > 32 || !self.prefix.bytes().all(is_plain) {
            return Err(ConfigError::Prefix);
        }
        if self.lease < 3 * self.answer_timeout {
            return Err(ConfigError::Lease);
        }
        Servers::parse(self)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_is_refused_without_repeating_it() {
        for text in ["", "127.0.0.1", "http://secret@host", "redis://:secret@host:notaport"] {
            let error = Config::new(text.into()).servers().err().unwrap();
            assert!(matches!(error, ConfigError::Address(_)), "{text}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert!(Config::new("redis://:secret@127.0.0.1:6379/3".into()).servers().is_ok());
        assert!(Config::new("rediss://host".into()).servers().is_ok());
    }

    #[test]
    fn a_prefix_that_would_break_names_is_refused() {
        for prefix in ["", "a b", "a{b", "a:b", &"x".repeat(33)] {
            let config =
                Config { prefix: prefix.to_owned(), ..Config::new("redis://127.0.0.1".into()) };
            assert!(matches!(config.servers(), Err(ConfigError::Prefix)), "{prefix}");
        }
    }

    #[test]
    fn settings_are_printed_without_the_address() {
        let config = Config::new("redis://:secret@127.0.0.1".into());
        assert!(!format!("{config:?}").contains("secret"));
    }
}
