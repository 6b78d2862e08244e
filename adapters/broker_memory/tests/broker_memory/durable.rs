//! Rooms in an archive: nothing is delivered or acknowledged before it is committed.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use application::mailbox::Mailbox;
use application::ports::archive::MockArchive;
use application::ports::{
    Archive, ArchiveError, ArchivePage, Broker, BrokerError, EraseError, Erasure as _,
    PublishError, ReadLog, Receipt, RoomHead, SubscriptionToken,
};
use application::testing::broker_contract::{at, named, policy, publish, room};
use broker_memory::{Config, MemoryBroker};
use domain::delivery::Class;
use domain::id::{Epoch, MessageKey};
use domain::message::Publish;
use domain::policy::{AckLevel, NamespacePolicy};
use domain::position::{Offset, Position};
use domain::recovery::{EarlierLives, LogBounds};
use domain::retention::Retention;
use domain::time::Wall;
use tokio::task::JoinHandle;

use crate::support::{Counter, MemoArchive, Mode, delivered, place, settle};

mod commits;
mod loading;

const ROOM: &str = "chat:a";
const AWAY: PublishError = PublishError::Unavailable { retry_after: Duration::from_secs(1) };

/// A broker with a committer, and one mailbox.
struct Scene {
    broker: Arc<MemoryBroker>,
    committer: JoinHandle<()>,
    policy: Arc<NamespacePolicy>,
}

fn durable(retention: Retention) -> Arc<NamespacePolicy> {
    Arc::new(NamespacePolicy { durable: true, ..(*policy(retention)).clone() })
}

fn number(n: u64) -> Option<Offset> {
    Offset::parse(n).ok()
}

impl Scene {
    fn new(archive: Arc<dyn Archive>) -> Self {
        Self::with(archive, Config::default(), Retention::default())
    }

    fn with(archive: Arc<dyn Archive>, config: Config, retention: Retention) -> Self {
        let broker = MemoryBroker::build(config, Arc::new(Counter::default()), Some(archive));
        let committer = tokio::spawn(Arc::clone(&broker).run_committer());
        Self { broker, committer, policy: durable(retention) }
    }

    async fn publish(&self, publish: Publish) -> Result<Receipt, PublishError> {
        self.broker.publish(publish, &self.policy).await
    }

    async fn say(&self, text: &str) -> Result<Receipt, PublishError> {
        self.publish(named(publish(ROOM, "u1", text), text)).await
    }

    /// Publishes from a task of its own.
    fn begin(&self, text: &str) -> JoinHandle<Result<Receipt, PublishError>> {
        let (broker, policy) = (Arc::clone(&self.broker), Arc::clone(&self.policy));
        let publish = named(publish(ROOM, "u1", text), text);
        tokio::spawn(async move { broker.publish(publish, &policy).await })
    }

    async fn subscribe(&self, id: u64) -> (Arc<Mailbox>, LogBounds) {
        let mailbox = Arc::new(Mailbox::new(id, 1_000));
        let token = SubscriptionToken(1);
        let top = self.broker.subscribe(&room(ROOM), &self.policy, &mailbox, token).await;
        (mailbox, top.unwrap().bounds)
    }

    /// The whole log, page by page of `messages_max`.
    async fn read_all(&self, messages_max: u32) -> (LogBounds, Vec<(u64, String)>) {
        let (mut all, mut after) = (Vec::new(), Offset::ZERO);
        loop {
            let read = ReadLog { after, messages_max, bytes_max: 1 << 20, now: at(1) };
            let page = self.broker.read(&room(ROOM), &self.policy, read).await.unwrap();
            all.extend(page.messages.iter().map(|message| place(&message.publication)));
            let Some(last) = all.last().filter(|_| page.more) else { return (page.bounds, all) };
            after = Offset::parse(last.0).unwrap();
        }
    }
}

fn said(texts: &[&str]) -> Vec<(u64, String)> {
    (1..).zip(texts.iter().map(|text| (*text).to_owned())).collect()
}

