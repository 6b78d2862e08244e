//! Metrics: what is watched, and who shows it.
//!
//! Without the feature `prometheus` nothing is watched and `/metrics` is not there.

use std::sync::Arc;

#[cfg(feature = "prometheus")]
use application::admission::Admission;
use application::node::Node;
use application::ports::Exposition;

use super::SharedArchive;
use super::rooms::Rooms;
use super::storage::Storage;
use crate::memory::Budgets;
use crate::settings::tokens::Lasting;

/// What is shown, if this build shows anything.
pub(super) type SharedExposition = Option<Arc<dyn Exposition>>;

/// Puts the parts of the metrics together.
#[derive(Default)]
pub(super) struct Telemetry {
    #[cfg(feature = "prometheus")]
    archive: std::sync::OnceLock<Arc<telemetry_prometheus::ArchiveMetrics>>,
}

#[cfg(feature = "prometheus")]
impl Telemetry {
    /// The same archive with a watch on it.
    pub(super) fn watch(&self, archive: SharedArchive) -> SharedArchive {
        let archive = archive?;
        let metrics = Arc::clone(self.archive.get_or_init(Arc::default));
        Some(Arc::new(telemetry_prometheus::MeasuredArchive::new(archive, metrics)))
    }

    /// What `/metrics` shows.
    pub(super) fn exposition(
        &self,
        node: &Node,
        rooms: &Rooms,
        storage: &Storage,
        lasting: &Lasting,
        budgets: &Budgets,
    ) -> SharedExposition {
        let mut gauges = gauges(*budgets);
        gauges.extend(of_rooms(rooms));
        gauges.extend(of_storage(storage));
        gauges.extend(of_memory(&node.services().admission));
        gauges.extend(of_tokens(lasting));
        let exporter = telemetry_prometheus::Exporter::build(
            crate::commands::version::VERSION,
            &node.services(),
            self.archive.get().cloned(),
            gauges,
        );
        Some(Arc::new(exporter))
    }
}

#[cfg(not(feature = "prometheus"))]
impl Telemetry {
    pub(super) fn watch(&self, archive: SharedArchive) -> SharedArchive {
        archive
    }

    pub(super) fn exposition(
        &self,
        _: &Node,
        _: &Rooms,
        _: &Storage,
        _: &Lasting,
        _: &Budgets,
    ) -> SharedExposition {
        None
    }
}

/// What other parts keep and this process shows.
#[cfg(feature = "prometheus")]
fn gauges(budgets: Budgets) -> Vec<telemetry_prometheus::Gauge> {
    use telemetry_prometheus::Gauge;

    vec![
        Gauge {
            name: "outbound_queue_max_bytes",
            help: "The most bytes that may wait for slow clients together",
            grows: false,
            read: Box::new(move || budgets.outbound_bytes as u64),
        },
        Gauge {
            name: "log_lines_lost",
            help: "Log lines that nobody took",
            grows: true,
            read: Box::new(crate::log::lines_lost),
        },
    ]
}

/// What the broker keeps, or what it knows of the one that keeps it.
#[cfg(feature = "prometheus")]
fn of_rooms(rooms: &Rooms) -> Vec<telemetry_prometheus::Gauge> {
    match rooms {
        Rooms::Memory(broker) => of_memory_broker(broker),
        #[cfg(feature = "redis")]
        Rooms::Redis(shared) => of_redis(&shared.broker),
    }
}

#[cfg(feature = "prometheus")]
fn of_memory_broker(broker: &Arc<broker_memory::MemoryBroker>) -> Vec<telemetry_prometheus::Gauge> {
    use broker_memory::Usage;
    use telemetry_prometheus::Gauge;

    let of = |name, help, read: fn(Usage) -> usize| {
        let broker = Arc::clone(broker);
        let read = Box::new(move || read(broker.usage()) as u64);
        Gauge { name, help, grows: false, read }
    };
    vec![
        of("broker_rooms", "Rooms in memory, with or without members", |usage| usage.rooms),
        of("broker_log_bytes", "Memory of all rooms' logs", |usage| usage.log_bytes),
        of("broker_log_max_bytes", "The most memory of all rooms' logs", |u| u.log_bytes_max),
        of("commit_queue_messages", "Publishes that wait for the archive", |u| u.commit_entries),
        of("commit_queue_bytes", "Bytes of publishes that wait for the archive", |u| {
            u.commit_bytes
        }),
    ]
}

