//! From settings to parts: one function per part.
//!
//! No setting may be read anywhere behind this file.

use std::sync::Arc;
use std::time::Duration;

use application::built_in::{BuiltIn, LobbySettings, MessageLog, RateLimit, RateLimitConfig};
use application::client_address::{ForwardedHeader, Network, TrustedProxies};
use application::extensions::handlers::HandlerRegistry;
use application::extensions::middleware::MiddlewareChain;
use application::limits::Limits;
use application::node::Node;
use application::origin::{Origin, OriginPolicy};
use application::ports::{Clock, LetterLimits};
use application::services::{Ports, Rules};
use domain::documents::told::Endpoint;
use domain::drain::DrainMode;
use domain::id::{ClientId, Role};
use domain::matches::ConnectionsMax;
use domain::principal::RoomPattern;
use domain::rate_limit::Rate;
use domain::scope::KeyRights;
use gateway_axum::ApiKey;
use secrecy::ExposeSecret;
use tickets_hmac::HmacTickets;
use tls_rustls::{Acceptor, MinVersion};
use worker_tokio::{SystemClock, SystemEntropy};

use super::certificates::Certificates;
use super::rooms::Rooms;
use super::storage::Remembered;
use super::{ServeError, part};
use crate::descriptors::Descriptors;
use crate::exit::Exit;
use crate::memory::{Budgets, MemoryLimit};
use crate::settings::checks::OUTBOUND_TOTAL_BYTES_MAX;
use crate::settings::documents::type_and_rate;
use crate::settings::schema::endpoint;
use crate::settings::secrets::TokenSecret;
use crate::settings::tickets::{TicketSecrets, judged_by, lifetime, ticket_secrets};
use crate::settings::tls::identity;
use crate::settings::tokens::{Lasting, verifier};
use crate::settings::{Profile, Settings, to_policies};

/// Between two looks at what a broker that is elsewhere has not answered.
const HOLE_RETRY: Duration = Duration::from_secs(1);

/// The memory that there may be, and what of it may be used for what.
#[must_use]
pub fn memory(settings: &Settings) -> (Option<MemoryLimit>, Budgets) {
    let limit = MemoryLimit::find(settings.server.memory_bytes_max);
    let budgets = budgets(limit.as_ref(), n_workers(settings));
    (limit, budgets)
}

fn budgets(limit: Option<&MemoryLimit>, n_workers: usize) -> Budgets {
    let broker = broker_memory::Config::default();
    let most = Budgets {
        outbound_bytes: OUTBOUND_TOTAL_BYTES_MAX,
        mailbox_bytes: Limits::MAILBOX_BYTES_MAX,
        log_bytes: broker.log_bytes_max,
        commit_bytes: broker.commit_bytes_max,
        dedup_entries: broker.dedup_entries_max,
        n_workers,
    };
    Budgets::of(limit, &most)
}

/// The adapters that the settings ask for, and what of them outlives a reload.
///
/// # Errors
/// [`ServeError`] when a key or a secret can't be had.
pub fn ports(
    settings: &Settings,
    secret: &TokenSecret,
    rooms: &Rooms,
    clock: &Arc<SystemClock>,
    remembered: Remembered,
) -> Result<(Ports, Lasting), ServeError> {
    let (verifier, lasting) = verifier(settings, secret.secret())
        .map_err(|reason| ServeError::Part(reason, Exit::Settings))?;
    let secrets = ticket_secrets(settings).map_err(|e| part(&e, Exit::of_io(&e)))?;
    if let TicketSecrets::OfThisProcess(_, why) = &secrets {
        tracing::info!("session tickets end with this process: no secret is configured, and {why}");
    }
    let tickets = HmacTickets::build(secrets.secrets(), &judged_by(settings), lifetime(settings))
        .map_err(|e| part(&e, Exit::Settings))?;
    let ports = Ports {
        broker: rooms.broker(),
        presence: rooms.presence(),
        token_verifier: Arc::new(verifier),
        session_tickets: Arc::new(tickets),
        // Token and policy decide.
        authorizer: None,
        revocations: remembered.revocations,
        spent_tokens: remembered.spent_tokens,
        inbox: Some(remembered.inbox),
        moderation: Some(remembered.moderation),
        erasure: Some(rooms.erasure()),
        matches: remembered.matches,
        seats: rooms.seats(),
        peers: rooms.peers(),
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        entropy: Arc::new(SystemEntropy::default()),
    };
    Ok((ports, lasting))
}

/// One worker per core that this process may use.
#[must_use]
pub fn n_workers(settings: &Settings) -> usize {
    match settings.server.workers {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        n => n,
    }
}

