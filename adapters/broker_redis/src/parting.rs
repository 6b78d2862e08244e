//! How presence of a node ends that stops in order.
//!
//! Nobody may be told to have left whose client is on its way to another node, and nobody may stay that comes to none.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::Cmd;
use tokio::time::{Instant, timeout};

use crate::broker::{RedisBroker, millis};
use crate::link::Link;

impl RedisBroker {
    /// From now on who leaves was told to come back over another node: that takes as long as clients need, so they are
    /// waited for as long as those of a node that is gone. For a node that ends, before its connections do.
    pub fn part(&self) {
        self.present.is_parting.store(true, Ordering::Release);
    }

    /// For how long who leaves now is waited for.
    pub(crate) fn grace(&self) -> Duration {
        let is_parting = self.present.is_parting.load(Ordering::Acquire);
        let of_gone = if is_parting { self.config.lease } else { Duration::ZERO };
        self.config.leave_grace.max(of_gone)
    }

    /// Says what is left to be said, within the time for an answer, and lets the lease run out at once: what
    /// could not be said others take back, and whoever is waited for when that is over. For a node that ends, after its
    /// connections have.
    pub async fn finish(&self) {
        self.present.is_finishing.store(true, Ordering::Release);
        self.present.changed.notify_one();
        let is_parting = self.present.is_parting.load(Ordering::Acquire);
        let last_words = async {
            loop {
                let now = Instant::now();
                if !is_parting {
                    self.present.local().end_graces(now);
                }
                let is_due = self.present.local().next_due(now).is_some_and(|due| due <= now);
                if !is_due || self.tell_some(now).await.is_err() {
                    break;
                }
            }
            let Some(lease) = self.present.lease() else { return };
            let last_due = self.present.local().last_due();
            if let Some(due) = last_due.filter(|_| is_parting) {
                let wait = due.saturating_duration_since(Instant::now());
                self.put_off_reaping(&lease.link, &lease.node, wait).await;
            }
            self.run_out(&lease.link, &lease.node).await;
        };
        let _ = timeout(self.config.answer_timeout, last_words).await;
    }

    /// Lets the lease of a name run out that nobody speaks under any more, so that nobody counts it or waits for it.
    pub(crate) async fn run_out(&self, link: &Arc<Link>, node: &str) {
        let fill = |command: &mut Cmd| {
            let [nodes, _] = self.names.nodes();
            // One that was claimed does not come back.
            command.arg("ZADD").arg(nodes).arg("XX").arg(1).arg(node);
        };
        // Where this fails it runs out a little later.
        let _ = self.commands.ask_for::<i64>(link, fill).await;
    }

    /// Has nobody take back for a while what this node said: as if somebody did already.
    pub(crate) async fn put_off_reaping(&self, link: &Arc<Link>, node: &str, wait: Duration) {
        let lock = |command: &mut Cmd| {
            let ms = millis(wait).max(1);
            command.arg("SET").arg(self.names.reaper_of(node)).arg("1").arg("PX").arg(ms);
        };
        // Where this fails it is taken back a little earlier.
        let _ = self.commands.ask_for::<String>(link, lock).await;
    }

    /// Takes that back: whoever looks next may take back what was said.
    pub(crate) async fn allow_reaping(&self, link: &Arc<Link>, node: &str) {
        let unlock = |command: &mut Cmd| {
            command.arg("DEL").arg(self.names.reaper_of(node));
        };
        // Where this fails it is taken back in a lease.
        let _ = self.commands.ask_for::<i64>(link, unlock).await;
    }
}
