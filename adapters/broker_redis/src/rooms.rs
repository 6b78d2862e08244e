//! The rooms that mailboxes of this node are in, and what has come of each.
//!
//! What is known not to have come must be told to all mailboxes of a room, those that follow it by a pattern too.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use application::mailbox::Mailbox;
use application::ports::SubscriptionToken;
use domain::id::Epoch;
use domain::principal::RoomPattern;
use domain::room::RoomId;
use tokio::time::Instant;

use crate::behind::{Behind, Mark};
use crate::topics::Topic;

#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) token: SubscriptionToken,
}

#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) patterns: Vec<RoomPattern>,
    pub(crate) version: u64,
}

impl Watcher {
    pub(crate) fn topics(&self) -> BTreeSet<Topic> {
        self.patterns.iter().map(Topic::of).collect()
    }

    pub(crate) fn has(&self, room: &RoomId) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(room))
    }
}

/// Where a room's publishes stand in Redis.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Standing {
    pub(crate) epoch: Epoch,
    /// The newest publish.
    pub(crate) number: u64,
}

/// The epoch of a room in which nothing was published: of none that there is.
pub(crate) const NOTHING: Epoch = Epoch::from_bits(0);

/// What is known of a room with a channel of its own.
#[derive(Debug, Default)]
pub(crate) struct Room {
    pub(crate) subscribers: Vec<Subscriber>,
    /// The newest that came: its epoch and number.
    pub(crate) heard: Option<Mark>,
    /// What of the newest messages by key was missed is still to be found out.
    pub(crate) behind: Option<Behind>,
    /// For how long it lasts unused, at least half of that; none where nothing is known of it.
    pub(crate) keep: Option<Duration>,
    /// When it was last kept from running out.
    pub(crate) kept_at: Option<Instant>,
}

impl Room {
    /// Something of it did not come behind what was heard.
    pub(crate) fn tell_hole(&mut self, id: &RoomId, since: Mark, watchers: &[Watcher]) {
        // An earlier hole that is still to be looked into holds this one.
        self.behind.get_or_insert(Behind::new(since));
        for subscriber in &self.subscribers {
            subscriber.mailbox.miss(id);
        }
        for watcher in watchers.iter().filter(|watcher| watcher.has(id)) {
            watcher.mailbox.miss(id);
        }
    }

    /// For how long it is to be kept from running out now, if it is.
    pub(crate) fn take_keep(&mut self, now: Instant) -> Option<Duration> {
        let is_due = |(keep, at): &(Duration, Instant)| now.duration_since(*at) >= *keep / 4;
        let keep = self.keep.zip(self.kept_at).filter(is_due).map(|(keep, _)| keep)?;
        self.kept_at = Some(now);
        Some(keep)
    }
}
