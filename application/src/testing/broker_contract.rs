//! The contract of the `broker` port: what every broker does, whatever it is made of.
//!
//! Each function takes a factory that answers a broker without rooms. It never sleeps and starts
//! no thread; it waits for mailboxes, so a broker that loses a message hangs it: run it under a
//! time limit. [`broker_contract_tests!`](crate::broker_contract_tests) makes one test of each.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a contract suite is a test")]

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use domain::delivery::Class;
use domain::id::{ConnectionId, MessageId, MessageKey, UserId};
use domain::message::{Origin, Publication, Publish, Publisher, Sender, TombstoneReason};
use domain::policy::{Access, NamespacePolicy};
use domain::position::Offset;
use domain::retention::Retention;
use domain::room::RoomId;
use domain::time::Wall;

use crate::mailbox::{Mail, Mailbox, Post};
use crate::ports::{Broker, LogPage, ReadLog, Receipt, SubscriptionToken};
use crate::published::Published;

/// One `#[tokio::test]` for each part of the contract; takes a factory: an expression that can be
/// called and answers a future of an `Arc<dyn Broker>`.
#[macro_export]
macro_rules! broker_contract_tests {
    ($factory:expr) => {
        $crate::broker_contract_tests!($factory;
            publications_get_offsets_without_holes_in_one_epoch
            an_answered_publish_is_in_the_log
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
    ($factory:expr; $($name:ident)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                $crate::testing::broker_contract::$name($factory).await;
            }
        )*
    };
}

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
        retention,
        default_class: Class::Reliable,
        durable: false,
        members_max: 1_000,
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
        sender: Sender { user: Some(user), connection: Some(ConnectionId::from_bits(1)) },
        data: Bytes::from(format!("\"{text}\"")),
        ttl: None,
        origin: None,
        at: at(0),
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
        mailbox.wait().await;
    }
}

/// Waits until `count` publications have come, and nothing else.
pub async fn receive_published(mailbox: &Mailbox, count: usize) -> Vec<Arc<Published>> {
    let mail = receive(mailbox, count).await;
    let published = mail.into_iter().map(|mail| match mail {
        Mail::Publication(published) => published,
        Mail::Presence(..) | Mail::Control(_) => panic!("only publications were expected"),
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
        let mailbox = Arc::new(Mailbox::new(id, Mailbox::PUBLICATIONS_MAX));
        self.subscribe(&mailbox, 1).await;
        mailbox
    }

    async fn read(&self, read: ReadLog) -> LogPage {
        self.broker.read(&self.room, &self.policy, read).await.unwrap()
    }
}

macro_rules! scene {
    ($factory:expr) => {
        Scene::new($factory().await, Retention::default())
    };
    ($factory:expr, $retention:expr) => {
        Scene::new($factory().await, $retention)
    };
}

/// Makes a broker without rooms.
pub trait Factory<F: Future<Output = Arc<dyn Broker>>>: Fn() -> F {}
impl<F: Future<Output = Arc<dyn Broker>>, T: Fn() -> F> Factory<F> for T {}

/// Offsets are 1, 2, 3, and the epoch does not change.
pub async fn publications_get_offsets_without_holes_in_one_epoch<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = scene!(factory);
    let first = scene.say("1").await;
    for number in 1..=20 {
        let receipt = if number == 1 { first } else { scene.say("n").await };
        assert_eq!(receipt.offset, Some(offset(number)));
        assert_eq!((receipt.epoch, receipt.duplicate), (first.epoch, false));
    }
    let bounds = scene.read(read_log(0, 1)).await.bounds;
    assert_eq!((bounds.epoch, bounds.first, bounds.last), (first.epoch, offset(1), offset(20)));
}

/// What was acknowledged can be read at once.
pub async fn an_answered_publish_is_in_the_log<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = scene!(factory);
    for number in 1..=5 {
        scene.say("x").await;
        let page = scene.read(read_log(number - 1, 10)).await;
        assert_eq!((offsets(&page.messages), page.bounds.last), (vec![number], offset(number)));
    }
}

