//! Lists the connections of a node page by page, for the server API.
//!
//! Shards are asked one after the other, each a bounded piece at a time. The order is that of
//! shards and slots: whoever is there throughout is in exactly one page. The caller has been
//! authorised by its key.

use std::sync::Arc;

use crate::inquiry::{Answer, ConnectionHere, Of, PAGE_MAX, Question, Unanswered, ask};
use crate::mailbox::Mailbox;

/// Where a page begins. It means something to the process that gave it only.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ConnectionCursor {
    /// The number of the shard.
    pub shard: u32,
    /// The slot in it.
    pub slot: u32,
}

/// A question for a page of connections.
#[derive(Clone, Debug, Default)]
pub struct ListConnections {
    /// Which ones.
    pub of: Of,
    /// Where to begin: what the page before ended with.
    pub from: ConnectionCursor,
    /// The most connections of the page; above [`PAGE_MAX`] that many.
    pub connections_max: u32,
}

/// A page of connections.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ConnectionsPage {
    /// In the order of shards and slots.
    pub connections: Vec<ConnectionHere>,
    /// Where the next page begins; it may turn out to be empty. None at the end.
    pub next: Option<ConnectionCursor>,
}

impl ListConnections {
    /// Asks shard by shard, until the page is full.
    ///
    /// # Errors
    /// [`Unanswered`] when a shard has ended.
    pub async fn execute(self, mailboxes: &[Arc<Mailbox>]) -> Result<ConnectionsPage, Unanswered> {
        let connections_max = self.connections_max.clamp(1, PAGE_MAX) as usize;
        let mut page = ConnectionsPage { next: Some(self.from), ..ConnectionsPage::default() };
        while let Some(at) = page.next {
            let Some(mailbox) = mailboxes.get(at.shard as usize) else {
                page.next = None;
                break;
            };
            let left = connections_max - page.connections.len();
            if left == 0 {
                break;
            }
            let (from, of) = (at.slot, self.of.clone());
            let question = Question::Connections { from, of, connections_max: left };
            let Answer::Connections { connections, next } = ask(mailbox, question).await? else {
                return Err(Unanswered);
            };
            page.connections.extend(connections);
            page.next = Some(match next {
                Some(slot) => ConnectionCursor { slot, ..at },
                None => ConnectionCursor { shard: at.shard + 1, slot: 0 },
            });
        }
        Ok(page)
    }
}
