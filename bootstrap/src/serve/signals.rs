//! The signals: the first to end lets the server drain, the second ends it at once, and SIGHUP has
//! the settings read again. SIGUSR1 and SIGUSR2, which would end it unasked, do nothing.
//!
//! A SIGHUP that comes because the terminal was closed ends the server, as it ends others.

use std::io::{self, IsTerminal};
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};

use crate::exit::Exit;

/// Signals that no longer end the process by themselves.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// Held so that they stay without effect; nobody listens to them.
    _ignored: [Signal; 2],
    /// Whether standard input was a terminal at the start.
    has_terminal: bool,
}

impl Signals {
    /// Catches them from now on. Must come before anybody can know that the server runs.
    pub(super) fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            _ignored: [signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?],
            has_terminal: io::stdin().is_terminal(),
        })
    }

    /// Says `stop` at the first that ends and ends the process at the second; says `reload` at
    /// each SIGHUP.
    pub(super) async fn watch(mut self, stop: watch::Sender<bool>, reload: Arc<Notify>) {
        self.ending(&reload).await;
        tracing::info!(
            "stopping: connections are told when to come back; signal again to end at once"
        );
        let _ = stop.send(true);
        self.ending(&reload).await;
        tracing::warn!("ended at once");
        crate::log::finish();
        std::process::exit(i32::from(Exit::Failure.number()));
    }

    /// Waits for a signal that ends.
    async fn ending(&mut self, reload: &Notify) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    // A terminal that was closed is none any more.
                    if self.has_terminal && !io::stdin().is_terminal() {
                        self.has_terminal = false;
                        return;
                    }
                    reload.notify_one();
                }
            }
        }
    }
}