/// Nothing of a publication changes on its way.
pub async fn every_mailbox_gets_what_was_published_byte_for_byte<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = scene!(factory);
    let mailbox = scene.mailbox(1).await;
    let data = Bytes::from_static("{ \"b\":1,  \"a\":[1.0,\"\\u00e9é🦀\"],\"b\":2 }".as_bytes());
    let origin = Origin { connection: ConnectionId::from_bits(1), command: Some(7), echo: false };
    let ttl = Some(Duration::from_secs(60));
    let sent =
        Publish { data: data.clone(), ttl, origin: Some(origin), ..publish(Scene::ROOM, "u1", "") };
    let receipt = scene.publish(sent.clone()).await;
    let delivered = receive_published(&mailbox, 1).await;
    let read = scene.read(read_log(0, 1)).await.messages;
    for publication in [&delivered[0].publication, &read[0].publication] {
        assert_eq!(publication.data, data);
        assert_eq!((publication.epoch, publication.offset), (receipt.epoch, receipt.offset));
        assert_eq!((&publication.room, &publication.sender), (&sent.room, &sent.sender));
        assert_eq!((publication.at, publication.expires_at), (at(0), Some(at(60))));
        assert_eq!((publication.class, publication.tombstone), (Class::Reliable, None));
    }
    assert_eq!(delivered[0].publication.origin, Some(origin), "its connection is waiting for it");
}

/// Every mailbox gets everything, in the order of offsets.
pub async fn two_mailboxes_see_one_order<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = scene!(factory);
    let (one, two) = (scene.mailbox(1).await, scene.mailbox(2).await);
    scene.say_numbers(30).await;
    let (one, two) = (receive_published(&one, 30).await, receive_published(&two, 30).await);
    assert_eq!(offsets(&one), (1..=30).collect::<Vec<_>>());
    assert_eq!(texts(&one), texts(&two));
    assert_eq!(offsets(&one), offsets(&two));
}

/// Many publish at once: one order for all, and each publisher's own order is part of it.
pub async fn concurrent_publishers_see_one_total_order<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    const PUBLISHERS: usize = 8;
    const EACH: usize = 25;
    let scene = &scene!(factory);
    let (one, two) = (scene.mailbox(1).await, scene.mailbox(2).await);
    join_all((0..PUBLISHERS).map(|who| {
        Box::pin(async move {
            for number in 0..EACH {
                let text = format!("{who}/{number}");
                let sent = named(publish(Scene::ROOM, &format!("u{who}"), &text), &text);
                assert!(!scene.publish(sent).await.duplicate);
                step_aside().await;
            }
        }) as Pin<Box<dyn Future<Output = ()>>>
    }))
    .await;
    let all = PUBLISHERS * EACH;
    let (one, two) = (receive_published(&one, all).await, receive_published(&two, all).await);
    assert_eq!(offsets(&one), (1..=all as u64).collect::<Vec<_>>());
    assert_eq!((offsets(&one), texts(&one)), (offsets(&two), texts(&two)));
    for who in 0..PUBLISHERS {
        let mine = texts(&one).into_iter().filter(|text| text.starts_with(&format!("{who}/")));
        let sent: Vec<String> = (0..EACH).map(|number| format!("{who}/{number}")).collect();
        assert_eq!(mine.collect::<Vec<_>>(), sent);
    }
    assert_eq!(texts(&scene.read(read_log(0, 1_000)).await.messages), texts(&one));
}

/// A retry ends as one message, also while the first is on its way.
pub async fn a_repeated_msg_id_answers_the_first_position_and_is_not_delivered_again<F>(
    factory: impl Factory<F>,
) where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = &scene!(factory);
    let mailbox = scene.mailbox(1).await;
    let sent = || named(publish(Scene::ROOM, "u1", "once"), "m1");
    let first = scene.publish(sent()).await;
    scene.say("between").await;
    let again = scene.publish(sent()).await;
    assert_eq!(again, Receipt { duplicate: true, ..first });
    let fresh = std::cell::Cell::new(0);
    join_all((0..5).map(|_| {
        let fresh = &fresh;
        Box::pin(async move {
            let receipt = scene.publish(named(publish(Scene::ROOM, "u1", "raced"), "m2")).await;
            fresh.set(fresh.get() + u32::from(!receipt.duplicate));
            assert_eq!(receipt.offset, Some(offset(3)));
        }) as Pin<Box<dyn Future<Output = ()>>>
    }))
    .await;
    assert_eq!(fresh.get(), 1);
    scene.say("end").await;
    let all = receive_published(&mailbox, 4).await;
    assert_eq!(texts(&all), ["once", "between", "raced", "end"]);
    assert_eq!(scene.read(read_log(0, 10)).await.messages.len(), 4);
}