/// A crowd that comes back to one room at the same time, each from somewhere else.
async fn crowd(scene: &Scene, n: u64) -> Vec<Result<Vec<u64>, BrokerError>> {
    let members: Vec<_> = (0..n)
        .map(|member| {
            let (broker, policy) = (Arc::clone(&scene.broker), Arc::clone(&scene.policy));
            tokio::spawn(async move {
                let mailbox = Arc::new(Mailbox::new(1, 1_000));
                let id = room(ROOM);
                broker.subscribe(&id, &policy, &mailbox, SubscriptionToken(1)).await?;
                let after = number(member % 20).unwrap();
                let read = ReadLog { after, messages_max: 100, bytes_max: 1 << 20, now: at(0) };
                let page = broker.read(&id, &policy, read).await?;
                Ok(page.messages.iter().map(|m| place(&m.publication).0).collect())
            })
        })
        .collect();
    let mut answers = Vec::new();
    for member in members {
        answers.push(member.await.unwrap());
    }
    answers
}

#[tokio::test]
async fn a_read_ends_at_what_has_been_delivered() {
    let archive = Arc::new(MemoArchive::default());
    let scene = Scene::with(archive.clone(), Config::default(), Retention::NONE);
    scene.say("a").await.unwrap();
    archive.set_mode(Mode::FailsAfter);
    assert_eq!(scene.say("b").await, Err(AWAY));
    let (bounds, all) = scene.read_all(5).await;
    assert_eq!((Some(bounds.last), all), (number(1), said(&["a"])));
}

#[tokio::test]
async fn a_restart_on_the_same_archive_continues_epoch_and_offsets() {
    let archive = Arc::new(MemoArchive::default());
    let before = Scene::new(archive.clone());
    let first = before.say("a").await.unwrap();
    before.say("b").await.unwrap();
    drop(before);
    let scene = Scene::new(archive.clone());
    let (mailbox, bounds) = scene.subscribe(1).await;
    assert_eq!(
        (bounds.epoch, bounds.first, Some(bounds.last)),
        (first.epoch, number(1).unwrap(), number(2))
    );
    let next = scene.say("c").await.unwrap();
    assert_eq!((next.epoch, next.offset), (first.epoch, number(3)));
    assert_eq!(delivered(&mailbox), [(3, "c".to_owned())]);
    for messages_max in 1..5 {
        assert_eq!(scene.read_all(messages_max).await.1, said(&["a", "b", "c"]));
    }
}

#[tokio::test]
async fn a_msg_id_is_known_over_a_restart() {
    let archive = Arc::new(MemoArchive::default());
    let first = Scene::new(archive.clone()).say("a").await.unwrap();
    let scene = Scene::new(archive.clone());
    let (mailbox, _) = scene.subscribe(1).await;
    assert_eq!(scene.say("a").await.unwrap(), Receipt { duplicate: true, ..first });
    assert_eq!(scene.say("a").await.unwrap(), Receipt { duplicate: true, ..first });
    assert_eq!(archive.calls("find"), 2, "the second time it is remembered");
    let fresh = scene.say("b").await.unwrap();
    assert_eq!(scene.say("b").await.unwrap(), Receipt { duplicate: true, ..fresh });
    assert_eq!(archive.calls("find"), 3);
    assert_eq!(delivered(&mailbox), [(2, "b".to_owned())]);
}

#[tokio::test]
async fn the_same_msg_id_twice_in_one_batch_is_one_message() {
    let archive = Arc::new(MemoArchive::gated());
    let scene = Scene::new(archive.clone());
    let blocker = scene.begin("0");
    settle().await;
    let both = [scene.begin("a"), scene.begin("a")];
    settle().await;
    archive.gate.add_permits(2);
    blocker.await.unwrap().unwrap();
    let [one, two] = both;
    let (one, two) = (one.await.unwrap().unwrap(), two.await.unwrap().unwrap());
    assert_eq!((one.duplicate, two), (false, Receipt { duplicate: true, ..one }));
    assert_eq!(archive.batches(), [1, 1]);
}

