//! This node as its peers know it: answers what they ask, and obeys what they tell.
//!
//! It must never answer with less than it was asked for as if that were all, and never ask its peers in turn.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use domain::moderation::{Act, Entry};

use crate::directory::Directory;
use crate::mailbox::{Control, Mailbox};
use crate::ports::{Moderation, NodeName, Peer, PeerAnswer, PeerQuestion};
use crate::use_cases::end_connections::EndConnections;
use crate::use_cases::list_connections::{ConnectionCursor, ConnectionsPage, ListConnections};

/// See the module's text.
pub(crate) struct ThisNode {
    pub(crate) name: Option<NodeName>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) mailboxes: Vec<Arc<Mailbox>>,
    pub(crate) moderation: Option<Arc<dyn Moderation>>,
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

#[async_trait]
impl Peer for ThisNode {
    async fn answer(&self, question: PeerQuestion) -> Option<PeerAnswer> {
        // The semaphore is never closed. Whoever asks waits for no longer than it wants to.
        let _turn = self.directory.listing.0.acquire().await.ok();
        match question {
            PeerQuestion::Rooms(list) => {
                list.execute(&self.mailboxes).await.ok().map(PeerAnswer::Rooms)
            }
            PeerQuestion::Connections { of, from, connections_max } => {
                let Some(from) = begins(self.name.as_ref()?, from.as_ref()) else {
                    return Some(PeerAnswer::Connections(ConnectionsPage::default()));
                };
                let list = ListConnections { of, from, connections_max };
                list.execute(&self.mailboxes).await.ok().map(PeerAnswer::Connections)
            }
            PeerQuestion::End { whom, code } => {
                let ended = EndConnections { whom, code }.execute(&self.mailboxes).await;
                ended.ok().map(PeerAnswer::Ended)
            }
        }
    }

    async fn moderated(&self, entry: Entry) {
        let Some(moderation) = &self.moderation else { return };
        // Remembered first: whoever is put out finds that it may not come back. But nobody stays because the
        // storage is slow.
        let mut recording = moderation.record(&entry);
        let at_once = poll_fn(|cx| Poll::Ready(recording.as_mut().poll(cx))).await;
        put_out(&entry, &self.mailboxes);
        let recorded = match at_once {
            Poll::Ready(recorded) => recorded,
            Poll::Pending => recording.await,
        };
        if let Err(error) = recorded {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "what a moderator did over another node is not stored here");
        }
    }
}
