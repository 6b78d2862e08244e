//! The one way into a shard from outside: bounded, and honest about what did not fit.
//!
//! Publications that do not fit leave a hole that the shard fills by position; control is never
//! dropped. It must never block a publisher.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::codes::CloseCode;
use domain::id::{ConnectionId, UserId};
use domain::presence::PresenceEvent;
use domain::room::RoomId;
use domain::time::Monotonic;
use tokio::sync::Notify;

use crate::published::Published;

/// One thing for a shard to do.
#[derive(Clone, Debug)]
pub enum Mail {
    /// A message for the members of its room.
    Publication(Arc<Published>),
    /// A change for the followers of a room.
    Presence(RoomId, Arc<PresenceEvent>),
    /// An order; never dropped.
    Control(Control),
}

/// An order from outside.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Control {
    /// End one connection.
    Disconnect(ConnectionId, CloseCode),
    /// End all connections of a user.
    DisconnectUser(UserId, CloseCode),
    /// Tell every connection to come back later, spread until this moment, and take no new ones.
    Drain {
        /// When the last connection is closed.
        until: Monotonic,
    },
}

/// What came since the last look.
#[derive(Debug, Default)]
pub struct Post {
    /// In the order it came.
    pub mail: VecDeque<Mail>,
    /// Rooms of which something did not fit.
    pub holes: BTreeSet<RoomId>,
}

#[derive(Debug, Default)]
struct Inner {
    post: Post,
    droppable: usize,
}

/// A shard's mailbox, shared with whoever has something for it.
#[derive(Debug)]
pub struct Mailbox {
    id: u64,
    publications_max: usize,
    /// Held for a push or a swap, never across anything that waits.
    inner: Mutex<Inner>,
    notify: Notify,
}

impl Mailbox {
    /// The most publications and presence events that wait for one shard.
    pub const PUBLICATIONS_MAX: usize = 65_536;

    /// An empty mailbox; `id` is unique among all mailboxes of a broker.
    #[must_use]
    pub fn new(id: u64, publications_max: usize) -> Self {
        Self { id, publications_max, inner: Mutex::default(), notify: Notify::new() }
    }

    /// What tells this mailbox from others.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Puts something in. Publications and presence events beyond the maximum become a hole of
    /// their room.
    pub fn put(&self, mail: Mail) {
        let mut inner = self.lock();
        let room = match &mail {
            Mail::Publication(published) => Some(&published.publication.room),
            Mail::Presence(room, _) => Some(room),
            Mail::Control(_) => None,
        };
        if let Some(room) = room {
            if inner.droppable >= self.publications_max {
                let room = room.clone();
                inner.post.holes.insert(room);
                return;
            }
            inner.droppable += 1;
        }
        let was_empty = inner.post.mail.is_empty();
        inner.post.mail.push_back(mail);
        drop(inner);
        if was_empty {
            self.notify.notify_one();
        }
    }

    /// Takes all that came into `post`, which should be empty; its storage is used again.
    pub fn take(&self, post: &mut Post) {
        let mut inner = self.lock();
        inner.droppable = 0;
        std::mem::swap(&mut inner.post, post);
    }

    /// Waits until something may be there. May answer without anything.
    pub async fn wait(&self) {
        self.notify.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while the lock is held can only come from memory running out in a push; the
        // queue itself is whole then.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use domain::delivery::Class;
    use domain::id::Epoch;
    use domain::message::{Publication, Sender};
    use domain::position::Offset;
    use domain::time::Wall;

    fn publication(room: &str, offset: u64) -> Mail {
        Mail::Publication(Arc::new(Published::new(Publication {
            room: RoomId::parse(room).unwrap(),
            epoch: Epoch::from_bits(1),
            offset: Offset::parse(offset).ok(),
            class: Class::Reliable,
            key: None,
            sender: Sender::default(),
            data: Bytes::from_static(b"1"),
            origin: None,
            at: Wall::default(),
            expires_at: None,
            tombstone: None,
        })))
    }

    #[test]
    fn what_does_not_fit_is_a_hole_of_its_room_and_control_always_fits() {
        let mailbox = Mailbox::new(1, 2);
        for offset in 1..=4 {
            mailbox.put(publication("public:a", offset));
        }
        mailbox.put(Mail::Control(Control::Drain { until: Monotonic::START }));
        let mut post = Post::default();
        mailbox.take(&mut post);
        assert_eq!(post.mail.len(), 3);
        assert_eq!(post.holes.len(), 1);
        let mut later = Post::default();
        mailbox.put(publication("public:a", 5));
        mailbox.take(&mut later);
        assert_eq!((later.mail.len(), later.holes.len()), (1, 0));
    }
}