#[tokio::test]
async fn without_a_committer_publishes_are_refused_and_do_not_hang() {
    let archive = Arc::new(MemoArchive::gated());
    let scene = Scene::new(archive.clone());
    let (mailbox, _) = scene.subscribe(1).await;
    let in_commit = scene.begin("a");
    settle().await;
    let waiting = scene.begin("b");
    settle().await;
    scene.committer.abort();
    assert_eq!(in_commit.await.unwrap(), Err(AWAY));
    assert_eq!(waiting.await.unwrap(), Err(AWAY));
    assert_eq!(scene.say("c").await, Err(AWAY));
    // Another one takes over and asks the archive how the append ended.
    archive.gate.add_permits(10);
    tokio::spawn(Arc::clone(&scene.broker).run_committer());
    for text in ["b", "a"] {
        assert!(!scene.say(text).await.unwrap().duplicate);
    }
    assert_eq!(delivered(&mailbox), said(&["b", "a"]));
}

#[tokio::test]
async fn a_finished_committer_commits_what_waits_and_ends() {
    let archive = Arc::new(MemoArchive::gated());
    let scene = Scene::new(archive.clone());
    let (one, two) = (scene.begin("a"), scene.begin("b"));
    settle().await;
    scene.broker.finish_committer();
    assert_eq!(scene.say("c").await, Err(AWAY));
    archive.gate.add_permits(10);
    assert!(one.await.unwrap().is_ok() && two.await.unwrap().is_ok());
    scene.committer.await.unwrap();
    assert_eq!(scene.broker.publish(publish(ROOM, "u1", "d"), &scene.policy).await, Err(AWAY));
}

#[tokio::test]
async fn a_second_committer_ends_at_once() {
    let scene = Scene::new(Arc::new(MemoArchive::default()));
    Arc::clone(&scene.broker).run_committer().await;
    assert!(scene.say("a").await.is_ok());
}

#[tokio::test]
async fn more_than_may_wait_is_refused() {
    let archive = Arc::new(MemoArchive::gated());
    let config = Config { commit_entries_max: 2, ..Config::default() };
    let scene = Scene::with(archive.clone(), config, Retention::default());
    let in_commit = scene.begin("0");
    settle().await;
    let waiting = [scene.begin("1"), scene.begin("2")];
    settle().await;
    assert_eq!(scene.say("3").await, Err(AWAY));
    archive.gate.add_permits(10);
    assert!(in_commit.await.unwrap().is_ok());
    for publish in waiting {
        assert!(publish.await.unwrap().is_ok());
    }
    assert!(scene.say("3").await.is_ok());
    let config = Config { commit_bytes_max: 300, ..Config::default() };
    let scene = Scene::with(Arc::new(MemoArchive::default()), config, Retention::default());
    assert_eq!(scene.say(&"x".repeat(100)).await, Err(AWAY));
    for n in 0..10 {
        assert!(scene.say(&format!("{n}")).await.is_ok(), "what was taken gives its place back");
    }
}

#[tokio::test]
async fn pages_go_on_from_the_archive_into_the_ring_without_a_hole() {
    let archive = Arc::new(MemoArchive::default());
    let retention = Retention { messages_max: 3, ..Retention::default() };
    let scene = Scene::with(archive.clone(), Config::default(), retention);
    let texts = ["a", "b", "c", "d", "e", "f", "g", "h"];
    for text in texts {
        scene.say(text).await.unwrap();
    }
    for messages_max in 1..=9 {
        let (bounds, all) = scene.read_all(messages_max).await;
        assert_eq!(all, said(&texts));
        assert_eq!((Some(bounds.first), Some(bounds.last)), (number(1), number(8)));
    }
    // A sweep trims the archive to what retention keeps.
    scene.broker.sweep(at(1)).await;
    assert_eq!(archive.calls("trim"), 1);
    let (bounds, all) = scene.read_all(2).await;
    assert_eq!((Some(bounds.first), all), (number(6), said(&texts)[5..].to_vec()));
    assert_eq!(scene.subscribe(9).await.1, bounds);
    scene.broker.sweep(at(2)).await;
    assert_eq!(archive.calls("trim"), 1, "not again at once");
}

