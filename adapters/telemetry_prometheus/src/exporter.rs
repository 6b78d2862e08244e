//! The whole output, made anew at each scrape.
//!
//! Its size is bounded by the code and the number of workers. It may read files of `/proc`, so
//! whoever serves it calls [`Exposition::render`] where waiting is allowed.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use application::ports::Exposition;
use application::services::Services;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text};
use prometheus_client::registry::Registry;

use crate::archive::ArchiveMetrics;
use crate::node::NodeCollector;
use crate::process::Process;
use crate::write::Writer;

/// A number that somebody else keeps.
pub struct Gauge {
    /// Its name behind `roomkeeper_`, with its unit.
    pub name: &'static str,
    /// What it is.
    pub help: &'static str,
    /// Whether it only grows; then it is shown with `_total` behind its name.
    pub grows: bool,
    /// Reads it. Must not wait.
    pub read: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl fmt::Debug for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gauge").field(&self.name).finish()
    }
}

impl Collector for Gauge {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Writer(encoder);
        if self.grows {
            out.counter(self.name, self.help, (self.read)())
        } else {
            out.gauge(self.name, self.help, (self.read)() as f64)
        }
    }
}

/// The names of the build and the machine are shown as they are.
#[derive(Debug)]
struct Build(&'static str);

impl Collector for Build {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let name = ("build_info", "The version that runs");
        Writer(encoder).info(name, &[("version", self.0)])
    }
}

/// Answers scrapes.
#[derive(Debug)]
pub struct Exporter {
    /// One scrape at a time: what it reads of `/proc` is not free.
    registry: Mutex<Registry>,
}

impl Exporter {
    /// Reads what `services` count now and after a change of rules, the archive's metrics where there is an archive, and `gauges`. `version`
    /// is shown.
    #[must_use]
    pub fn build(
        version: &'static str,
        services: &Services,
        archive: Option<Arc<ArchiveMetrics>>,
        gauges: Vec<Gauge>,
    ) -> Self {
        let mut registry = Registry::default();
        let ours = registry.sub_registry_with_prefix("roomkeeper");
        ours.register_collector(Box::new(Build(version)));
        ours.register_collector(Box::new(NodeCollector::new(services, archive)));
        for gauge in gauges {
            ours.register_collector(Box::new(gauge));
        }
        registry.register_collector(Box::new(Process::new()));
        Self { registry: Mutex::new(registry) }
    }
}

impl Exposition for Exporter {
    fn content_type(&self) -> &'static str {
        "text/plain; version=0.0.4; charset=utf-8"
    }

    fn render(&self) -> String {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::with_capacity(32 << 10);
        // Writing to a String cannot fail; a collector's own error cuts the text where it stands.
        let _ = prometheus_text::encode(&mut text, &registry);
        text
    }
}

#[cfg(test)]
#[path = "exporter/tests.rs"]
mod tests;
