//! The settings as values of their types.
//!
//! Built only by loading; nothing here has a default of its own, so that `defaults.toml` is the
//! only place that knows one.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use domain::scope::Scope;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};

use super::documents::{Channels, Chat, Game, Lobby, Messages};
use super::namespaces::Namespace;
use super::redis::Redis;
use super::store::Store;

/// Which set of values lies over the defaults.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// A machine of one's own.
    Development,
    /// A network.
    Production,
    /// Tests and load tests.
    Testing,
}

impl Profile {
    /// All profiles.
    pub const ALL: [Self; 3] = [Self::Development, Self::Production, Self::Testing];

    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Production => "production",
            Self::Testing => "testing",
        }
    }

    /// Reads its word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.word() == word)
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// All settings. `docs/configuration.md` describes each.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Which set of values lies over the defaults.
    pub profile: Profile,
    /// The node as a whole.
    pub server: Server,
    /// What one client may use.
    pub limits: Limits,
    /// Signs of life.
    pub heartbeat: Heartbeat,
    /// Signs of life on the endpoints of the channels.
    pub channels: Channels,
    /// What is asked for each message.
    pub messages: Messages,
    /// The endpoint `/ws`.
    pub lobby: Lobby,
    /// The endpoint `/ws/chat`.
    pub chat: Chat,
    /// The endpoint `/ws/game`.
    pub game: Game,
    /// Tokens.
    pub auth: Auth,
    /// The HTTP interface for servers.
    pub api: Api,
    /// Matches.
    pub matches: Matches,
    /// What a log keeps where its namespace says nothing else.
    pub history: History,
    /// The namespaces by name.
    pub namespaces: BTreeMap<String, Namespace>,
    /// The rooms that differ from their namespace, by name.
    pub rooms: BTreeMap<String, Namespace>,
    /// The log.
    pub log: Log,
    /// Traces.
    pub traces: Traces,
    /// Several nodes.
    pub redis: Redis,
    /// What lasts.
    pub store: Store,
}

/// The node as a whole.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// `ADDRESS:PORT` or `HOST:PORT`; port 0 picks a free one.
    pub listen: String,
    /// Where the server API and the metrics are served instead; none serves them at `listen`.
    #[serde(deserialize_with = "text_or_none")]
    pub internal_listen: Option<String>,
    /// Threads that serve connections; 0 means one per core.
    pub workers: usize,
    /// The most connections at one time.
    pub connections_max: u32,
    /// The most memory; 0 means what the cgroup allows.
    pub memory_bytes_max: u64,
    /// From connecting to the end of the upgrade request.
    pub handshake_timeout_ms: u64,
    /// From a message's first byte to its last.
    pub message_timeout_ms: u64,
    /// How long what waits for a client may not run empty.
    pub lag_timeout_ms: u64,
    /// From the close frame to the end of the socket.
    pub close_timeout_ms: u64,
    /// How long a stopping server spreads its closes.
    pub drain_window_ms: u64,
    /// `auto`, `early` or `paced`.
    pub drain_mode: String,
    /// `scheme://host[:port]`, or `*` for all.
    pub allowed_origins: Vec<String>,
    /// Whether a client without an `Origin` header is refused.
    pub require_origin: bool,
    /// Whether the echo endpoint is served.
    pub echo_endpoint: bool,
    /// Whether `/ws/client` is served.
    pub client_endpoint: bool,
    /// The endpoints of the documents that are served.
    pub endpoints: Vec<String>,
    /// Where files are kept; none keeps nothing on disk.
    #[serde(deserialize_with = "path_or_none")]
    pub data_dir: Option<PathBuf>,
    /// Whether a proxy that ends TLS stands in front.
    pub behind_proxy: bool,
    /// Addresses and networks of proxies that are believed.
    pub trusted_proxies: Vec<String>,
    /// The header that they keep, in lower case.
    pub proxy_header: String,
    /// TLS on the address of `listen`.
    pub tls: Tls,
}

/// TLS. Either both files are set or none.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The file with the certificate and those of its issuers.
    #[serde(deserialize_with = "path_or_none")]
    pub cert_file: Option<PathBuf>,
    /// The file with its key.
    #[serde(deserialize_with = "path_or_none")]
    pub key_file: Option<PathBuf>,
    /// The oldest version that is spoken.
    pub min_version: String,
}

