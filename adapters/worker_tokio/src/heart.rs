//! A worker's heart: shows that its thread gets around to everything, and how late.
//!
//! It must never do anything but tell the time: what a silent worker means is for others to say, and
//! what a late one means for its connections is the shard's to know.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::core::Core;

/// Between two beats. Twice a second costs an idle worker about a hundredth of a percent.
pub(crate) const INTERVAL: Duration = Duration::from_millis(500);

/// Beats until the worker ends.
pub(crate) async fn beat(core: Rc<Core>) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let planned = interval.tick().await;
        core.metrics.lag.observe(Instant::now().saturating_duration_since(planned));
        core.beat();
    }
}