#[tokio::test]
async fn a_room_that_keeps_no_history_still_commits_and_counts() {
    let archive = Arc::new(MemoArchive::default());
    let scene = Scene::with(archive.clone(), Config::default(), Retention::NONE);
    let (mailbox, _) = scene.subscribe(1).await;
    scene.say("a").await.unwrap();
    scene.broker.sweep(at(1)).await;
    assert_eq!(scene.say("b").await.unwrap().offset, number(2));
    assert_eq!(delivered(&mailbox), said(&["a", "b"]));
    assert_eq!(scene.read_all(5).await.1, said(&["a", "b"])[1..].to_vec());
}

#[tokio::test]
async fn a_message_without_position_does_not_wait_for_the_archive() {
    let archive = Arc::new(MemoArchive::gated());
    let scene = Scene::new(archive.clone());
    let (mailbox, bounds) = scene.subscribe(1).await;
    let _waiting = scene.begin("a");
    settle().await;
    let typing = Publish { class: Class::Droppable, ..publish(ROOM, "u1", "typing") };
    let receipt = scene.publish(typing).await.unwrap();
    assert_eq!((receipt.level, receipt.offset), (AckLevel::Accepted, None));
    assert_eq!(receipt.epoch, bounds.epoch);
    assert_eq!(delivered(&mailbox), [(0, "typing".to_owned())]);
}

#[tokio::test]
async fn without_an_archive_a_durable_policy_means_accepted() {
    let broker = MemoryBroker::build(Config::default(), Arc::new(Counter::default()), None);
    let policy = durable(Retention::default());
    let receipt = broker.publish(publish(ROOM, "u1", "a"), &policy).await.unwrap();
    assert_eq!((receipt.level, receipt.offset), (AckLevel::Accepted, number(1)));
    Arc::clone(&broker).run_committer().await;
}

#[tokio::test]
async fn an_idle_durable_room_is_forgotten_and_comes_back_as_it_was() {
    let archive = Arc::new(MemoArchive::default());
    let config = Config { rooms_max: 1, ..Config::default() };
    let scene = Scene::with(archive.clone(), config, Retention::default());
    let first = scene.say("a").await.unwrap();
    assert_eq!(scene.publish(publish("chat:b", "u1", "x")).await, Err(AWAY), "one room only");
    scene.broker.sweep(at(601)).await;
    assert!(scene.publish(Publish { at: at(601), ..publish("chat:b", "u1", "x") }).await.is_ok());
    scene.broker.sweep(at(1_300)).await;
    assert_eq!(
        scene.read_all(5).await,
        (
            LogBounds {
                epoch: first.epoch,
                first: number(1).unwrap(),
                last: number(1).unwrap(),
                earlier: EarlierLives::NONE
            },
            said(&["a"]),
        )
    );
}

#[tokio::test]
async fn a_room_about_to_be_committed_never_gives_way_when_rooms_run_out() {
    let archive = Arc::new(MemoArchive::find_gated());
    let config = Config { rooms_max: 1, stripes: 1, ..Config::default() };
    let scene = Scene::with(archive.clone(), config, Retention::default());
    let publishing = scene.begin("a");
    settle().await;
    assert_eq!((archive.calls("open_room"), archive.calls("append")), (1, 0), "open, not stored");
    // Nobody is in the room, and its log is empty: it looks as if nobody would miss it.
    let in_memory = policy(Retention::default());
    let other = || publish("public:b", "u1", "x");
    assert_eq!(scene.broker.publish(other(), &in_memory).await, Err(AWAY));
    archive.find_gate.add_permits(10);
    assert_eq!(publishing.await.unwrap().unwrap().offset, number(1));
    assert_eq!(scene.say("b").await.unwrap().offset, number(2));
    // Long after its last message it may.
    let later = Publish { at: at(601), ..other() };
    assert!(scene.broker.publish(later, &in_memory).await.is_ok());
}

#[tokio::test]
async fn the_byte_limit_of_a_read_reaches_the_archive() {
    let archive = Arc::new(MemoArchive::default());
    let keep = Retention { messages_max: 5_000, ..Retention::default() };
    let scene = Scene::with(archive.clone(), Config::default(), keep);
    let all: Vec<_> = (1_000..2_100).map(|n| scene.begin(&n.to_string())).collect();
    for published in all {
        published.await.unwrap().unwrap();
    }
    // A broker that has just started loads the end of the log; what lies before it is read anew.
    let scene = Scene::with(archive.clone(), Config::default(), keep);
    let read =
        ReadLog { after: number(100).unwrap(), messages_max: 100, bytes_max: 18, now: at(1) };
    let page = scene.broker.read(&room(ROOM), &scene.policy, read).await.unwrap();
    assert_eq!((page.messages.len(), page.more), (3, true));
    archive.largest_page();
    let read = ReadLog { after: Offset::ZERO, ..read };
    let page = scene.broker.read(&room(ROOM), &scene.policy, read).await.unwrap();
    assert_eq!((page.messages.len(), page.more), (3, true));
    assert_eq!(archive.largest_page(), 3);
}

