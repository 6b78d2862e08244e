//! A worker's heart: shows that its thread gets around to everything, and how late.
//!
//! It must never do anything but tell the time: what a silent worker means is for others to say.

use std::sync::Arc;
use std::time::Duration;

use application::metrics::ShardMetrics;
use application::ports::Clock;
use tokio::time::{Instant, MissedTickBehavior};

use crate::clock::SystemClock;

/// Between two beats. Twice a second costs an idle worker about a hundredth of a percent.
pub(crate) const INTERVAL: Duration = Duration::from_millis(500);

/// Beats until the worker ends.
pub(crate) async fn beat(metrics: Arc<ShardMetrics>, clock: Arc<SystemClock>) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let planned = interval.tick().await;
        metrics.lag.observe(Instant::now().saturating_duration_since(planned));
        // 0 means that it never beat.
        metrics.beat_ms.set(clock.now().monotonic.as_millis().max(1));
    }
}
