//! Metrics: what is watched, and who shows it.
//!
//! Without the feature `prometheus` nothing is watched and `/metrics` is not there.

use std::sync::Arc;

use application::node::Node;
use application::ports::Exposition;
use broker_memory::MemoryBroker;

use super::SharedArchive;

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
    pub(super) fn exposition(&self, node: &Node, broker: &Arc<MemoryBroker>) -> SharedExposition {
        let exporter = telemetry_prometheus::Exporter::build(
            crate::commands::version::VERSION,
            &node.services(),
            self.archive.get().cloned(),
            gauges(broker),
        );
        Some(Arc::new(exporter))
    }
}

#[cfg(not(feature = "prometheus"))]
impl Telemetry {
    pub(super) fn watch(&self, archive: SharedArchive) -> SharedArchive {
        archive
    }

    pub(super) fn exposition(&self, _: &Node, _: &Arc<MemoryBroker>) -> SharedExposition {
        None
    }
}

/// What other parts keep and this process shows.
#[cfg(feature = "prometheus")]
fn gauges(broker: &Arc<MemoryBroker>) -> Vec<telemetry_prometheus::Gauge> {
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
        Gauge {
            name: "outbound_queue_max_bytes",
            help: "The most bytes that may wait for slow clients together",
            grows: false,
            read: Box::new(|| crate::settings::checks::OUTBOUND_TOTAL_BYTES_MAX as u64),
        },
        Gauge {
            name: "log_lines_lost",
            help: "Log lines that nobody took",
            grows: true,
            read: Box::new(crate::log::lines_lost),
        },
    ]
}
