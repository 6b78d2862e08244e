//! How the server is and what it does, as JSON: `/api/v1/websocket/health` and
//! `/api/v1/websocket/metrics`.
//!
//! They are for those who may see `/metrics`. They answer numbers, and of names those of matches alone;
//! never a user, a token or anything that was said.

use std::collections::BTreeMap;
use std::sync::Arc;

use application::metrics::{EndpointKind, NodeMetrics, Row, Totals};
use application::refusal::Refusal;
use application::use_cases::list_rooms::ListRooms;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use domain::codes::CloseCode;
use domain::delivery::Class;
use domain::room::RoomId;
use serde::Serialize;

use crate::api::{turn_to_list, whole};
use crate::operations::{self, Names};
use crate::shared::{Readiness, Shared};

/// The most matches that one answer lists; `total` counts all.
const MATCHES_MAX: u32 = 100;
/// What the rooms of matches begin with.
const ROOMS: &str = "match:";

/// `/api/v1/websocket/health` on the public address.
pub(crate) async fn health(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    match operations::may_see_metrics(&shared, request) {
        Ok(_) => told_health(&shared),
        Err(refusal) => refusal.into_response(),
    }
}

/// The same on the internal address.
pub(crate) async fn internal_health(State(shared): State<Arc<Shared>>) -> Response {
    told_health(&shared)
}

