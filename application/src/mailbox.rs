//! The one way into a shard from outside: bounded, and honest about what did not fit.
//!
//! It is bounded in number and in bytes. Publications that do not fit leave a hole that the shard
//! fills by position; control is never dropped. It must never block the broker.
//!
//! One crowded shard slows all publishers of its node, on purpose: a message may have members on
//! any shard, and a publisher that waits costs less than a hole that is read from the log. Who
//! waited looks again before going on, so the crowd does not grow by all who waited for its end;
//! the order in which they go on is not promised.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::codes::CloseCode;
use domain::id::{ConnectionId, UserId};
use domain::presence::PresenceEvent;
use domain::revocation::Revocation;
use domain::room::RoomId;
use domain::time::Monotonic;
use tokio::sync::Notify;

use crate::inquiry::Inquiry;
use crate::limits::Limits;
use crate::published::Published;
use crate::services::Services;

/// What mail takes beside its data, about: itself, its names, its place in the queue.
const MAIL_OVERHEAD_BYTES: usize = 256;

/// Something for the members of a room.
#[derive(Clone, Debug)]
pub enum Mail {
    /// A message for the members of its room.
    Publication(Arc<Published>),
    /// A change for the followers of a room.
    Presence(RoomId, Arc<PresenceEvent>),
}

impl Mail {
    /// How much of the mailbox's bytes it takes.
    fn weight(&self) -> usize {
        let bytes = match self {
            Self::Publication(published) => {
                published.publication.data.len() + published.publication.tags.cost_bytes()
            }
            Self::Presence(_, event) => event.data.len(),
        };
        bytes + MAIL_OVERHEAD_BYTES
    }

    fn into_room(self) -> RoomId {
        match self {
            Self::Publication(published) => published.publication.room.clone(),
            Self::Presence(room, _) => room,
        }
    }
}

/// An order from outside.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Control {
    /// End one connection.
    Disconnect(ConnectionId, CloseCode),
    /// End all connections of a user.
    DisconnectUser(UserId, CloseCode),
    /// End what was revoked.
    Revoke(Revocation),
    /// Tell every connection to come back later, spread until this moment, and take no new ones; how,
    /// is among the rules.
    Drain {
        /// When the last connection is closed.
        until: Monotonic,
    },
    /// Take all connections of a user out of a room.
    PutOut(UserId, RoomId),
    /// Something waits for a user: give it to one of its connections.
    Ring(UserId),
    /// Answer a bounded piece of what somebody outside asks.
    Inquire(Inquiry),
    /// Go on under other rules; what is under way ends under those it began with.
    Adopt(NewServices),
}

/// What a shard goes on with. Equal to another when both are the same value in memory.
#[derive(Clone)]
pub struct NewServices(pub Arc<Services>);

impl fmt::Debug for NewServices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewServices")
    }
}

impl PartialEq for NewServices {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for NewServices {}

/// What came since the last look.
#[derive(Debug, Default)]
pub struct Post {
    /// In the order it came.
    pub mail: VecDeque<Mail>,
    /// Rooms of which something did not fit, or did not come.
    pub holes: BTreeSet<RoomId>,
    /// Whether something may be missing of any room that is watched by a prefix of its name.
    pub watched_hole: bool,
    /// Whether a change of who is there may be missing, of any room.
    pub presence_hole: bool,
}

impl Post {
    /// Whether nothing came, and nothing is known to have been missed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let is_whole = self.holes.is_empty() && !self.watched_hole && !self.presence_hole;
        self.mail.is_empty() && is_whole
    }
}

#[derive(Debug, Default)]
struct Inner {
    post: Post,
    /// The weight of all mail in `post`.
    mail_bytes: usize,
    control: Vec<Control>,
}

/// A shard's mailbox, shared with whoever has something for it.
#[derive(Debug)]
pub struct Mailbox {
    id: u64,
    publications_max: usize,
    bytes_max: usize,
    /// Held for a push or a swap, never across anything that waits.
    inner: Mutex<Inner>,
    arrived: Notify,
    /// Whether a quarter of either maximum waits; read without the lock, once per publish.
    crowded: AtomicBool,
    relieved: Notify,
}