impl Tls {
    /// Both files, where TLS is spoken.
    #[must_use]
    pub fn files(&self) -> Option<(&Path, &Path)> {
        Some((self.cert_file.as_deref()?, self.key_file.as_deref()?))
    }
}

impl Server {
    /// Whether `listen` is reachable from this machine only.
    #[must_use]
    pub fn listens_on_loopback(&self) -> bool {
        match self.listen.parse::<SocketAddr>() {
            Ok(address) => address.ip().is_loopback(),
            Err(_) => self.listen.rsplit_once(':').is_some_and(|(host, _)| host == "localhost"),
        }
    }
}

/// What one client may use.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The largest message.
    pub message_bytes_max: usize,
    /// The most fragments of one message.
    pub fragments_max: u32,
    /// The most rooms of one connection.
    pub rooms_per_connection_max: u32,
    /// The most bytes that wait for a slow client.
    pub outbound_queue_bytes_max: usize,
    /// The most commands of one connection that wait.
    pub inbox_commands_max: usize,
    /// The most bytes of commands of one connection that wait.
    pub inbox_bytes_max: usize,
    /// The most bytes held for a connection while it joins a room.
    pub held_bytes_max: usize,
    /// The messages in a page of history when none are named.
    pub history_page: u32,
    /// The most messages in a page of history.
    pub history_page_max: u32,
    /// The most members in one presence list.
    pub presence_list_max: u32,
    /// The most connections of one user.
    pub connections_per_user_max: u32,
    /// The most connections of one client address; 0 means no limit.
    pub connections_per_address_max: u32,
    /// WebSockets of one client address that end at once, in a minute; 0 means no limit.
    pub short_connections_per_address_per_minute: u32,
    /// Commands of one connection per second; 0 means no limit.
    pub commands_per_second: u32,
    /// Commands of one connection at once.
    pub commands_burst: u32,
    /// Changes of presence data of one connection per second; 0 means no limit.
    pub presence_updates_per_second: u32,
    /// Changes of presence data of one connection at once.
    pub presence_updates_burst: u32,
    /// Tokens and tickets of one address that are none, in a minute; 0 means no limit.
    pub bad_tokens_per_address_per_minute: u32,
    /// Commands of all connections of one user in a second; 0 means no limit.
    pub commands_of_user_per_second: u32,
    /// Commands of all connections of one user at once.
    pub commands_of_user_burst: u32,
    /// The most unparsable frames in a minute.
    pub unparsable_per_minute_max: u32,
    /// The largest presence data of one member.
    pub metadata_bytes_max: usize,
    /// The most different filters of one room on one worker.
    pub filters_per_room_max: usize,
    /// The most patterns that one connection follows.
    pub patterns_per_connection_max: usize,
    /// The most different patterns, counted once per worker.
    pub patterns_max: usize,
}

/// Signs of life.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// After this long with nothing sent or nothing heard the server pings.
    pub interval_ms: u64,
    /// After this long with nothing heard it closes; 0 means twice the interval.
    pub timeout_ms: u64,
    /// After this long without a command it closes as idle, however alive it is; 0 never does.
    pub idle_timeout_ms: u64,
}

impl Heartbeat {
    /// The silence after which a connection is closed, in milliseconds.
    #[must_use]
    pub const fn silence_max_ms(&self) -> u64 {
        match self.timeout_ms {
            0 => self.interval_ms.saturating_mul(2),
            ms => ms,
        }
    }
}

