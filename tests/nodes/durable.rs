//! Durable rooms over Redis: what was answered as durable is there once and in order, whatever Redis loses, and
//! nothing else hangs on the archive.

use std::sync::Arc;
use std::time::Duration;

use application::mailbox::Mailbox;
use application::ports::archive::{Archive, ArchiveError, ArchivePage, ArchiveRecord, DedupKey};
use application::ports::archive::{Forget, RoomHead};
use application::ports::succession::{Lives, LivesPage, Succession, Successor};
use application::ports::{
    Broker, BrokerError, Erasure, LogPage, PublishError, ReadLog, Receipt, SubscriptionToken,
};
use application::testing::broker_contract::{MAIL_MAX, at, named, policy, publish, room};
use application::testing::memory_archive::MemoryArchive;
use async_trait::async_trait;
use broker_redis::DurableLog;
use domain::id::Epoch;
use domain::message::Publish;
use domain::policy::{AckLevel, NamespacePolicy};
use domain::position::{Offset, Position};
use domain::recovery::{GapReason, decide_recovery};
use domain::retention::Retention;
use domain::room::RoomId;
use store_postgres::{PostgresArchive, Sharing};
use tests::postgres::Postgres;
use tests::redis::Redis;
use tokio::sync::Semaphore;

use crate::brokers::{Node, ROOM, impatient, in_time, receive, texts};
use crate::postgres_stores;

fn durable_with(retention: Retention) -> Arc<NamespacePolicy> {
    let policy = policy(retention);
    Arc::new(NamespacePolicy { durable: true, ..NamespacePolicy::clone(&policy) })
}

pub(crate) fn durable() -> Arc<NamespacePolicy> {
    durable_with(Retention::default())
}

pub(crate) fn log_of(archive: &Arc<impl Archive + Succession + 'static>) -> DurableLog {
    DurableLog { lives: Arc::clone(archive) as _, archive: Arc::clone(archive) as _ }
}

pub(crate) async fn node(
    redis: &Redis,
    archive: &Arc<impl Archive + Succession + 'static>,
) -> Node {
    Node::start_over(impatient(redis.url()), Some(log_of(archive))).await
}

pub(crate) async fn postgres_archive(postgres: &Postgres) -> Arc<PostgresArchive> {
    let config = postgres_stores::impatient(postgres);
    postgres_stores::build(store_postgres::Config { sharing: Sharing::Shared, ..config }).await
}

pub(crate) async fn put(node: &Node, publish: Publish) -> Result<Receipt, PublishError> {
    let broker: &dyn Broker = &*node.broker;
    in_time("it is answered", broker.publish(publish, &durable())).await
}

async fn say(node: &Node, text: &str) -> Result<Receipt, PublishError> {
    put(node, named(publish(ROOM, "u1", text), text)).await
}

