//! What all nodes are told, whatever rooms they have.
//!
//! It comes over the subscription, before anything that is asked for behind it.

use std::sync::{PoisonError, RwLock};

use tokio::sync::watch;

/// Takes what is said to all nodes. It must not wait.
type Listener = Box<dyn Fn(&[u8]) + Send + Sync>;

/// The channel of all nodes, as one of them hears it.
#[derive(Default)]
pub(crate) struct News {
    listeners: RwLock<Vec<Listener>>,
    /// How often the channel was on: what was said before is to be asked for.
    heard: watch::Sender<u64>,
}

impl News {
    /// Has everything told to this one, beside all others.
    pub(crate) fn listen(&self, listener: impl Fn(&[u8]) + Send + Sync + 'static) {
        let mut all = self.listeners.write().unwrap_or_else(PoisonError::into_inner);
        all.push(Box::new(listener));
    }

    pub(crate) fn tell(&self, said: &[u8]) {
        let all = self.listeners.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().for_each(|listener| listener(said));
    }

    pub(crate) fn is_on(&self) {
        self.heard.send_modify(|times| *times += 1);
    }

    /// Counts how often the channel was on.
    pub(crate) fn times_on(&self) -> watch::Receiver<u64> {
        self.heard.subscribe()
    }
}