#[cfg(all(feature = "prometheus", feature = "redis"))]
fn of_redis(broker: &Arc<broker_redis::RedisBroker>) -> Vec<telemetry_prometheus::Gauge> {
    use broker_redis::Status;
    use telemetry_prometheus::Gauge;

    let of = |name, help, grows, read: fn(&Status) -> u64| {
        let status = Arc::clone(broker.status());
        Gauge { name, help, grows, read: Box::new(move || read(&status)) }
    };
    vec![
        of("redis_up", "Whether Redis answers and publications come", false, |status| {
            u64::from(status.is_up())
        }),
        of("redis_connects", "Connections made to Redis", true, Status::connects),
        of("redis_calls", "Calls of Redis", true, |status| status.calls().0),
        of("redis_calls_failed", "Calls of Redis without an answer, or refused", true, |status| {
            status.calls().1
        }),
        of("redis_publications", "Publications that came from Redis", true, |status| {
            status.received().0
        }),
        of("redis_publications_unreadable", "Publications that could not be read", true, |s| {
            s.received().1
        }),
    ]
}

/// What is known of Postgres, where there is one.
#[cfg(feature = "prometheus")]
fn of_storage(storage: &Storage) -> Vec<telemetry_prometheus::Gauge> {
    #[cfg(feature = "postgres")]
    if let Some(status) = storage.status() {
        return of_postgres(status);
    }
    let _ = storage;
    Vec::new()
}

#[cfg(all(feature = "prometheus", feature = "postgres"))]
fn of_postgres(status: &Arc<store_postgres::Status>) -> Vec<telemetry_prometheus::Gauge> {
    use store_postgres::Status;
    use telemetry_prometheus::Gauge;

    let of = |name, help, grows, read: fn(&Status) -> u64| {
        let status = Arc::clone(status);
        Gauge { name, help, grows, read: Box::new(move || read(&status)) }
    };
    vec![
        of("postgres_up", "Whether Postgres takes writes", false, |s| u64::from(s.is_up())),
        of("postgres_connects", "Connections made to Postgres", true, Status::connects),
        of("postgres_commits", "Groups of writes committed", true, |status| status.commits().0),
        of("postgres_calls_failed", "Calls of Postgres that failed", true, |s| s.commits().1),
        of("postgres_retries", "Transactions made again", true, Status::retries),
        of("postgres_rows_unreadable", "Rows that could not be read", true, Status::unreadable),
    ]
}

/// What is known of the memory; 0 where nobody looks.
#[cfg(feature = "prometheus")]
fn of_memory(admission: &Arc<Admission>) -> [telemetry_prometheus::Gauge; 2] {
    let of = |name, help, read: fn(&Admission) -> u64| {
        let admission = Arc::clone(admission);
        telemetry_prometheus::Gauge {
            name,
            help,
            grows: false,
            read: Box::new(move || read(&admission)),
        }
    };
    [
        of("memory_used_bytes", "Memory that counts against the limit", Admission::used_bytes),
        of("memory_max_bytes", "The most memory that may be used, 0 for no limit", |admission| {
            admission.bytes_max()
        }),
    ]
}

/// What lies behind the verifier of tokens, whichever it is.
#[cfg(feature = "prometheus")]
fn of_tokens(lasting: &Lasting) -> Vec<telemetry_prometheus::Gauge> {
    use auth_jwt::{CacheUse, KeyUsage};
    use telemetry_prometheus::Gauge;

    let of_cache = |name, help, read: fn(&CacheUse) -> u64| {
        let cache_use = Arc::clone(&lasting.cache_use);
        Gauge { name, help, grows: true, read: Box::new(move || read(&cache_use)) }
    };
    let mut gauges = vec![
        of_cache("token_cache_hits", "Tokens known from before", |cache| cache.hits.get()),
        of_cache("token_cache_misses", "Tokens looked for and not known", |c| c.misses.get()),
    ];
    let Some(keys) = &lasting.remote_keys else { return gauges };
    let of_keys = |name, help, grows, read: fn(KeyUsage) -> u64| {
        let keys = Arc::clone(keys);
        Gauge { name, help, grows, read: Box::new(move || read(keys.usage())) }
    };
    gauges.extend([
        of_keys("jwks_fetches", "Fetches of published keys that ended", true, |u| u.fetches),
        of_keys("jwks_fetch_failures", "Fetches that went wrong", true, |u| u.failures),
        of_keys("jwks_keys", "Published keys that count", false, |u| u.keys as u64),
        of_keys("jwks_keys_left_seconds", "For how long they count without a fetch", false, |u| {
            u.left.as_secs()
        }),
    ]);
    gauges
}

#[cfg(all(test, feature = "prometheus"))]
mod tests;
