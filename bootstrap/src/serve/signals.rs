//! The signals that end the server: the first lets it drain, the second ends it at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::exit::Exit;

/// Signals that no longer end the process by themselves.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches them from now on. Must come before anybody can know that the server runs.
    pub(super) fn catch() -> io::Result<Self> {
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        Ok(Self { terminate: signal(terminate)?, interrupt: signal(interrupt)? })
    }

    /// Says `stop` at the first and ends the process at the second.
    pub(super) async fn watch(mut self, stop: watch::Sender<bool>) {
        for first in [true, false] {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
            if first {
                tracing::info!(
                    "stopping: connections are told when to come back; signal again to end at once"
                );
                let _ = stop.send(true);
            } else {
                tracing::warn!("ended at once");
                std::process::exit(i32::from(Exit::Failure.number()));
            }
        }
    }
}
