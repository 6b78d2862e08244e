//! The contract of the `broker` port: what every broker does, whatever it is made of.
//!
//! Each function takes a factory that answers a broker without rooms. It never sleeps and starts
//! no thread, but waits for mailboxes: a broker that loses a message would hang it without a time
//! limit. [`broker_contract_tests!`](crate::broker_contract_tests) makes a test with one of each.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a contract suite is a test")]

mod log;
mod membership;
mod order;
mod watching;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use domain::delivery::Class;
use domain::id::{ConnectionId, MessageId, UserId};
use domain::message::{Publication, Publish, Publisher, Sender};
use domain::policy::{Access, NamespacePolicy};
use domain::position::Offset;
use domain::retention::Retention;
use domain::room::RoomId;
use domain::tags::Tags;
use domain::time::Wall;

use crate::mailbox::{Mail, Mailbox, Post};
use crate::ports::{Broker, LogPage, ReadLog, Receipt, SubscriptionToken};
use crate::published::Published;

pub use log::*;
pub use membership::*;
pub use order::*;
pub use watching::*;

/// One `#[tokio::test]` for each part of the contract; takes a factory: an expression that can be
/// called and answers a future of an `Arc<dyn Broker>`. The second argument is a
/// function that awaits one part, which has no answer, under a time limit. `without patterns` leaves
/// out what is about patterns of rooms.
#[macro_export]
macro_rules! broker_contract_tests {
    ($factory:expr, $run:path) => {
        $crate::broker_contract_tests!($factory, $run, without patterns);
        $crate::broker_contract_tests!($factory, $run;
            a_watcher_gets_every_room_of_its_patterns_in_order
            what_is_watched_and_subscribed_comes_once
            the_later_set_of_patterns_counts
        );
    };
    ($factory:expr, $run:path, without patterns) => {
        $crate::broker_contract_tests!($factory, $run;
            publications_get_offsets_without_holes_in_one_epoch
            an_answered_publish_is_in_the_log
            what_may_be_acknowledged_when_it_is_delivered_is_answered_at_that_level
            every_mailbox_gets_what_was_published_byte_for_byte
            two_mailboxes_see_one_order
            concurrent_publishers_see_one_total_order
            a_repeated_msg_id_answers_the_first_position_and_is_not_delivered_again
            msg_ids_of_other_publishers_or_rooms_do_not_meet
            a_publish_without_msg_id_is_never_a_duplicate
            everything_behind_the_answered_position_arrives
            subscribing_again_keeps_one_subscription
            ending_an_older_subscription_changes_nothing
            pages_have_no_holes_and_say_whether_more_follows
            a_page_keeps_its_byte_limit_but_holds_at_least_one_message
            a_position_at_or_ahead_of_the_top_reads_nothing
            an_expired_message_is_read_as_its_tombstone
            a_message_without_position_is_delivered_and_not_logged
            the_newest_of_each_key_meets_who_subscribes
            rooms_do_not_mix
            retention_drops_the_oldest_and_the_bounds_say_so
            retention_counts_bytes
            aged_messages_are_gone
            a_room_that_keeps_no_history_still_gives_positions
        );
    };
    ($factory:expr, $run:path; $($name:ident)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                $run($crate::testing::broker_contract::$name($factory)).await;
            }
        )*
    };
}

/// More mail than any part of a contract makes wait.
pub const MAIL_MAX: usize = 4_096;

/// When everything in this suite happens: seconds behind a fixed moment.
#[must_use]
pub fn at(seconds: i64) -> Wall {
    Wall::from_millis(1_763_717_880_000 + seconds * 1_000)
}

/// A room's name.
#[must_use]
pub fn room(name: &str) -> RoomId {
    RoomId::parse(name).unwrap()
}

/// A policy that keeps what fits `retention`, without an archive.
#[must_use]
pub fn policy(retention: Retention) -> Arc<NamespacePolicy> {
    Arc::new(NamespacePolicy {
        subscribe: Access::Anyone,
        publish: Access::Anyone,
        presence: Access::Anyone,
        history: Access::Anyone,
        presence_listed: true,
        presence_named_max: 1_000,
        retention,
        default_class: Class::Reliable,
        durable: false,
        replicated: false,
        members_max: 1_000,
        patterns: true,
    })
}

