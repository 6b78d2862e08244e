//! What a node counts, as Prometheus text, and decorators that measure ports.
//!
//! It reads when it is asked and owns no counter of the hot path. It must never show a label that
//! a client can make up.
//!
//! Reading order: [`Exporter`], `write` (one metric as text), `node` and `process` (which there
//! are), [`MeasuredArchive`].

mod archive;
mod exporter;
mod node;
mod process;
mod write;

pub use archive::{ArchiveMetrics, MeasuredArchive};
pub use exporter::{Exporter, Gauge};