impl Mailbox {
    /// An empty mailbox; `id` is unique among all mailboxes of a broker. At most
    /// `publications_max` publications and presence events wait in it, and at most as many bytes
    /// as [`Limits`] has by default; [`with_bytes_max`](Self::with_bytes_max) sets another number.
    #[must_use]
    pub fn new(id: u64, publications_max: usize) -> Self {
        Self {
            id,
            publications_max,
            bytes_max: Limits::MAILBOX_BYTES_MAX,
            inner: Mutex::default(),
            arrived: Notify::new(),
            crowded: AtomicBool::new(false),
            relieved: Notify::new(),
        }
    }

    /// The same mailbox for at most `bytes_max` bytes of data, with something added for each
    /// publication and presence event.
    #[must_use]
    pub fn with_bytes_max(self, bytes_max: usize) -> Self {
        Self { bytes_max, ..self }
    }

    /// What tells this mailbox from others.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Puts mail in; beyond either maximum it becomes a hole of its room. A publisher that can
    /// wait should wait for [`relief_of_all`](Self::relief_of_all) before it publishes.
    pub fn put(&self, mail: Mail) {
        let weight = mail.weight();
        let mut inner = self.lock();
        let waiting = inner.post.mail.len();
        // A hole comes first where one message alone is above the maximum.
        let is_first = waiting == 0 && inner.post.holes.is_empty();
        let mail_bytes = inner.mail_bytes.saturating_add(weight);
        if waiting >= self.publications_max || mail_bytes > self.bytes_max {
            inner.post.holes.insert(mail.into_room());
        } else {
            inner.post.mail.push_back(mail);
            inner.mail_bytes = mail_bytes;
            if waiting >= self.publications_max / 4 || mail_bytes >= self.bytes_max / 4 {
                self.crowded.store(true, Ordering::Release);
            }
        }
        drop(inner);
        if is_first {
            self.arrived.notify_one();
        }
    }

    /// Something of a room did not come: it is a hole like what does not fit.
    pub fn miss(&self, room: &RoomId) {
        self.lock().post.holes.insert(room.clone());
        self.arrived.notify_one();
    }

    /// Something may not have come of rooms that are watched by a prefix, and nobody can say of which.
    pub fn miss_watched(&self) {
        self.lock().post.watched_hole = true;
        self.arrived.notify_one();
    }

    /// A change of who is in a room may not have come, and nobody can say of which.
    pub fn miss_presence(&self) {
        self.lock().post.presence_hole = true;
        self.arrived.notify_one();
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
        inner.mail_bytes = 0;
        if self.crowded.swap(false, Ordering::AcqRel) {
            drop(inner);
            self.relieved.notify_waiters();
        }
    }

