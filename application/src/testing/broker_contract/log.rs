//! What can be read, and what is gone.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use domain::message::{Publish, TombstoneReason};
use domain::position::Offset;
use domain::retention::Retention;

use super::{
    Factory, Scene, at, named, offset, offsets, publish, read_log, receive_published, texts,
};
use crate::mailbox::Mailbox;
use crate::ports::{Broker, ReadLog};

/// What was acknowledged can be read at once.
pub async fn an_answered_publish_is_in_the_log<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = Scene::new(factory().await, Retention::default());
    for number in 1..=5 {
        scene.say("x").await;
        let page = scene.read(read_log(number - 1, 10)).await;
        assert_eq!((offsets(&page.messages), page.bounds.last), (vec![number], offset(number)));
    }
}

/// Page by page is the whole log, once.
pub async fn pages_have_no_holes_and_say_whether_more_follows<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = Scene::new(factory().await, Retention::default());
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
    let scene = Scene::new(factory().await, Retention::default());
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
    let scene = Scene::new(factory().await, Retention::default());
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
    let scene = Scene::new(factory().await, Retention::default());
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

/// What falls off the old end is named by the bounds, and pages begin behind it.
pub async fn retention_drops_the_oldest_and_the_bounds_say_so<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = Scene::new(factory().await, Retention { messages_max: 5, ..Retention::default() });
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
    let scene = Scene::new(factory().await, Retention { bytes_max: 30, ..Retention::default() });
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
    let scene = Scene::new(factory().await, Retention { age_max, ..Retention::default() });
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
    let scene = Scene::new(factory().await, Retention::NONE);
    let mailbox = scene.mailbox(1).await;
    scene.say_numbers(3).await;
    assert_eq!(offsets(&receive_published(&mailbox, 3).await), [1, 2, 3]);
    let page = scene.read(read_log(1, 10)).await;
    assert!(page.messages.is_empty() && !page.more);
    assert_eq!((page.bounds.first, page.bounds.last), (offset(4), offset(3)));
    assert!(scene.publish(named(publish(Scene::ROOM, "u1", "x"), "m")).await.offset.is_some());
    assert!(scene.publish(named(publish(Scene::ROOM, "u1", "x"), "m")).await.duplicate);
}