/// Tokens.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// From the upgrade to a valid `connect`.
    pub authentication_timeout_ms: u64,
    /// The secret that signs tokens; once loaded, also when it stands in `hmac_secret_file`.
    #[serde(deserialize_with = "secret_or_none")]
    pub hmac_secret: Option<SecretString>,
    /// The file that holds the secret.
    #[serde(deserialize_with = "path_or_none")]
    pub hmac_secret_file: Option<PathBuf>,
    /// The file with public keys.
    #[serde(deserialize_with = "path_or_none")]
    pub keys_file: Option<PathBuf>,
    /// The algorithms that go with `hmac_secret`.
    pub algorithms: Vec<String>,
    /// Where the provider of the tokens publishes its keys.
    #[serde(deserialize_with = "text_or_none")]
    pub jwks_url: Option<String>,
    /// The algorithms that go with the published keys.
    pub jwks_algorithms: Vec<String>,
    /// How long published keys count after they were last fetched.
    pub jwks_max_age_ms: u64,
    /// The `iss` that a token must carry.
    #[serde(deserialize_with = "text_or_none")]
    pub issuer: Option<String>,
    /// The `aud` that a token must carry.
    #[serde(deserialize_with = "text_or_none")]
    pub audience: Option<String>,
    /// The secrets that sign tickets, separated by white space; once loaded, also when they stand
    /// in `ticket_secret_file`.
    #[serde(deserialize_with = "secret_or_none")]
    pub ticket_secret: Option<SecretString>,
    /// The file that holds them.
    #[serde(deserialize_with = "path_or_none")]
    pub ticket_secret_file: Option<PathBuf>,
    /// How long a ticket counts at most.
    pub ticket_lifetime_ms: u64,
    /// How far clocks may differ.
    pub leeway_ms: u64,
    /// How long before its token's end a client is told.
    pub expiry_notice_ms: u64,
    /// Whether a connection without a token is let in.
    pub allow_anonymous: bool,
    /// Whether a user is in the room of its own without asking.
    pub join_user_room: bool,
    /// Whether a user has one connection only: `off`, or `newest_wins`.
    pub single_session: String,
    /// The most verified tokens that are remembered.
    pub token_cache_max: usize,
    /// How long each is remembered.
    pub token_cache_age_ms: u64,
    /// How long a revocation is remembered.
    pub revocation_age_ms: u64,
}

/// The HTTP interface for servers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// The largest body of a publish.
    pub publish_bytes_max: usize,
    /// The largest body of a batch.
    pub batch_bytes_max: usize,
    /// Per key, in the long run; 0 means no limit.
    pub operations_per_second: u32,
    /// Per key, at once.
    pub operations_burst: u32,
    /// The keys by name.
    #[serde(default)]
    pub keys: BTreeMap<String, ApiKey>,
}

/// A key of the HTTP interface.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// The key; once loaded always there, also when it stands in `key_file`.
    #[serde(default, deserialize_with = "secret_or_none")]
    pub key: Option<SecretString>,
    /// The file that holds the key.
    #[serde(default, deserialize_with = "path_or_none")]
    pub key_file: Option<PathBuf>,
    /// What it allows; none is what [`DEFAULT_SCOPES`] says.
    #[serde(default)]
    pub scopes: Option<Vec<String>>,
    /// The rooms and patterns that it is limited to; none means every room.
    #[serde(default)]
    pub rooms: Vec<String>,
}

/// What a key allows that says nothing of it: the one thing that keys are made for most often, and
/// nothing that shows or ends anything of others.
pub const DEFAULT_SCOPES: &[Scope] = &[Scope::Publish];

impl ApiKey {
    /// What it allows. Words and patterns were checked when they were read.
    #[must_use]
    pub fn scopes(&self) -> Vec<Scope> {
        match &self.scopes {
            None => DEFAULT_SCOPES.to_vec(),
            Some(words) => words.iter().filter_map(|word| Scope::parse(word)).collect(),
        }
    }
}

/// Matches.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matches {
    /// The most that are kept.
    pub matches_max: usize,
    /// How long one is kept after it has ended.
    pub retention_ms: u64,
    /// The most connections of one that names no number of its own.
    pub connections_per_match_max: u32,
}

/// What a log keeps where its namespace says nothing else.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// The most messages; 0 keeps none.
    pub messages_max: u32,
    /// The oldest age.
    pub age_max_ms: u64,
    /// The most bytes of data.
    pub bytes_max: u64,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// The log.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// A level, or levels by part.
    pub filter: String,
    /// How it is written.
    pub format: LogFormat,
    /// The file of the security log; none writes it where everything else goes.
    #[serde(deserialize_with = "path_or_none")]
    pub security_file: Option<PathBuf>,
}

/// Traces.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traces {
    /// The collector's address; none takes no traces.
    #[serde(deserialize_with = "text_or_none")]
    pub endpoint: Option<String>,
    /// How many of a million commands are sampled that come without a trace.
    pub sampled_per_million: u32,
}

pub(super) fn text_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(Some(String::deserialize(from)?).filter(|text| !text.is_empty()))
}

pub(super) fn path_or_none<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<PathBuf>, D::Error> {
    Ok(text_or_none(from)?.map(PathBuf::from))
}

pub(super) fn secret_or_none<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<SecretString>, D::Error> {
    Ok(text_or_none(from)?.map(SecretString::from))
}