    /// How much mail waits, and how many bytes of it count.
    #[must_use]
    pub fn depth(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.post.mail.len(), inner.mail_bytes)
    }

    /// Takes all orders.
    pub fn take_orders(&self) -> Vec<Control> {
        std::mem::take(&mut self.lock().control)
    }

    /// Waits until something may be there. May answer without anything.
    pub async fn arrival(&self) {
        self.arrived.notified().await;
    }

    /// Waits until the mailbox is not crowded. All who wait are woken at once, and the first of
    /// them may crowd it again: the others go on waiting.
    pub async fn relief(&self) {
        while self.is_crowded() {
            let relieved = self.relieved.notified();
            // Registered before the look, so that an emptying in between is not missed.
            let mut relieved = std::pin::pin!(relieved);
            relieved.as_mut().enable();
            if self.is_crowded() {
                relieved.await;
            }
        }
    }

    /// Waits until none of the mailboxes is crowded: one may become so while another is waited
    /// for.
    pub async fn relief_of_all(mailboxes: &[Arc<Self>]) {
        while let Some(crowded) = mailboxes.iter().find(|mailbox| mailbox.is_crowded()) {
            crowded.relief().await;
        }
    }

    fn is_crowded(&self) -> bool {
        self.crowded.load(Ordering::Acquire)
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
    use domain::presence::{PresenceChange, PresenceKey};
    use domain::tags::Tags;
    use domain::time::Wall;

    fn publication(room: &str, offset: u64) -> Mail {
        sized(room, offset, 1)
    }

    fn sized(room: &str, offset: u64, bytes: usize) -> Mail {
        Mail::Publication(Arc::new(Published::new(Publication {
            room: RoomId::parse(room).unwrap(),
            epoch: Epoch::from_bits(1),
            offset: Offset::parse(offset).ok(),
            class: Class::Reliable,
            key: None,
            sender: Sender::default(),
            data: Bytes::from(vec![b'1'; bytes]),
            tags: Tags::default(),
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

    #[test]
    fn what_is_above_the_maximum_of_bytes_is_a_hole_and_taking_the_mail_makes_room() {
        let mailbox = Mailbox::new(1, 100).with_bytes_max(2_000);
        // 744 and 256 bytes are half of it.
        mailbox.put(sized("public:a", 1, 744));
        let event = PresenceEvent {
            seq: 1,
            change: PresenceChange::Update,
            who: PresenceKey::Anonymous(ConnectionId::from_bits(1)),
            data: Bytes::from(vec![b'1'; 744]),
            total: 1,
        };
        mailbox.put(Mail::Presence(RoomId::parse("public:b").unwrap(), Arc::new(event)));
        mailbox.put(sized("public:c", 1, 1));
        let mut post = Post::default();
        mailbox.take(&mut post);
        let holes: Vec<_> = post.holes.iter().map(ToString::to_string).collect();
        assert_eq!((post.mail.len(), holes), (2, vec!["public:c".to_owned()]));
        let mut later = Post::default();
        mailbox.put(sized("public:c", 2, 1_744));
        mailbox.take(&mut later);
        assert_eq!((later.mail.len(), later.holes.len()), (1, 0));
    }

    #[test]
    fn a_quarter_of_the_bytes_is_a_crowd() {
        let mailbox = Mailbox::new(1, 100).with_bytes_max(4_000);
        mailbox.put(sized("public:a", 1, 743));
        assert!(!mailbox.crowded.load(Ordering::Acquire));
        mailbox.take(&mut Post::default());
        mailbox.put(sized("public:a", 2, 744));
        assert!(mailbox.crowded.load(Ordering::Acquire));
        mailbox.take(&mut Post::default());
        assert!(!mailbox.crowded.load(Ordering::Acquire));
    }

    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn publishers_that_waited_together_look_again_before_each_goes_on() {
        let mailboxes: Arc<[_]> = [1, 2].map(|id| Arc::new(Mailbox::new(id, 4))).into();
        let crowd = |mailbox: &Mailbox| {
            mailbox.put(publication("public:a", 1));
            mailbox.put(publication("public:a", 2));
        };
        crowd(&mailboxes[1]);
        let gone_on = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        for _ in 0..3 {
            let (mailboxes, gone_on) = (Arc::clone(&mailboxes), Arc::clone(&gone_on));
            tokio::spawn(async move {
                Mailbox::relief_of_all(&mailboxes).await;
                gone_on.fetch_add(1, Ordering::Relaxed);
                crowd(&mailboxes[0]);
            });
        }
        settle().await;
        assert_eq!(gone_on.load(Ordering::Relaxed), 0);
        // The first crowds the other mailbox, which those behind it have looked at before.
        for (emptied, n_gone_on) in [(1, 1), (0, 2), (0, 3)] {
            mailboxes[emptied].take(&mut Post::default());
            settle().await;
            assert_eq!(gone_on.load(Ordering::Relaxed), n_gone_on);
        }
    }

    #[tokio::test]
    async fn a_message_that_never_fits_wakes_the_shard_for_its_hole() {
        let mailbox = Mailbox::new(1, 100).with_bytes_max(300);
        mailbox.put(sized("public:a", 1, 300));
        mailbox.arrival().await;
        let mut post = Post::default();
        mailbox.take(&mut post);
        assert_eq!((post.mail.len(), post.holes.len()), (0, 1));
    }
}
