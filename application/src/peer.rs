//! This node as its peers know it: answers what they ask, and obeys what they tell.
//!
//! It must never answer with less than it was asked for as if that were all, and never ask its peers in turn.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use domain::id::UserId;
use domain::moderation::{Act, Deed, Entry};
use domain::time::Wall;

use crate::directory::Directory;
use crate::mailbox::{Control, Mailbox};
use crate::ports::{Clock, Moderation, NodeName, Peer, PeerAnswer, PeerQuestion};
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

/// The acts of one page, and the most that are read of what moderators did while this node was away.
const PAGE_ACTS: u32 = 256;
const ACTS_MAX: usize = 4_096;

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
            PeerQuestion::Hears(user) => {
                let is_here = self.directory.connections_of(&user) > 0;
                is_here.then(|| PeerAnswer::Hears(self.directory.is_heard(&user)))
            }
        }
    }

    async fn moderated(&self, entry: Entry) {
        let Some(moderation) = &self.moderation else { return };
        self.directory.acts.note(&entry);
        // Remembered first: whoever is put out finds that it may not come back. But nobody stays because the
        // storage is slow.
        let mut recording = moderation.record(&entry);
        let at_once = poll_fn(|cx| Poll::Ready(recording.as_mut().poll(cx))).await;
        // One that is over by now, or crossed a later one that took it back, puts nobody out.
        let counts = match &entry.act {
            Act::Ban(user, _) => {
                let now = self.clock.now().wall;
                moderation.forbids(user, &entry.room, Deed::Enter, now).is_some()
            }
            Act::Mute(..) | Act::Unmute(_) | Act::Kick(_) | Act::Unban(_) | Act::Delete(_) => true,
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

    async fn acts_of_the_last(&self, span: Duration) -> Option<Vec<Entry>> {
        let Some(moderation) = &self.moderation else { return Some(Vec::new()) };
        let span_ms = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        let now_ms = self.clock.now().wall.as_millis();
        let begin = Wall::from_millis(now_ms.saturating_sub(span_ms));
        let (mut acts, mut before) = (Vec::new(), None);
        loop {
            let page = moderation.read(before, PAGE_ACTS).await.ok()?;
            let is_last = page.len() < PAGE_ACTS as usize;
            before = page.last().map(|(id, _)| *id);
            let known = acts.len();
            let young = page.into_iter().map(|(_, act)| act).take_while(|act| act.at >= begin);
            acts.extend(young);
            if is_last || acts.len() < known + PAGE_ACTS as usize || acts.len() >= ACTS_MAX {
                break;
            }
        }
        acts.reverse();
        Some(acts)
    }

    fn users_heard(&self) -> Vec<UserId> {
        self.directory.users_heard()
    }

    fn letters_wait(&self, user: &UserId) {
        if self.directory.is_heard(user) {
            ring(user, &self.mailboxes);
        }
    }
}