/// `/api/v1/websocket/metrics` on the public address.
pub(crate) async fn metrics(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    match operations::may_see_metrics(&shared, request) {
        Ok(names) => Json(gather(&shared, names).await).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

/// The same on the internal address.
pub(crate) async fn internal_metrics(State(shared): State<Arc<Shared>>) -> Response {
    Json(gather(&shared, Names::Shown).await).into_response()
}

#[derive(Serialize)]
struct Health {
    /// `healthy`, `degraded` or `draining`.
    status: &'static str,
    /// The words of `/readyz`.
    reason: &'static str,
    version: &'static str,
    uptime_seconds: u64,
    workers: Workers,
    connections: u64,
    users: usize,
    rooms: usize,
}

#[derive(Serialize)]
struct Workers {
    running: usize,
    /// The numbers of those that have ended or show no sign of life.
    lost: Vec<usize>,
}

fn told_health(shared: &Shared) -> Response {
    let services = shared.node.services();
    let readiness = shared.readiness();
    let (status, word) = match readiness {
        Readiness::Ready => (StatusCode::OK, "healthy"),
        Readiness::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        Readiness::WorkerEnded
        | Readiness::WorkerSilent
        | Readiness::BackendAway
        | Readiness::StoreAway
        | Readiness::MemoryShort
        | Readiness::Exhausted => (StatusCode::SERVICE_UNAVAILABLE, "degraded"),
    };
    let lost = shared.lost_workers();
    let (users, rooms) = services.directory.sizes();
    let health = Health {
        status: word,
        reason: readiness.words(),
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: shared.uptime().as_secs(),
        workers: Workers { running: shared.workers.len().saturating_sub(lost.len()), lost },
        connections: open(&services.metrics),
        users,
        rooms,
    };
    (status, Json(health)).into_response()
}

#[derive(Serialize)]
struct Metrics {
    global: Global,
    /// By the endpoint that connections came by.
    channels: BTreeMap<&'static str, Channel>,
    matches: Matches,
    throughput: Throughput,
    errors: Errors,
    connection_monitor: Monitor,
}

#[derive(Serialize)]
struct Global {
    connections: u64,
    connections_opened_total: u64,
    users: usize,
    rooms: usize,
    messages_in_total: u64,
    messages_out_total: u64,
    bytes_in_total: u64,
    bytes_out_total: u64,
    errors_total: u64,
    dropped_messages_total: u64,
}

#[derive(Serialize)]
struct Channel {
    connections: u64,
    messages_in_total: u64,
    errors_total: u64,
}

/// Matches with connections.
#[derive(Serialize)]
struct Matches {
    total: usize,
    /// The first of them, in the order of their ids.
    listed: Vec<OfMatch>,
}

#[derive(Serialize)]
struct OfMatch {
    match_id: String,
    connections: u32,
    /// How many were published in its room; none while that can't be found out.
    messages: Option<u64>,
}

#[derive(Serialize)]
struct Throughput {
    /// What the rates are taken over: the last minute, or less behind the start.
    window_seconds: f64,
    messages_per_second: f64,
    deliveries_per_second: f64,
}

#[derive(Serialize)]
struct Errors {
    commands: u64,
    errors: u64,
    /// From 0 to 1.
    error_rate: f64,
}

/// What the heartbeat did: whom it asked, and whom it closed.
#[derive(Serialize)]
struct Monitor {
    pings_total: u64,
    /// Nothing was heard of it, and no ping was answered.
    closed_for_silence_total: u64,
    /// It never said who it is.
    closed_before_authentication_total: u64,
    /// A backend wanted it closed as idle.
    closed_idle_total: u64,
    closed_for_expired_token_total: u64,
    /// It did not take what it was sent.
    closed_as_slow_total: u64,
    heartbeat_interval_ms: u128,
    /// After this long with nothing heard a connection is closed.
    silence_max_ms: u128,
    /// Both for the endpoints of the channels.
    channel_heartbeat_interval_ms: u128,
    channel_silence_max_ms: u128,
}

async fn gather(shared: &Shared, names: Names) -> Metrics {
    let services = shared.node.services();
    let metrics = &services.metrics;
    let (now, totals) = (services.ports.clock.now().monotonic, metrics.totals());
    let rates = metrics.recent.rates(now, totals);
    let channels = EndpointKind::ROWS.iter().map(|kind| {
        let connections = metrics.sum(|shard| &shard.endpoints, *kind);
        let messages_in_total = metrics.sum(|shard| &shard.endpoint_texts, *kind);
        let errors_total = metrics.sum(|shard| &shard.endpoint_refusals, *kind);
        (kind.label(), Channel { connections, messages_in_total, errors_total })
    });
    Metrics {
        global: global(shared, totals),
        channels: channels.collect(),
        matches: matches(shared, names).await,
        throughput: Throughput {
            window_seconds: rates.window.as_secs_f64(),
            messages_per_second: rates.messages_per_second,
            deliveries_per_second: rates.deliveries_per_second,
        },
        errors: Errors {
            commands: rates.commands,
            errors: rates.errors,
            error_rate: rates.error_rate(),
        },
        connection_monitor: monitor(shared),
    }
}

fn open(metrics: &NodeMetrics) -> u64 {
    metrics.shards.iter().map(|shard| shard.connections()).sum()
}

fn global(shared: &Shared, totals: Totals) -> Global {
    let services = shared.node.services();
    let (users, rooms) = services.directory.sizes();
    let metrics = &services.metrics;
    let dropped = Class::ROWS.iter().map(|class| metrics.sum(|shard| &shard.dropped, *class));
    Global {
        connections: open(metrics),
        connections_opened_total: metrics.shards.iter().map(|shard| shard.opened.get()).sum(),
        users,
        rooms,
        messages_in_total: totals.messages_in,
        messages_out_total: totals.deliveries + totals.replies,
        bytes_in_total: totals.bytes_in,
        bytes_out_total: totals.bytes_out,
        errors_total: totals.errors,
        dropped_messages_total: dropped.sum(),
    }
}

fn monitor(shared: &Shared) -> Monitor {
    let services = shared.node.services();
    let closed = |code| services.metrics.sum(|shard| &shard.closed, code);
    let (timing, channel) = (&services.rules.timing, &services.rules.channel_timing);
    Monitor {
        pings_total: services.metrics.shards.iter().map(|shard| shard.pings.get()).sum(),
        closed_for_silence_total: closed(CloseCode::NoPong),
        closed_before_authentication_total: closed(CloseCode::AuthenticationTimeout),
        closed_idle_total: closed(CloseCode::Idle),
        closed_for_expired_token_total: closed(CloseCode::TokenExpired),
        closed_as_slow_total: closed(CloseCode::SlowConsumer),
        heartbeat_interval_ms: timing.heartbeat_interval.as_millis(),
        silence_max_ms: timing.heartbeat_timeout.as_millis(),
        channel_heartbeat_interval_ms: channel.heartbeat_interval.as_millis(),
        channel_silence_max_ms: channel.heartbeat_timeout.as_millis(),
    }
}

/// The matches with connections. Workers are asked for what was published; without their answer the
/// rest is told all the same: this is read when a worker is stuck.
async fn matches(shared: &Shared, names: Names) -> Matches {
    let directory = &shared.node.services().directory;
    let listed_max = if names == Names::Shown { MATCHES_MAX as usize } else { 0 };
    let (first, total) = directory.rooms_of(ROOMS, listed_max);
    let published = if first.is_empty() {
        BTreeMap::new()
    } else {
        published(shared).await.unwrap_or_default()
    };
    let of_match = |(room, connections): (RoomId, u32)| OfMatch {
        match_id: room.rest().to_owned(),
        connections,
        messages: published.get(&room).copied(),
    };
    Matches { total, listed: first.into_iter().map(of_match).collect() }
}

async fn published(shared: &Shared) -> Result<BTreeMap<RoomId, u64>, Refusal> {
    let list = ListRooms { prefix: ROOMS.into(), after: None, rooms_max: MATCHES_MAX };
    let turn = turn_to_list(shared).await?;
    let page = whole(shared, shared.node.rooms(&turn, list)).await?;
    let passed = page.rooms.into_iter().filter_map(|here| {
        let position = here.position?;
        Some((here.room, position.offset.get()))
    });
    Ok(passed.collect())
}

/// Takes a sample of what is counted, for the rates; called once in [`application::metrics::Recent::INTERVAL`].
pub(crate) fn sample(shared: &Shared) {
    let services = shared.node.services();
    let now = services.ports.clock.now().monotonic;
    services.metrics.recent.sample(now, services.metrics.totals());
}
