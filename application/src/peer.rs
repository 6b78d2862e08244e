//! This node as its peers know it: answers what they ask, and obeys what they tell.
//!
//! It must never answer with less than it was asked for as if that were all, and never ask its peers in turn.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use domain::id::UserId;
use domain::moderation::{Act, Deed, Entry};

use crate::directory::Directory;
use crate::mailbox::{Control, Mailbox};
use crate::ports::{Clock, KICK_COUNTS, Moderation, NodeName, Peer, PeerAnswer, PeerQuestion};
use crate::use_cases::end_connections::EndConnections;
use crate::use_cases::list_connections::{ConnectionCursor, ConnectionsPage, ListConnections};

/// See the module's text.
pub(crate) struct ThisNode {
    pub(crate) name: Option<NodeName>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) mailboxes: Vec<Arc<Mailbox>>,
    pub(crate) moderation: Option<Arc<dyn Moderation>>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// Where a node of this name begins in a list of all; none where the list is behind it.
pub(crate) fn begins(
    name: &NodeName,
    from: Option<&(NodeName, ConnectionCursor)>,
) -> Option<ConnectionCursor> {
    match from {
        None => Some(ConnectionCursor::default()),
        Some((node, at)) if node == name => Some(*at),
        Some((node, _)) => (name > node).then(ConnectionCursor::default),
    }
}

/// Has those obey who are in the room.
pub(crate) fn put_out(entry: &Entry, mailboxes: &[Arc<Mailbox>]) {
    if let Act::Kick(user) | Act::Ban(user, _) = &entry.act {
        for mailbox in mailboxes {
            mailbox.order(Control::PutOut(user.clone(), entry.room.clone()));
        }
    }
}

/// Tells all shards that something waits for a user.
pub(crate) fn ring(user: &UserId, mailboxes: &[Arc<Mailbox>]) {
    for mailbox in mailboxes {
        mailbox.order(Control::Ring(user.clone()));
    }
}

#[async_trait]
impl Peer for ThisNode {
    async fn answer(&self, question: PeerQuestion) -> Option<PeerAnswer> {
        // The semaphore is never closed. Whoever asks waits for no longer than it wants to.
        let turn = || self.directory.listing.0.acquire();
        match question {
            PeerQuestion::Rooms(list) => {
                let _turn = turn().await.ok();
                list.execute(&self.mailboxes).await.ok().map(PeerAnswer::Rooms)
            }
            PeerQuestion::Connections { of, from, connections_max } => {
                let _turn = turn().await.ok();
                let Some(from) = begins(self.name.as_ref()?, from.as_ref()) else {
                    return Some(PeerAnswer::Connections(ConnectionsPage::default()));
                };
                let list = ListConnections { of, from, connections_max };
                list.execute(&self.mailboxes).await.ok().map(PeerAnswer::Connections)
            }
            PeerQuestion::End { whom, code } => {
                let _turn = turn().await.ok();
                let ended = EndConnections { whom, code }.execute(&self.mailboxes).await;
                ended.ok().map(PeerAnswer::Ended)
            }
            // A look into memory.
            PeerQuestion::Hears(user) => Some(PeerAnswer::Hears(self.directory.is_heard(&user))),
        }
    }

    async fn moderated(&self, entry: Entry, is_late: bool) {
        let Some(moderation) = &self.moderation else { return };
        self.directory.acts.note(&entry);
        // Remembered first: whoever is put out finds that it may not come back. But nobody stays because the
        // storage is slow.
        let mut recording = moderation.record(&entry);
        let at_once = poll_fn(|cx| Poll::Ready(recording.as_mut().poll(cx))).await;
        // One that is over by now, or crossed a later one that took it back, puts nobody out.
        let now = self.clock.now().wall;
        let counts = match &entry.act {
            Act::Ban(user, _) => moderation.forbids(user, &entry.room, Deed::Enter, now).is_some(),
            // Whoever was kicked long ago may have come back since.
            Act::Kick(_) => {
                let ago = now.since(entry.at).max(entry.at.since(now));
                !is_late || ago <= KICK_COUNTS
            }
            Act::Mute(..) | Act::Unmute(_) | Act::Unban(_) | Act::Delete(_) => true,
        };
        if counts {
            put_out(&entry, &self.mailboxes);
        }
        let recorded = match at_once {
            Poll::Ready(recorded) => recorded,
            Poll::Pending => recording.await,
        };
        if let Err(error) = recorded {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "what a moderator did over another node is not stored here");
        }
    }

    fn users_heard(
        &self,
        behind: Option<&UserId>,
        looked_at: usize,
    ) -> (Vec<UserId>, Option<UserId>) {
        self.directory.users_heard(behind, looked_at)
    }

    fn letters_wait(&self, user: &UserId) {
        if self.directory.is_heard(user) {
            ring(user, &self.mailboxes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use domain::room::RoomId;
    use domain::time::{Now, Wall};

    use super::*;
    use crate::ports::clock::MockClock;
    use crate::ports::moderation::MockModeration;

    #[tokio::test]
    async fn a_kick_that_comes_late_puts_out_nobody_who_may_be_back_and_is_written_down() {
        let now = Wall::from_millis(1_000_000_000);
        let past = |ago: Duration| {
            Wall::from_millis(now.as_millis() - i64::try_from(ago.as_millis()).unwrap())
        };
        let old = past(KICK_COUNTS + Duration::from_millis(1));
        for (at, is_late, is_put_out) in [
            (now, false, true),
            // By another clock: what was told at once is done at once.
            (old, false, true),
            (past(KICK_COUNTS), true, true),
            (old, true, false),
            (now.after(2 * KICK_COUNTS), true, false),
        ] {
            let (mut moderation, mut clock) = (MockModeration::new(), MockClock::new());
            moderation.expect_record().times(1).returning(|_| Box::pin(async { Ok(()) }));
            clock.expect_now().returning(move || Now { wall: now, ..Now::default() });
            let mailbox = Arc::new(Mailbox::new(1, 10));
            let node = ThisNode {
                name: None,
                directory: Arc::default(),
                mailboxes: vec![Arc::clone(&mailbox)],
                moderation: Some(Arc::new(moderation)),
                clock: Arc::new(clock),
            };
            let (ann, room) =
                (UserId::parse("ann").unwrap(), RoomId::parse("chat:global").unwrap());
            let (by, act) = (UserId::parse("mod").unwrap(), Act::Kick(ann.clone()));
            let entry = Entry { at, order: at, by, room: room.clone(), act, reason: None };
            node.moderated(entry, is_late).await;
            let out: Vec<_> =
                is_put_out.then_some(Control::PutOut(ann, room)).into_iter().collect();
            assert_eq!(mailbox.take_orders(), out, "{at} {is_late}");
        }
    }
}