/// How a worker treats its sockets.
#[must_use]
pub fn worker(settings: &Settings, budgets: &Budgets) -> worker_tokio::Config {
    let server = &settings.server;
    worker_tokio::Config {
        close_timeout: Duration::from_millis(server.close_timeout_ms),
        message_timeout: Duration::from_millis(server.message_timeout_ms),
        lag_max: Duration::from_millis(server.lag_timeout_ms),
        outbound_total_bytes_max: budgets.outbound_bytes / budgets.n_workers.max(1),
        ..worker_tokio::Config::default()
    }
}

/// The node, with as many shards as there are to be workers.
#[must_use]
pub fn node(settings: &Settings, ports: Ports, budgets: &Budgets) -> Node {
    let mut rules = rules(settings, &ports.clock);
    rules.limits.mailbox_bytes_max = budgets.mailbox_bytes;
    Node::build(ports, rules, budgets.n_workers)
}

/// The rules of the node, whose clock this is.
#[must_use]
pub fn rules(settings: &Settings, clock: &Arc<dyn Clock>) -> Rules {
    let limits = &settings.limits;
    let limits = Limits {
        message_bytes_max: limits.message_bytes_max,
        fragments_max: limits.fragments_max,
        rooms_per_connection_max: limits.rooms_per_connection_max as usize,
        outbound_queue_bytes_max: limits.outbound_queue_bytes_max,
        inbox_messages_max: limits.inbox_commands_max,
        inbox_bytes_max: limits.inbox_bytes_max,
        held_bytes_max: limits.held_bytes_max,
        page_messages_max: limits.history_page,
        history_messages_max: limits.history_page_max,
        metadata_bytes_max: limits.metadata_bytes_max,
        presence_list_max: limits.presence_list_max as usize,
        filters_per_room_max: limits.filters_per_room_max,
        patterns_per_connection_max: limits.patterns_per_connection_max,
        patterns_max: limits.patterns_max,
        connections_per_user_max: limits.connections_per_user_max,
        letters: LetterLimits {
            of_user: settings.chat.letters_per_user_max,
            of_pair: settings.chat.letters_per_pair_max,
            of_sender: settings.chat.letters_per_sender_max,
            of_all: settings.chat.letters_max,
        },
        commands: Rate::new(limits.commands_per_second, limits.commands_burst),
        presence_updates: Rate::new(
            limits.presence_updates_per_second,
            limits.presence_updates_burst,
        ),
        bad_tokens_of_address: of_addresses(settings, limits.bad_tokens_per_address_per_minute),
        commands_of_user: Rate::new(
            limits.commands_of_user_per_second,
            limits.commands_of_user_burst,
        ),
        unparsable: Rate::per_minute(limits.unparsable_per_minute_max),
        // That nothing was lost on the way from there the broker finds out itself.
        hole_retry: settings.redis.url.is_some().then_some(HOLE_RETRY),
        ..Limits::default()
    };
    let (timing, channel_timing) = super::timing::timings(settings);
    let (middleware, handlers) = (middleware(settings, clock), handlers(settings));
    Rules {
        policies: to_policies(settings),
        limits,
        timing,
        channel_timing,
        middleware,
        handlers,
        allow_anonymous: settings.auth.allow_anonymous,
        join_user_room: settings.auth.join_user_room,
        single_session: settings.auth.single_session == "newest_wins",
        drain_mode: drain_mode(settings),
        explains_denials: settings.profile == Profile::Development,
        // What is no such number was refused when the settings were loaded.
        match_connections_max: ConnectionsMax::new(
            settings.matches.connections_per_match_max.into(),
        )
        .unwrap_or_default(),
        ..Rules::default()
    }
}

/// A limit by address, where addresses mean something: behind a proxy that is not named, one is
/// everybody's.
fn of_addresses(settings: &Settings, per_minute: u32) -> Rate {
    let is_known = !settings.server.behind_proxy || !settings.server.trusted_proxies.is_empty();
    Rate::per_minute(if is_known { per_minute } else { 0 })
}

/// How a server that stops parts with its clients: where Redis is, other nodes are.
pub(super) fn drain_mode(settings: &Settings) -> DrainMode {
    match settings.server.drain_mode.as_str() {
        "paced" => DrainMode::Paced,
        "early" => DrainMode::Early,
        _ if settings.redis.url.is_some() => DrainMode::Paced,
        _ => DrainMode::Early,
    }
}

/// What the settings want asked before anything is done. The log comes first, so that it tells of what
/// is refused, too.
fn middleware(settings: &Settings, clock: &Arc<dyn Clock>) -> MiddlewareChain {
    let messages = &settings.messages;
    let mut middleware = MiddlewareChain::default();
    if messages.log {
        middleware.push(Arc::new(MessageLog::of_all()));
    } else if settings.lobby.verbose_logging {
        middleware.push(Arc::new(MessageLog::new(&[Endpoint::Lobby])));
    }
    if messages.rate_limit_enabled {
        // What is no such pair was refused when the settings were loaded.
        let of_types = messages.requests_of_type_per_minute.iter();
        let of_types = of_types.filter_map(|text| type_and_rate(text));
        let config = RateLimitConfig {
            enabled: true,
            requests_per_minute: messages.requests_per_minute,
            of_types: of_types.map(|(kind, rate)| (kind.to_owned(), rate)).collect(),
        };
        middleware.push(Arc::new(RateLimit::new(config, Arc::clone(clock))));
    }
    middleware
}

