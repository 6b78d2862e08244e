//! The one way into a shard from outside: bounded, and honest about what did not fit.
//!
//! Publications that do not fit leave a hole that the shard fills by position; control is never
//! dropped. It must never block a publisher.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::codes::CloseCode;
use domain::id::{ConnectionId, UserId};
use domain::presence::PresenceEvent;
use domain::room::RoomId;
use domain::time::Monotonic;
use tokio::sync::Notify;

use crate::published::Published;

/// Something for the members of a room.
#[derive(Clone, Debug)]
pub enum Mail {
    /// A message for the members of its room.
    Publication(Arc<Published>),
    /// A change for the followers of a room.
    Presence(RoomId, Arc<PresenceEvent>),
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
    control: Vec<Control>,
}

/// A shard's mailbox, shared with whoever has something for it.
#[derive(Debug)]
pub struct Mailbox {
    id: u64,
    publications_max: usize,
    /// Held for a push or a swap, never across anything that waits.
    inner: Mutex<Inner>,
    arrived: Notify,
    /// Whether a quarter of the maximum waits; read without the lock, once per publish.
    crowded: AtomicBool,
    relieved: Notify,
}

impl Mailbox {
    /// An empty mailbox; `id` is unique among all mailboxes of a broker. At most
    /// `publications_max` publications and presence events wait in it.
    #[must_use]
    pub fn new(id: u64, publications_max: usize) -> Self {
        Self {
            id,
            publications_max,
            inner: Mutex::default(),
            arrived: Notify::new(),
            crowded: AtomicBool::new(false),
            relieved: Notify::new(),
        }
    }

    /// What tells this mailbox from others.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Puts mail in; beyond the maximum it becomes a hole of its room. A publisher that can wait
    /// should wait for [`relief`](Self::relief) before it publishes.
    pub fn put(&self, mail: Mail) {
        let mut inner = self.lock();
        let waiting = inner.post.mail.len();
        if waiting >= self.publications_max {
            let room = match mail {
                Mail::Publication(published) => published.publication.room.clone(),
                Mail::Presence(room, _) => room,
            };
            inner.post.holes.insert(room);
            return;
        }
        inner.post.mail.push_back(mail);
        if waiting >= self.publications_max / 4 {
            self.crowded.store(true, Ordering::Release);
        }
        drop(inner);
        if waiting == 0 {
            self.arrived.notify_one();
        }
    }

    /// Gives an order; it is never dropped.
    pub fn order(&self, control: Control) {
        self.lock().control.push(control);
        self.arrived.notify_one();
    }

    /// Takes all mail into `post`, which should be empty; its storage is used again.
    pub fn take(&self, post: &mut Post) {
        let mut inner = self.lock();
        std::mem::swap(&mut inner.post, post);
        if self.crowded.swap(false, Ordering::AcqRel) {
            drop(inner);
            self.relieved.notify_waiters();
        }
    }

    /// Takes all orders.
    pub fn take_orders(&self) -> Vec<Control> {
        std::mem::take(&mut self.lock().control)
    }

    /// Waits until something may be there. May answer without anything.
    pub async fn arrival(&self) {
        self.arrived.notified().await;
    }

    /// Waits until a crowded mailbox has been emptied.
    pub async fn relief(&self) {
        if !self.crowded.load(Ordering::Acquire) {
            return;
        }
        let relieved = self.relieved.notified();
        // Registered before the look, so that an emptying in between is not missed.
        let mut relieved = std::pin::pin!(relieved);
        relieved.as_mut().enable();
        if self.crowded.load(Ordering::Acquire) {
            relieved.await;
        }
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
        mailbox.order(Control::Drain { until: Monotonic::START });
        let mut post = Post::default();
        mailbox.take(&mut post);
        assert_eq!((post.mail.len(), mailbox.take_orders().len()), (2, 1));
        assert_eq!(post.holes.len(), 1);
        let mut later = Post::default();
        mailbox.put(publication("public:a", 5));
        mailbox.take(&mut later);
        assert_eq!((later.mail.len(), later.holes.len()), (1, 0));
    }
}
