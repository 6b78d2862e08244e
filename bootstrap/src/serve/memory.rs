//! Looks at the memory for ever, and says so in the log when newcomers are refused and when they are
//! let in again.
//!
//! It must never do more: what a look costs is paid ten times a second.

use std::sync::Arc;
use std::time::Duration;

use application::admission::{Admission, HIGH_PERCENT, LOW_PERCENT, Pressure};
use application::node::Node;
use tokio::task::JoinHandle;

use crate::memory::MemoryLimit;

/// Between two looks. In this time newcomers must not be able to fill what the high mark leaves.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Has the memory watched that a limit is for. In a tokio runtime.
pub fn spawn_watch(limit: MemoryLimit, node: &Node) -> JoinHandle<()> {
    tokio::spawn(watch(limit, Arc::clone(&node.services().admission)))
}

async fn watch(limit: MemoryLimit, admission: Arc<Admission>) {
    let mut interval = tokio::time::interval(LOOK_INTERVAL);
    let mut is_open = true;
    loop {
        interval.tick().await;
        // What can't be read is no reason to turn anybody away.
        let used_bytes = limit.used_bytes().unwrap_or(0);
        admission.observe(used_bytes, limit.bytes_max);
        let was_open = std::mem::replace(&mut is_open, admission.pressure() == Pressure::Low);
        let (bytes_max, source) = (limit.bytes_max, limit.source());
        match (was_open, is_open) {
            (true, false) => tracing::warn!(
                used_bytes,
                bytes_max,
                source,
                "memory is short: newcomers are refused from {HIGH_PERCENT} % of it on"
            ),
            (false, true) => tracing::warn!(
                used_bytes,
                bytes_max,
                source,
                "memory is below {LOW_PERCENT} % again: newcomers are let in"
            ),
            _ => {}
        }
    }
}
