//! The signals that end the server: the first lets it drain, the second ends it at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::exit::Exit;

pub(super) async fn watch(stop: watch::Sender<bool>) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals can't be watched; only a kill ends this process");
        return;
    };
    for first in [true, false] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
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
