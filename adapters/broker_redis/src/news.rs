//! What all nodes are told, whatever rooms they have.
//!
//! It comes over the subscription, before anything that is asked for behind it.

use std::sync::OnceLock;

use tokio::sync::watch;

/// Takes what is said to all nodes. It must not wait.
type Listener = Box<dyn Fn(&[u8]) + Send + Sync>;

/// The channel of all nodes, as one of them hears it.
#[derive(Default)]
pub(crate) struct News {
    listener: OnceLock<Listener>,
    /// How often the channel was on: what was said before is to be asked for.
    heard: watch::Sender<u64>,
}

impl News {
    /// Has everything told to this one; there is one at most.
    pub(crate) fn listen(&self, listener: impl Fn(&[u8]) + Send + Sync + 'static) {
        let _ = self.listener.set(Box::new(listener));
    }

    pub(crate) fn tell(&self, said: &[u8]) {
        if let Some(listener) = self.listener.get() {
            listener(said);
        }
    }

    pub(crate) fn is_on(&self) {
        self.heard.send_modify(|times| *times += 1);
    }

    /// Counts how often the channel was on.
    pub(crate) fn times_on(&self) -> watch::Receiver<u64> {
        self.heard.subscribe()
    }
}