/// A `msg_id` means something only together with its publisher and its room.
pub async fn msg_ids_of_other_publishers_or_rooms_do_not_meet<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = scene!(factory);
    let from = |publisher: Publisher| Publish { publisher, ..publish(Scene::ROOM, "u1", "x") };
    let client = domain::id::ClientId::parse("u1").unwrap();
    for sent in [
        publish(Scene::ROOM, "u1", "x"),
        publish(Scene::ROOM, "u2", "x"),
        publish("public:b", "u1", "x"),
        from(Publisher::Client(client.clone())),
        from(Publisher::ApiKey(client)),
    ] {
        assert!(!scene.publish(named(sent, "m1")).await.duplicate);
    }
}

/// Equal messages without a name are different messages.
pub async fn a_publish_without_msg_id_is_never_a_duplicate<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = scene!(factory);
    assert_eq!(scene.say("same").await.offset, Some(offset(1)));
    assert_eq!(scene.say("same").await.offset, Some(offset(2)));
}

/// Who subscribes while others publish misses nothing behind the answered position.
pub async fn everything_behind_the_answered_position_arrives<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    const MESSAGES: u64 = 60;
    let scene = &scene!(factory);
    let joined = &std::cell::RefCell::new(Vec::new());
    let publisher = async move {
        for number in 1..=MESSAGES {
            scene.say(&number.to_string()).await;
            step_aside().await;
        }
    };
    let subscriber = async move {
        for id in 1..=20 {
            let mailbox = Arc::new(Mailbox::new(id, Mailbox::PUBLICATIONS_MAX));
            let top = scene.subscribe(&mailbox, 1).await;
            joined.borrow_mut().push((mailbox, top.bounds.last));
            step_aside().await;
        }
    };
    let both: [Pin<Box<dyn Future<Output = ()>>>; 2] = [Box::pin(publisher), Box::pin(subscriber)];
    join_all(both).await;
    for (mailbox, last) in joined.take() {
        let missing = usize::try_from(MESSAGES - last.get()).unwrap();
        let mail = receive_published(&mailbox, missing).await;
        // Earlier ones may come too and are dropped by offset, but none twice and none later.
        let got = offsets(&mail);
        assert!(got.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{got:?}");
        assert!(got.last().is_none_or(|end| *end == MESSAGES), "{got:?}");
        assert!(got.len() >= missing);
    }
}

/// Twice subscribed is not twice delivered.
pub async fn subscribing_again_keeps_one_subscription<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = scene!(factory);
    let mailbox = scene.mailbox(1).await;
    for token in [1, 2, 1] {
        scene.subscribe(&mailbox, token).await;
    }
    scene.say_numbers(3).await;
    assert_eq!(offsets(&receive_published(&mailbox, 3).await), [1, 2, 3]);
}

/// The end of a subscription that was renewed comes too late to end it.
pub async fn ending_an_older_subscription_changes_nothing<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = scene!(factory);
    let (mailbox, witness) = (scene.mailbox(1).await, scene.mailbox(2).await);
    scene.subscribe(&mailbox, 5).await;
    scene.subscribe(&mailbox, 3).await;
    scene.broker.unsubscribe(&scene.room, &mailbox, SubscriptionToken(4)).await;
    scene.say("kept").await;
    assert_eq!(texts(&receive_published(&mailbox, 1).await), ["kept"]);
    scene.broker.unsubscribe(&scene.room, &mailbox, SubscriptionToken(5)).await;
    scene.broker.unsubscribe(&scene.room, &mailbox, SubscriptionToken(5)).await;
    scene.say_numbers(3).await;
    assert_eq!(receive_published(&witness, 4).await.len(), 4, "others stay");
    scene.subscribe(&mailbox, 6).await;
    scene.say("back").await;
    // What was on its way at the end may still have come; what came later must not.
    let late = receive_published(&mailbox, 1).await;
    assert_eq!(texts(&late).last(), Some(&"back"));
    assert!(late.len() < 4, "{:?}", texts(&late));
}