#[tokio::test]
async fn the_rooms_of_a_batch_are_opened_together_but_not_too_many() {
    let archive = Arc::new(MemoArchive::default());
    let scene = Scene::new(archive.clone());
    let publishing: Vec<_> = (0..300)
        .map(|n| {
            let (broker, policy) = (Arc::clone(&scene.broker), Arc::clone(&scene.policy));
            let publish = publish(&format!("chat:{n}"), "u1", "x");
            tokio::spawn(async move { broker.publish(publish, &policy).await })
        })
        .collect();
    for publishing in publishing {
        assert_eq!(publishing.await.unwrap().unwrap().offset, number(1));
    }
    assert_eq!(archive.calls("open_room"), 300);
    assert_eq!(archive.opening_most(), 128);
}

/// An answer that is there at once, as the mock wants it.
fn ready<T: Send + 'static>(answer: T) -> Pin<Box<dyn Future<Output = T> + Send>> {
    Box::pin(std::future::ready(answer))
}

/// A mock that opens a room at `last` and knows no `msg_id`.
fn archive_at(last: Offset) -> MockArchive {
    let mut archive = MockArchive::new();
    let head = RoomHead::new(Epoch::from_bits(9), last);
    archive.expect_open_room().returning(move |_, _, _| ready(Ok(head)));
    archive
}

#[tokio::test]
async fn an_archive_that_does_not_answer_makes_the_room_unavailable() {
    let mut archive = MockArchive::new();
    archive.expect_open_room().returning(|_, _, _| ready(Err(ArchiveError::Closed)));
    let scene = Scene::new(Arc::new(archive));
    assert_eq!(scene.say("a").await, Err(AWAY));
    let mailbox = Arc::new(Mailbox::new(1, 10));
    let token = SubscriptionToken(1);
    let subscribed = scene.broker.subscribe(&room(ROOM), &scene.policy, &mailbox, token).await;
    assert!(subscribed.is_err());
}

#[tokio::test]
async fn nothing_is_appended_when_the_archive_can_not_say_what_it_has() {
    let mut archive = archive_at(Offset::ZERO);
    archive.expect_find().returning(|_| ready(Err(ArchiveError::Overloaded)));
    archive.expect_append().times(1).returning(|_| ready(Ok(())));
    let scene = Scene::new(Arc::new(archive));
    assert_eq!(scene.say("a").await, Err(AWAY));
    let unnamed = scene.publish(publish(ROOM, "u1", "b")).await.unwrap();
    assert_eq!(unnamed.offset, number(1), "without a msg_id there is nothing to ask");
}

#[tokio::test]
async fn a_log_that_has_given_out_its_last_offset_says_so() {
    let mut archive = archive_at(Offset::MAX);
    archive.expect_find().returning(|keys| ready(Ok(vec![None; keys.len()])));
    archive
        .expect_read()
        .returning(|_, _, _, _, _| ready(Ok(ArchivePage { first: Offset::MAX, messages: vec![] })));
    archive.expect_append().never();
    let scene = Scene::new(Arc::new(archive));
    assert_eq!(scene.say("a").await, Err(PublishError::LogFull));
}