/// A `reliable` publish of `user`, without a `msg_id`, whose data names it.
#[must_use]
pub fn publish(room_name: &str, user: &str, text: &str) -> Publish {
    let user = UserId::parse(user).unwrap();
    Publish {
        room: room(room_name),
        publisher: Publisher::User(user.clone()),
        msg_id: None,
        class: Class::Reliable,
        key: None,
        sender: Sender {
            user: Some(user),
            name: None,
            connection: Some(ConnectionId::from_bits(1)),
            trace: None,
        },
        data: Bytes::from(format!("\"{text}\"")),
        tags: Tags::default(),
        ttl: None,
        origin: None,
        at: at(0),
        fence: None,
    }
}

/// The same publish under a `msg_id`.
#[must_use]
pub fn named(publish: Publish, msg_id: &str) -> Publish {
    Publish { msg_id: MessageId::parse(msg_id).ok(), ..publish }
}

/// Waits until `count` pieces of mail have come.
pub async fn receive(mailbox: &Mailbox, count: usize) -> Vec<Mail> {
    let mut all = Vec::new();
    loop {
        let mut post = Post::default();
        mailbox.take(&mut post);
        assert!(post.holes.is_empty(), "the suite's mailboxes are large enough");
        all.extend(post.mail);
        if all.len() >= count {
            return all;
        }
        mailbox.arrival().await;
    }
}

/// Waits until `count` publications have come, and nothing else.
pub async fn receive_published(mailbox: &Mailbox, count: usize) -> Vec<Arc<Published>> {
    let mail = receive(mailbox, count).await;
    let published = mail.into_iter().map(|mail| match mail {
        Mail::Publication(published) => published,
        Mail::Presence(..) => panic!("only publications were expected"),
    });
    published.collect()
}

/// Lets every future that waits go on once.
async fn step_aside() {
    let mut stepped = false;
    poll_fn(|context| {
        if std::mem::replace(&mut stepped, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Runs all futures in turns until all have ended.
async fn join_all<'a>(futures: impl IntoIterator<Item = Pin<Box<dyn Future<Output = ()> + 'a>>>) {
    let mut running: Vec<_> = futures.into_iter().collect();
    poll_fn(|context| {
        running.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if running.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

fn offset(number: u64) -> Offset {
    Offset::parse(number).unwrap()
}

fn offsets(messages: &[Arc<Published>]) -> Vec<u64> {
    messages.iter().map(|message| message.publication.offset.unwrap().get()).collect()
}

fn text(publication: &Publication) -> &str {
    std::str::from_utf8(&publication.data).unwrap().trim_matches('"')
}

fn texts(messages: &[Arc<Published>]) -> Vec<&str> {
    messages.iter().map(|message| text(&message.publication)).collect()
}

fn read_log(after: u64, messages_max: u32) -> ReadLog {
    ReadLog { after: offset(after), messages_max, bytes_max: 1 << 20, now: at(1) }
}

/// A broker, a policy and a room that most parts need.
struct Scene {
    broker: Arc<dyn Broker>,
    policy: Arc<NamespacePolicy>,
    room: RoomId,
}

impl Scene {
    const ROOM: &str = "public:a";

    fn new(broker: Arc<dyn Broker>, retention: Retention) -> Self {
        Self { broker, policy: policy(retention), room: room(Self::ROOM) }
    }

    async fn publish(&self, publish: Publish) -> Receipt {
        self.broker.publish(publish, &self.policy).await.unwrap()
    }

    async fn say(&self, text: &str) -> Receipt {
        self.publish(publish(Self::ROOM, "u1", text)).await
    }

    async fn say_numbers(&self, count: u64) {
        for number in 1..=count {
            self.say(&number.to_string()).await;
        }
    }

    async fn subscribe(&self, mailbox: &Arc<Mailbox>, token: u64) -> crate::ports::RoomTop {
        let token = SubscriptionToken(token);
        self.broker.subscribe(&self.room, &self.policy, mailbox, token).await.unwrap()
    }

    async fn mailbox(&self, id: u64) -> Arc<Mailbox> {
        let mailbox = Arc::new(Mailbox::new(id, MAIL_MAX));
        self.subscribe(&mailbox, 1).await;
        mailbox
    }

    async fn read(&self, read: ReadLog) -> LogPage {
        self.broker.read(&self.room, &self.policy, read).await.unwrap()
    }
}

/// Makes a broker without rooms.
pub trait Factory<F: Future<Output = Arc<dyn Broker>>>: Fn() -> F {}
impl<F: Future<Output = Arc<dyn Broker>>, T: Fn() -> F> Factory<F> for T {}