/// Page by page is the whole log, once.
pub async fn pages_have_no_holes_and_say_whether_more_follows<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = scene!(factory);
    scene.say_numbers(10).await;
    let (mut after, mut sizes, mut all) = (0, Vec::new(), Vec::new());
    loop {
        let page = scene.read(read_log(after, 4)).await;
        let got = offsets(&page.messages);
        sizes.push(got.len());
        all.extend(got);
        after = *all.last().unwrap();
        if !page.more {
            break;
        }
    }
    assert_eq!((all, sizes), ((1..=10).collect(), vec![4, 4, 2]));
    let exact = scene.read(read_log(6, 4)).await;
    assert_eq!((offsets(&exact.messages), exact.more), (vec![7, 8, 9, 10], false));
}

/// A page stops before its limit, unless a single message is larger.
pub async fn a_page_keeps_its_byte_limit_but_holds_at_least_one_message<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = scene!(factory);
    for text in ["12345678", "12345678", "12345678", &"x".repeat(98), "12345678"] {
        scene.say(text).await;
    }
    // The data is the text in quotes: 10, 10, 10, 100, 10 bytes.
    for (after, bytes_max, expected, more) in [
        (0, 20, vec![1, 2], true),
        (0, 29, vec![1, 2], true),
        (0, 30, vec![1, 2, 3], true),
        (0, 0, vec![1], true),
        (3, 50, vec![4], true),
        (4, 1, vec![5], false),
        (0, 140, vec![1, 2, 3, 4, 5], false),
    ] {
        let page = scene.read(ReadLog { bytes_max, ..read_log(after, 100) }).await;
        assert_eq!((offsets(&page.messages), page.more), (expected, more), "{after} {bytes_max}");
    }
}

/// Nothing lies behind the top.
pub async fn a_position_at_or_ahead_of_the_top_reads_nothing<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = scene!(factory);
    let empty = scene.read(read_log(0, 10)).await;
    assert!(empty.messages.is_empty() && !empty.more);
    assert_eq!((empty.bounds.first, empty.bounds.last), (offset(1), Offset::ZERO));
    scene.say_numbers(3).await;
    for after in [3, 4, Offset::MAX.get()] {
        let page = scene.read(read_log(after, 10)).await;
        assert!(page.messages.is_empty() && !page.more);
        assert_eq!((page.bounds.first, page.bounds.last), (offset(1), offset(3)));
        assert_eq!(page.bounds.epoch, empty.bounds.epoch);
    }
}

/// A message whose time is over keeps its place and loses its data.
pub async fn an_expired_message_is_read_as_its_tombstone<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = scene!(factory);
    scene.say("stays").await;
    let ttl = Some(Duration::from_secs(10));
    scene.publish(Publish { ttl, ..publish(Scene::ROOM, "u1", "goes") }).await;
    scene.say("stays").await;
    let before = scene.read(ReadLog { now: at(9), ..read_log(0, 10) }).await;
    assert_eq!(texts(&before.messages), ["stays", "goes", "stays"]);
    let after = scene.read(ReadLog { now: at(10), ..read_log(0, 10) }).await;
    assert_eq!(texts(&after.messages), ["stays", "", "stays"]);
    assert_eq!(offsets(&after.messages), [1, 2, 3]);
    let tombstone = &after.messages[1].publication;
    assert_eq!(tombstone.tombstone, Some(TombstoneReason::Expired));
    assert_eq!(tombstone.sender, before.messages[1].publication.sender);
}

/// `latest` and `droppable` have no place in the order.
pub async fn a_message_without_position_is_delivered_and_not_logged<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = scene!(factory);
    let mailbox = scene.mailbox(1).await;
    let first = scene.say("1").await;
    for class in [Class::Latest, Class::Droppable] {
        let sent = Publish { class, ..publish(Scene::ROOM, "u1", class.word()) };
        let receipt = scene.publish(named(sent.clone(), class.word())).await;
        assert_eq!((receipt.epoch, receipt.offset), (first.epoch, None));
        assert!(scene.publish(named(sent, class.word())).await.duplicate);
    }
    assert_eq!(scene.say("2").await.offset, Some(offset(2)));
    let mail = receive_published(&mailbox, 4).await;
    let texts: BTreeSet<_> = texts(&mail).into_iter().collect();
    assert_eq!(texts, BTreeSet::from(["1", "latest", "droppable", "2"]));
    assert_eq!(offsets(&scene.read(read_log(0, 10)).await.messages), [1, 2]);
}