/// The handlers of the documents' endpoints.
fn handlers(settings: &Settings) -> HandlerRegistry {
    // What is no role was refused when the settings were loaded.
    let roles = |words: &[String]| -> Arc<[Role]> {
        words.iter().filter_map(|word| Role::parse(word).ok()).collect()
    };
    let lobby = &settings.lobby;
    let built_in = BuiltIn {
        lobby: LobbySettings {
            echo_to_sender: lobby.echo_to_sender,
            announcer_roles: roles(&lobby.announcer_roles),
            private_messages: settings.chat.private_messages,
        },
        private_messages: settings.chat.private_messages,
        event_roles: roles(&settings.game.event_roles),
        moderator_roles: roles(&settings.chat.moderator_roles),
    };
    let mut handlers = HandlerRegistry::default();
    if let Err(error) = built_in.register(&mut handlers) {
        unreachable!("the built-in handlers have different types: {error}");
    }
    handlers
}

pub(super) fn gateway(settings: &Settings, descriptors: Descriptors) -> gateway_axum::Config {
    let server = &settings.server;
    let keys = settings.api.keys.iter().filter_map(|(name, key)| {
        let secret = key.key.as_ref()?.expose_secret();
        // What is no pattern was refused when the settings were loaded.
        let rooms = key.rooms.iter().filter_map(|text| RoomPattern::parse(text).ok()).collect();
        let rights = KeyRights::new(&key.scopes(), rooms);
        Some(ApiKey::new(ClientId::parse(name).ok()?, secret, rights))
    });
    gateway_axum::Config {
        handshake_timeout: Duration::from_millis(server.handshake_timeout_ms),
        connections_max: descriptors.connections_that_fit(server.connections_max) as usize,
        origins: origins(settings),
        echo_endpoint: server.echo_endpoint,
        client_endpoint: server.client_endpoint,
        endpoints: server.endpoints.iter().filter_map(|word| endpoint(word)).collect(),
        api_keys: keys.collect(),
        publish_bytes_max: settings.api.publish_bytes_max,
        batch_bytes_max: settings.api.batch_bytes_max,
        api_rate: Rate::new(settings.api.operations_per_second, settings.api.operations_burst),
        internal_address: None,
        exposition: None,
        backend: None,
        store: None,
        metrics_need_key: settings.profile == Profile::Production,
        tls: None,
        trusted_proxies: trusted_proxies(settings),
        connections_per_address_max: settings.limits.connections_per_address_max,
        short_visits_of_address: of_addresses(
            settings,
            settings.limits.short_connections_per_address_per_minute,
        ),
    }
}

fn trusted_proxies(settings: &Settings) -> TrustedProxies {
    let server = &settings.server;
    // What is no network was refused when the settings were loaded.
    let networks = server.trusted_proxies.iter().filter_map(|text| Network::parse(text).ok());
    let header = match server.proxy_header.as_str() {
        "forwarded" => ForwardedHeader::Forwarded,
        _ => ForwardedHeader::XForwardedFor,
    };
    TrustedProxies { networks: networks.collect(), header }
}

/// The certificate that TLS sessions begin with; none where TLS is not spoken.
pub(super) fn certificates(settings: &Settings) -> Result<Option<Certificates>, ServeError> {
    let tls = &settings.server.tls;
    let Some(files) = tls.files() else { return Ok(None) };
    let Some(identity) = identity(settings).map_err(|e| part(&e, Exit::Settings))? else {
        return Ok(None);
    };
    let min_version = match tls.min_version.as_str() {
        "1.3" => MinVersion::Tls13,
        _ => MinVersion::Tls12,
    };
    let acceptor = Acceptor::build(identity.clone(), min_version);
    let acceptor = acceptor.map_err(|e| part(&e, Exit::Failure))?;
    Ok(Some(Certificates::new(acceptor, identity, files)))
}

/// Which pages may connect.
#[must_use]
pub fn origins(settings: &Settings) -> OriginPolicy {
    let server = &settings.server;
    let allowed = &server.allowed_origins;
    OriginPolicy {
        // What is no origin was refused when the settings were loaded; `*` is no origin either.
        allowed: allowed.iter().filter_map(|text| Origin::parse(text).ok()).collect(),
        any: allowed.iter().any(|text| text == "*"),
        any_loopback: settings.profile != Profile::Production,
        required: server.require_origin,
    }
}