#[tokio::test]
async fn a_log_that_the_archive_lost_goes_on_under_the_new_epoch() {
    let mut archive = MockArchive::new();
    let opened = std::sync::atomic::AtomicU64::new(0);
    archive.expect_open_room().returning(move |_, _, known| {
        let epoch = opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // The first time nobody knows of anything; then it is said what was acknowledged.
        let acknowledged = Position { epoch: Epoch::from_bits(0), offset: number(1).unwrap() };
        assert_eq!(known, (epoch > 0).then_some(acknowledged));
        ready(Ok(RoomHead::new(Epoch::from_bits(epoch), Offset::ZERO)))
    });
    archive.expect_find().returning(|keys| ready(Ok(vec![None; keys.len()])));
    let appended = std::sync::atomic::AtomicU64::new(0);
    archive.expect_append().returning(move |_| {
        let n = appended.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        ready(if n == 1 { Err(ArchiveError::Storage("lost".into())) } else { Ok(()) })
    });
    let scene = Scene::new(Arc::new(archive));
    assert_eq!(scene.say("a").await.unwrap().epoch, Epoch::from_bits(0));
    assert_eq!(scene.say("b").await, Err(AWAY));
    let next = scene.say("b").await.unwrap();
    assert_eq!((next.epoch, next.offset), (Epoch::from_bits(1), number(1)));
}

#[tokio::test]
async fn an_end_that_the_archive_lost_is_found_out_by_who_reads_it() {
    let mut archive = MockArchive::new();
    let head = |epoch, last| RoomHead::new(Epoch::from_bits(epoch), number(last).unwrap());
    let opened = std::sync::atomic::AtomicU64::new(0);
    archive.expect_open_room().returning(move |_, _, known| {
        let n = opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let acknowledged = Position { epoch: Epoch::from_bits(1), offset: number(9).unwrap() };
        assert_eq!(known, (n > 0).then_some(acknowledged));
        ready(Ok(if n == 0 { head(1, 9) } else { head(2, 5) }))
    });
    // All that was behind the fifth is gone.
    archive.expect_read().returning(|_, _, _, _, _| {
        ready(Ok(ArchivePage { first: number(1).unwrap(), messages: vec![] }))
    });
    let scene = Scene::new(Arc::new(archive));
    let (after, room) = (number(5).unwrap(), room(ROOM));
    let read = ReadLog { after, messages_max: 10, bytes_max: 1_000, now: Wall::default() };
    let epoch = || async {
        let page = scene.broker.read(&room, &scene.policy, read).await;
        page.map(|page| page.bounds.epoch)
    };
    assert_eq!(epoch().await, Ok(Epoch::from_bits(1)));
    let until = async {
        while epoch().await != Ok(Epoch::from_bits(2)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), until).await.expect("nobody has to publish");
}

/// Erases a message of the scene's room.
async fn erase(scene: &Scene, receipt: Receipt) -> Result<(), EraseError> {
    let position = Position { epoch: receipt.epoch, offset: receipt.offset.unwrap() };
    scene.broker.erase(&room(ROOM), &scene.policy, position).await
}

#[tokio::test]
async fn an_erased_message_is_gone_from_memory_and_archive_alike() {
    let archive = Arc::new(MemoArchive::default());
    let scene = Scene::new(Arc::clone(&archive) as _);
    let receipt = scene.say("a").await.unwrap();
    scene.say("b").await.unwrap();
    let gone = vec![(1, String::new()), (2, "b".to_owned())];
    assert_eq!(erase(&scene, receipt).await, Ok(()));
    assert_eq!(scene.read_all(10).await.1, gone);
    scene.committer.abort();
    let after = Scene::new(Arc::clone(&archive) as _);
    assert_eq!(after.read_all(10).await.1, gone);
    // By one that has not loaded it yet, and again.
    let other = Scene::new(archive as _);
    assert_eq!(erase(&other, receipt).await, Ok(()));
    assert_eq!(other.read_all(10).await.1, gone);
}

#[tokio::test]
async fn what_the_archive_could_not_erase_is_not_answered_as_gone() {
    let archive = Arc::new(MemoArchive::default());
    let scene = Scene::new(Arc::clone(&archive) as _);
    let receipt = scene.say("a").await.unwrap();
    archive.set_mode(Mode::FailsBefore);
    let away = EraseError::Unavailable { retry_after: Duration::from_secs(1) };
    assert_eq!(erase(&scene, receipt).await, Err(away));
    archive.set_mode(Mode::Well);
    assert_eq!(erase(&scene, receipt).await, Ok(()));
    assert_eq!(archive.calls("erase"), 2);
}