/// Says it until it is taken: right after a return a connection may be lost once more.
async fn until_said(node: &Node, text: &str) -> Receipt {
    in_time("it is taken", async {
        loop {
            node.until_up().await;
            if let Ok(receipt) = say(node, text).await {
                return receipt;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

async fn read(node: &Node, after: u64, messages_max: u32) -> Result<LogPage, BrokerError> {
    let after = Offset::parse(after).unwrap();
    let read = ReadLog { after, messages_max, bytes_max: 1 << 20, now: at(1) };
    in_time("it is read", node.broker.read(&room(ROOM), &durable(), read)).await
}

/// The whole log, in pages of this size.
async fn read_all(node: &Node, messages_max: u32) -> Vec<(u64, String)> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        // Right after a return a connection may be lost once more.
        let page = in_time("it is read", async {
            loop {
                node.until_up().await;
                if let Ok(page) = read(node, after, messages_max).await {
                    return page;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        let offsets = page.messages.iter().map(|one| one.publication.offset.unwrap().get());
        all.extend(offsets.zip(texts(&page)));
        after = all.last().map_or(0, |(offset, _)| *offset);
        if !page.more {
            return all;
        }
    }
}

fn numbered(texts: impl IntoIterator<Item = impl ToString>) -> Vec<(u64, String)> {
    (1..).zip(texts.into_iter().map(|text| text.to_string())).collect()
}

async fn mailbox(node: &Node, id: u64) -> Arc<Mailbox> {
    let mailbox = Arc::new(Mailbox::new(id, MAIL_MAX));
    let token = SubscriptionToken(1);
    node.broker.subscribe(&room(ROOM), &durable(), &mailbox, token).await.unwrap();
    mailbox
}

fn is_durable(receipt: &Receipt) -> bool {
    receipt.level == AckLevel::Durable
}

/// RD13 for durable rooms: who has everything misses nothing, and who read what was never stored is told.
#[tokio::test]
async fn what_was_answered_as_durable_survives_a_redis_that_is_killed_without_a_disk() {
    const MANY: u64 = 40;
    if !Redis::is_here() || !Postgres::is_here() {
        return;
    }
    let (mut redis, postgres) = (Redis::start(), Postgres::start());
    let archive = postgres_archive(&postgres).await;
    let (one, two) = (node(&redis, &archive).await, node(&redis, &archive).await);
    let (at_one, at_two) = (mailbox(&one, 1).await, mailbox(&two, 2).await);
    let mut last = None;
    for number in 1..=MANY {
        let over = if number % 2 == 0 { &one } else { &two };
        let receipt = say(over, &number.to_string()).await.unwrap();
        assert!(is_durable(&receipt) && !receipt.duplicate);
        assert_eq!(receipt.offset.map(Offset::get), Some(number));
        last = Some(receipt);
    }
    let last = last.unwrap();
    for at_it in [&at_one, &at_two] {
        let (all, has_hole) = receive(at_it, MANY as usize).await;
        assert_eq!((all, has_hole), (numbered(1..=MANY), false));
    }
    redis.start_again();
    let next = until_said(&one, "next").await;
    assert_ne!(next.epoch, last.epoch);
    assert_eq!(next.offset.map(Offset::get), Some(MANY + 1));
    for page in [7, 1_000] {
        let said = (1..=MANY).map(|number| number.to_string()).chain(["next".to_owned()]);
        assert_eq!(read_all(&two, page).await, numbered(said));
    }
    // Who stood at the end, or before it, goes on without a gap; who stood behind it has read what is lost.
    let bounds = read(&two, 0, 1).await.unwrap().bounds;
    let stood = |offset| Position { epoch: last.epoch, offset: Offset::parse(offset).unwrap() };
    for offset in [0, 5, MANY] {
        let recovery = decide_recovery(stood(offset), bounds);
        assert_eq!((recovery.gap, recovery.after.get()), (None, offset));
    }
    let gap = decide_recovery(stood(MANY + 1), bounds).gap.unwrap();
    assert_eq!((gap.reason, gap.from.get()), (GapReason::EpochChanged, MANY + 1));
}

#[tokio::test]
async fn a_retry_after_redis_lost_everything_is_the_message_that_was_stored() {
    if !Redis::is_here() {
        return;
    }
    let mut redis = Redis::start();
    let archive = Arc::new(MemoryArchive::new());
    let (one, two) = (node(&redis, &archive).await, node(&redis, &archive).await);
    let first = say(&one, "once").await.unwrap();
    redis.start_again();
    let again = until_said(&two, "once").await;
    assert!(again.duplicate && is_durable(&again));
    assert_eq!((again.epoch, again.offset), (first.epoch, first.offset));
    until_said(&one, "end").await;
    assert_eq!(read_all(&one, 10).await, numbered(["once", "end"]));
}

#[tokio::test]
async fn what_was_handed_out_and_not_stored_is_stored_by_its_retry() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let archive = Held::open();
    let node = node(&redis, &archive).await;
    let at_it = mailbox(&node, 1).await;
    say(&node, "1").await.unwrap();
    archive.refuse(true);
    let refused = say(&node, "2").await;
    assert!(matches!(refused, Err(PublishError::Unavailable { .. })), "{refused:?}");
    archive.refuse(false);
    let taken = say(&node, "2").await.unwrap();
    assert!(taken.duplicate && is_durable(&taken));
    say(&node, "3").await.unwrap();
    assert_eq!(receive(&at_it, 3).await, (numbered(1..=3), false));
    assert_eq!(archive.stored().await, numbered(1..=3));
}

#[tokio::test]
async fn a_message_on_its_way_into_an_ended_life_is_refused_and_repeated_in_the_next() {
    if !Redis::is_here() {
        return;
    }
    let mut redis = Redis::start();
    let archive = Held::open();
    let (one, two) = (node(&redis, &archive).await, node(&redis, &archive).await);
    say(&one, "1").await.unwrap();
    archive.hold();
    let late = async { say(&one, "late").await };
    let meanwhile = async {
        archive.until_waiting().await;
        redis.start_again();
        archive.pass_for_others();
        let other = until_said(&two, "2").await;
        archive.release();
        other
    };
    let (late, other) = tokio::join!(late, meanwhile);
    assert!(matches!(late, Err(PublishError::Unavailable { .. })), "{late:?}");
    assert_eq!(other.offset.map(Offset::get), Some(2));
    let again = until_said(&one, "late").await;
    assert!(!again.duplicate && is_durable(&again));
    assert_eq!((again.epoch, again.offset.map(Offset::get)), (other.epoch, Some(3)));
    assert_eq!(read_all(&two, 10).await, numbered(["1", "2", "late"]));
}

#[tokio::test]
async fn a_page_begins_behind_places_that_were_never_stored_and_says_so() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let archive = Arc::new(MemoryArchive::new());
    let life = Epoch::from_bits(77);
    let name = room(ROOM);
    let next = Successor { of: None, epoch: life, behind: Offset::ZERO };
    archive.succeed(&name, next).await.unwrap();
    for (offset, text) in [(2, "2"), (5, "5")] {
        archive.place(vec![record(life, offset, text)]).await.unwrap();
    }
    let node = node(&redis, &archive).await;
    say(&node, "6").await.unwrap();
    for size in [1, 2, 10] {
        let all = read_all(&node, size).await;
        let expected = [(2, "2"), (5, "5"), (6, "6")];
        assert_eq!(all, expected.map(|(offset, text)| (offset, text.to_owned())));
    }
    for (after, first, is_last) in [(0, 2, false), (2, 5, false), (3, 5, false), (4, 2, false)] {
        let page = read(&node, after, 10).await.unwrap();
        assert_eq!((page.bounds.first.get(), page.more), (first, !is_last), "behind {after}");
        assert!(page.messages.iter().all(|one| one.publication.tombstone.is_none()));
    }
}

#[tokio::test]
async fn what_was_given_out_and_never_stored_before_redis_s_log_is_passed_over_by_its_bounds() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let archive = Arc::new(MemoryArchive::new());
    let [first, second] = [77, 78].map(Epoch::from_bits);
    let name = room(ROOM);
    let next = Successor { of: None, epoch: first, behind: Offset::ZERO };
    archive.succeed(&name, next).await.unwrap();
    archive.place(vec![record(first, 1, "1")]).await.unwrap();
    // Redis had given out some more when it lost its memory.
    let behind = Offset::parse(4).unwrap();
    let next = Successor { of: Some(first), epoch: second, behind };
    archive.succeed(&name, next).await.unwrap();
    let node = node(&redis, &archive).await;
    say(&node, "5").await.unwrap();
    for size in [1, 10] {
        let expected = [(1, "1".to_owned()), (5, "5".to_owned())];
        assert_eq!(read_all(&node, size).await, expected);
    }
    for after in 1..=3 {
        let page = read(&node, after, 10).await.unwrap();
        assert_eq!((page.bounds.first.get(), texts(&page)), (5, vec!["5".to_owned()]));
    }
}

fn record(epoch: Epoch, offset: u64, text: &str) -> ArchiveRecord {
    let sent = publish(ROOM, "u1", text);
    let publication = domain::message::Publication {
        room: sent.room,
        epoch,
        offset: Offset::parse(offset).ok(),
        class: sent.class,
        key: None,
        sender: sent.sender,
        data: sent.data,
        tags: sent.tags,
        origin: None,
        at: sent.at,
        expires_at: None,
        tombstone: None,
    };
    ArchiveRecord { publication, publisher: sent.publisher, msg_id: None }
}

#[tokio::test]
async fn while_the_store_is_away_durable_rooms_refuse_and_others_go_on() {
    if !Redis::is_here() || !Postgres::is_here() {
        return;
    }
    let (redis, mut postgres) = (Redis::start(), Postgres::start());
    let archive = postgres_archive(&postgres).await;
    let node = node(&redis, &archive).await;
    say(&node, "1").await.unwrap();
    let at_it = mailbox(&node, 1).await;
    postgres.kill();
    for number in 0..20 {
        let refused = say(&node, &format!("lost{number}")).await;
        let Err(PublishError::Unavailable { retry_after }) = refused else { panic!("{refused:?}") };
        assert!(retry_after > Duration::ZERO);
        let other = Publish { room: room("public:other"), ..publish(ROOM, "u1", "goes on") };
        assert!(node.publish(other).await.is_ok());
    }
    postgres.start_again();
    let until_back = async {
        loop {
            if let Ok(receipt) = say(&node, "back").await {
                return receipt;
            }
            tokio::task::yield_now().await;
        }
    };
    let back = in_time("it is taken again", until_back).await;
    assert!(is_durable(&back));
    // What was refused while it was known to be away was handed to nobody.
    let (heard, _) = crate::brokers::hear_until(&at_it, "back").await;
    assert!(heard.len() <= 2, "{heard:?}");
}

/// RD13 for durable rooms: the archive knows what Redis has evicted, for as long as a retry may come.
#[tokio::test]
async fn a_retry_whose_memory_was_evicted_is_the_message_that_was_stored() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let archive = Arc::new(MemoryArchive::new());
    let node = node(&redis, &archive).await;
    let first = say(&node, "once").await.unwrap();
    for part in ["seen0", "seen1", "seen2"] {
        redis.tell(&["DEL", &format!("roomkeeper:{{{ROOM}}}:{part}")]);
    }
    let again = say(&node, "once").await.unwrap();
    assert_eq!((again.offset, again.duplicate, is_durable(&again)), (first.offset, true, true));
}

#[tokio::test]
async fn many_publishers_on_several_nodes_are_in_the_archive_once_and_in_one_order() {
    const EACH: usize = 60;
    if !Redis::is_here() || !Postgres::is_here() {
        return;
    }
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let archive = postgres_archive(&postgres).await;
    let nodes =
        [node(&redis, &archive).await, node(&redis, &archive).await, node(&redis, &archive).await];
    let at_first = mailbox(&nodes[0], 1).await;
    let all = (0..EACH * nodes.len()).map(|number| {
        let node = &nodes[number % 3];
        async move { say(node, &number.to_string()).await.unwrap() }
    });
    let receipts = futures_util::future::join_all(all).await;
    assert!(receipts.iter().all(|receipt| is_durable(receipt) && !receipt.duplicate));
    let (heard, has_hole) = receive(&at_first, EACH * 3).await;
    assert!(!has_hole);
    let page =
        archive.read_lives(&room(ROOM), Offset::ZERO, 1_000, 1 << 20).await.unwrap().unwrap();
    let stored = page.messages.iter().map(|one| {
        let text = String::from_utf8_lossy(&one.data).trim_matches('"').to_owned();
        (one.offset.unwrap().get(), text)
    });
    assert!(page.holes.is_empty());
    assert_eq!(stored.collect::<Vec<_>>(), heard);
}

#[tokio::test]
async fn what_is_erased_is_gone_in_the_archive_too_also_where_redis_has_forgotten_it() {
    if !Redis::is_here() {
        return;
    }
    let mut redis = Redis::start();
    let archive = Arc::new(MemoryArchive::new());
    let node = node(&redis, &archive).await;
    let mut at = Vec::new();
    for text in ["1", "2", "3"] {
        let receipt = say(&node, text).await.unwrap();
        at.push(Position { epoch: receipt.epoch, offset: receipt.offset.unwrap() });
    }
    node.broker.erase(&room(ROOM), &durable(), at[0]).await.unwrap();
    redis.start_again();
    until_said(&node, "4").await;
    node.broker.erase(&room(ROOM), &durable(), at[1]).await.unwrap();
    let expected = [(1, ""), (2, ""), (3, "3"), (4, "4")];
    let expected = expected.map(|(offset, text)| (offset, text.to_owned()));
    assert_eq!(read_all(&node, 10).await, expected);
}

#[tokio::test]
async fn what_retention_does_not_keep_is_forgotten_by_the_archive_too() {
    if !Redis::is_here() {
        return;
    }
    let mut redis = Redis::start();
    let archive = Arc::new(MemoryArchive::new());
    let node = node(&redis, &archive).await;
    let short = durable_with(Retention { messages_max: 3, ..Retention::default() });
    let put = async |text: &str| {
        let sent = named(publish(ROOM, "u1", text), text);
        node.broker.publish(sent, &short).await
    };
    for text in ["1", "2", "3", "4", "5"] {
        put(text).await.unwrap();
    }
    let offsets = async || {
        let page = archive.read_lives(&room(ROOM), Offset::ZERO, 100, 1 << 20).await;
        let messages = page.unwrap().unwrap().messages;
        messages.iter().map(|one| one.offset.unwrap().get()).collect::<Vec<_>>()
    };
    assert_eq!(offsets().await, [1, 2, 3, 4, 5]);
    node.broker.forget_in_time(at(1)).await;
    assert_eq!(offsets().await, [3, 4, 5]);
    redis.start_again();
    in_time("it is taken", async {
        while put("6").await.is_err() {
            node.until_up().await;
            tokio::task::yield_now().await;
        }
    })
    .await;
    let read = ReadLog { after: Offset::ZERO, messages_max: 9, bytes_max: 1 << 20, now: at(1) };
    let page = node.broker.read(&room(ROOM), &short, read).await.unwrap();
    assert_eq!(page.bounds.first.get(), 4);
    // By then all of it is too old, also where nobody publishes any more.
    node.broker.forget_in_time(at(10 * 24 * 60 * 60)).await;
    assert!(offsets().await.len() <= 1);
}

/// An archive in memory whose messages can be held up on their way in.
struct Held {
    archive: MemoryArchive,
    gate: Semaphore,
    waiting: Semaphore,
    is_held: std::sync::atomic::AtomicBool,
    is_refused: std::sync::atomic::AtomicBool,
}

impl Held {
    fn open() -> Arc<Self> {
        Arc::new(Self {
            archive: MemoryArchive::new(),
            gate: Semaphore::new(0),
            waiting: Semaphore::new(0),
            is_held: false.into(),
            is_refused: false.into(),
        })
    }

    fn refuse(&self, is_refused: bool) {
        self.is_refused.store(is_refused, std::sync::atomic::Ordering::SeqCst);
    }

    fn hold(&self) {
        self.is_held.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    fn pass_for_others(&self) {
        self.is_held.store(false, std::sync::atomic::Ordering::SeqCst);
    }

    fn release(&self) {
        self.gate.add_permits(1);
    }

    async fn until_waiting(&self) {
        in_time("one is held", self.waiting.acquire()).await.unwrap().forget();
    }

    async fn stored(&self) -> Vec<(u64, String)> {
        let page = self.read_lives(&room(ROOM), Offset::ZERO, 1_000, 1 << 20).await;
        let messages = page.unwrap().unwrap().messages.into_iter();
        messages
            .map(|one| {
                let text = String::from_utf8_lossy(&one.data).trim_matches('"').to_owned();
                (one.offset.unwrap().get(), text)
            })
            .collect()
    }
}

#[async_trait]
impl Succession for Held {
    async fn lives(&self, room: &RoomId) -> Result<Option<Lives>, ArchiveError> {
        self.archive.lives(room).await
    }

    async fn succeed(&self, room: &RoomId, next: Successor) -> Result<Lives, ArchiveError> {
        self.archive.succeed(room, next).await
    }

    async fn place(&self, records: Vec<ArchiveRecord>) -> Result<(), ArchiveError> {
        if self.is_refused.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(ArchiveError::Storage("told to".to_owned()));
        }
        if self.is_held.load(std::sync::atomic::Ordering::SeqCst) {
            self.waiting.add_permits(1);
            self.gate.acquire().await.unwrap().forget();
        }
        self.archive.place(records).await
    }

    async fn read_lives(
        &self,
        room: &RoomId,
        after: Offset,
        limit: u32,
        bytes_max: usize,
    ) -> Result<Option<LivesPage>, ArchiveError> {
        self.archive.read_lives(room, after, limit, bytes_max).await
    }
}

#[async_trait]
impl Archive for Held {
    async fn open_room(
        &self,
        room: &RoomId,
        fresh: Epoch,
        known: Option<Position>,
    ) -> Result<RoomHead, ArchiveError> {
        self.archive.open_room(room, fresh, known).await
    }

    async fn append(&self, records: Vec<ArchiveRecord>) -> Result<(), ArchiveError> {
        self.archive.append(records).await
    }

    async fn find(&self, keys: Vec<DedupKey>) -> Result<Vec<Option<Position>>, ArchiveError> {
        self.archive.find(keys).await
    }

    async fn read(
        &self,
        room: &RoomId,
        epoch: Epoch,
        after: Offset,
        limit: u32,
        bytes_max: usize,
    ) -> Result<ArchivePage, ArchiveError> {
        self.archive.read(room, epoch, after, limit, bytes_max).await
    }

    async fn forget(&self, room: &RoomId, what: Forget) -> Result<(), ArchiveError> {
        self.archive.forget(room, what).await
    }
}
