//! Names under which this node spoke before, until all that was said under them is said again.
//!
//! Nobody may take it back earlier, and nobody else while this node can.

use std::sync::{Arc, MutexGuard, PoisonError};

use application::planted::{Mistake, is_planted};
use tokio::time::Instant;

use crate::broker::RedisBroker;
use crate::link::Link;
use crate::presence::Present;

/// The most former names that a node remembers; those of more run out by themselves.
const FORMER_MAX: usize = 16;

impl Present {
    fn former(&self) -> MutexGuard<'_, Vec<(String, Instant)>> {
        self.former.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this node has another name.
    pub(crate) fn note_former(&self, name: String, now: Instant) {
        let mut former = self.former();
        if former.len() < FORMER_MAX {
            former.push((name, now));
        }
    }

    /// Names under which something stands that is not said again yet.
    fn not_said_again(&self) -> Vec<String> {
        self.former().iter().map(|(name, _)| name.clone()).collect()
    }

    /// Whether all is said again that was said under one of them.
    pub(crate) fn has_said_again(&self) -> bool {
        let (local, former) = (self.local(), self.former());
        former.iter().any(|(_, since)| local.is_told_since(*since))
    }

    /// Former names under which nothing stands any more that is not said again. Not while something is on its way.
    pub(crate) async fn take_said_again(&self) -> Vec<String> {
        // Nearly always: nobody waits for what is on its way then.
        if self.former().is_empty() {
            return Vec::new();
        }
        let _turn = self.telling.lock().await;
        let (local, mut former) = (self.local(), self.former());
        former
            .extract_if(.., |(_, since)| {
                local.is_told_since(*since) || is_planted(Mistake::FormerTakenEarly)
            })
            .map(|(name, _)| name)
            .collect()
    }
}

impl RedisBroker {
    /// Has nobody take back what stands under a former name before it is said again: in a Cluster others may be behind
    /// a link on which nothing has happened, and take it for one of a node that is gone. If this node goes, too, they do
    /// in a lease.
    pub(crate) async fn keep_former(&self, link: &Arc<Link>) {
        for name in self.present.not_said_again() {
            self.put_off_reaping(link, &name, self.config.lease).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use domain::id::{ConnectionId, UserId};
    use domain::presence::PresenceKey;
    use domain::room::RoomId;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_look_without_a_former_name_waits_for_nothing_that_is_on_its_way() {
        let present = Present::new();
        let _on_its_way = present.telling.lock().await;
        let none = timeout(Duration::from_secs(5), present.take_said_again()).await;
        assert_eq!(none, Ok(Vec::new()));
    }

    #[tokio::test]
    async fn a_former_name_is_done_with_when_all_is_said_again_and_not_with_each_batch() {
        let (present, now) = (Present::new(), Instant::now());
        let (room, ann) = (RoomId::parse("public:a").unwrap(), UserId::parse("ann").unwrap());
        let seat = (room, PresenceKey::User(ann));
        let _told = present.local().enter(&seat, ConnectionId::from_bits(1), now);
        present.note_former("one".to_owned(), now);
        assert!(!present.has_said_again() && present.take_said_again().await.is_empty());
        // What came after it had another name is of that one.
        present.note_former("two".to_owned(), now - Duration::from_secs(1));
        assert!(present.has_said_again());
        assert_eq!(present.take_said_again().await, ["two"]);
        assert_eq!(present.not_said_again(), ["one"]);
        for n in 0..2 * FORMER_MAX {
            present.note_former(n.to_string(), now);
        }
        assert_eq!(present.not_said_again().len(), FORMER_MAX);
    }
}
