//! What other nodes have answered so far, and whose answer is still waited for.
//!
//! Nobody who has not answered may be left out of it.

use std::collections::BTreeSet;

use application::ports::{Heard, NodeName, PeerAnswer};

use crate::peer_words::Answered;

/// What has been heard so far.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    heard: Heard,
    pub(crate) waits_for: BTreeSet<String>,
    pub(crate) is_known: bool,
    /// Whatever the others say changes nothing.
    pub(crate) is_enough: bool,
}

impl Collected {
    pub(crate) fn take(&mut self, text: &str) {
        let Some(Answered { node, lease, answer }) = Answered::read(text) else {
            tracing::error!("the answer of another node can't be read");
            return;
        };
        self.waits_for.remove(&lease);
        self.is_enough |= answer == PeerAnswer::Hears(true);
        self.heard.answers.push((node, answer));
    }

    pub(crate) fn end(mut self) -> Heard {
        self.heard.answers.sort_by(|(one, _), (other, _)| one.cmp(other));
        self.heard.missing =
            self.waits_for.iter().filter_map(|name| NodeName::parse(name)).collect();
        self.heard.unknown = !self.is_known;
        self.heard
    }
}