/// A subscription answers the newest value of each key, the key that changed last at the end.
pub async fn the_newest_of_each_key_meets_who_subscribes<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = scene!(factory);
    for (key, text) in
        [(Some("a"), "a1"), (Some("b"), "b1"), (None, "n1"), (Some("a"), "a2"), (None, "n2")]
    {
        let key = key.map(|key| MessageKey::parse(key).unwrap());
        scene
            .publish(Publish { class: Class::Latest, key, ..publish(Scene::ROOM, "u1", text) })
            .await;
    }
    let mailbox = Arc::new(Mailbox::new(1, 10));
    let top = scene.subscribe(&mailbox, 1).await;
    assert_eq!(texts(&top.latest), ["b1", "a2", "n2"]);
    assert_eq!(top.bounds.last, Offset::ZERO);
}

/// Each room has its own order and its own members.
pub async fn rooms_do_not_mix<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = scene!(factory);
    let mailbox = scene.mailbox(1).await;
    assert_eq!(scene.publish(publish("public:b", "u1", "b")).await.offset, Some(offset(1)));
    assert_eq!(scene.say("a").await.offset, Some(offset(1)));
    assert_eq!(texts(&receive_published(&mailbox, 1).await), ["a"]);
    assert_eq!(texts(&scene.read(read_log(0, 10)).await.messages), ["a"]);
}

/// What falls off the old end is named by the bounds, and pages begin behind it.
pub async fn retention_drops_the_oldest_and_the_bounds_say_so<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = scene!(factory, Retention { messages_max: 5, ..Retention::default() });
    scene.say_numbers(12).await;
    let page = scene.read(read_log(2, 3)).await;
    assert_eq!((page.bounds.first, page.bounds.last), (offset(8), offset(12)));
    assert_eq!((offsets(&page.messages), page.more), (vec![8, 9, 10], true));
    let top = scene.subscribe(&Arc::new(Mailbox::new(1, 10)), 1).await;
    assert_eq!(top.bounds, page.bounds);
}

/// Bytes of data count too; a message larger than all of it is positioned and not kept.
pub async fn retention_counts_bytes<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = scene!(factory, Retention { bytes_max: 30, ..Retention::default() });
    for _ in 0..5 {
        scene.say("12345678").await;
    }
    let page = scene.read(read_log(0, 10)).await;
    assert_eq!((offsets(&page.messages), page.bounds.first), (vec![3, 4, 5], offset(3)));
    assert_eq!(scene.say(&"x".repeat(29)).await.offset, Some(offset(6)));
    let page = scene.read(read_log(0, 10)).await;
    assert!(page.messages.is_empty() && !page.more);
    assert_eq!((page.bounds.first, page.bounds.last), (offset(7), offset(6)));
}

/// A message older than the retention is not read any more.
pub async fn aged_messages_are_gone<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let age_max = Duration::from_secs(10);
    let scene = scene!(factory, Retention { age_max, ..Retention::default() });
    for (seconds, text) in [(0, "old"), (5, "new")] {
        scene.publish(Publish { at: at(seconds), ..publish(Scene::ROOM, "u1", text) }).await;
    }
    let both = scene.read(ReadLog { now: at(10), ..read_log(0, 10) }).await;
    assert_eq!(texts(&both.messages), ["old", "new"]);
    let one = scene.read(ReadLog { now: at(11), ..read_log(0, 10) }).await;
    assert_eq!((texts(&one.messages), one.bounds.first), (vec!["new"], offset(2)));
}

/// Without history there are still positions, deliveries and honest bounds.
pub async fn a_room_that_keeps_no_history_still_gives_positions<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = scene!(factory, Retention::NONE);
    let mailbox = scene.mailbox(1).await;
    scene.say_numbers(3).await;
    assert_eq!(offsets(&receive_published(&mailbox, 3).await), [1, 2, 3]);
    let page = scene.read(read_log(1, 10)).await;
    assert!(page.messages.is_empty() && !page.more);
    assert_eq!((page.bounds.first, page.bounds.last), (offset(4), offset(3)));
    assert!(scene.publish(named(publish(Scene::ROOM, "u1", "x"), "m")).await.offset.is_some());
    assert!(scene.publish(named(publish(Scene::ROOM, "u1", "x"), "m")).await.duplicate);
}
