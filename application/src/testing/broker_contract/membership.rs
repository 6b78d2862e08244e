//! Who gets what, from when on.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::delivery::Class;
use domain::id::{ConnectionId, MessageKey};
use domain::message::{Origin, Publish};
use domain::position::Offset;
use domain::retention::Retention;
use domain::tags::Tags;

use super::{
    Factory, MAIL_MAX, Scene, at, join_all, named, offset, offsets, publish, read_log,
    receive_published, step_aside, texts,
};
use crate::mailbox::Mailbox;
use crate::ports::{Broker, SubscriptionToken};

/// Nothing of a publication changes on its way.
pub async fn every_mailbox_gets_what_was_published_byte_for_byte<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = Scene::new(factory().await, Retention::default());
    let mailbox = scene.mailbox(1).await;
    let data = Bytes::from_static("{ \"b\":1,  \"a\":[1.0,\"\\u00e9é🦀\"],\"b\":2 }".as_bytes());
    let origin = Origin { connection: ConnectionId::from_bits(1), command: Some(7), echo: false };
    let ttl = Some(Duration::from_secs(60));
    let tags = Tags::build([("lang", "de"), ("", "\"")]).unwrap();
    let sent = Publish {
        data: data.clone(),
        tags: tags.clone(),
        ttl,
        origin: Some(origin),
        ..publish(Scene::ROOM, "u1", "")
    };
    let receipt = scene.publish(sent.clone()).await;
    let delivered = receive_published(&mailbox, 1).await;
    let read = scene.read(read_log(0, 1)).await.messages;
    for publication in [&delivered[0].publication, &read[0].publication] {
        assert_eq!((&publication.data, &publication.tags), (&data, &tags));
        assert_eq!((publication.epoch, publication.offset), (receipt.epoch, receipt.offset));
        assert_eq!((&publication.room, &publication.sender), (&sent.room, &sent.sender));
        assert_eq!((publication.at, publication.expires_at), (at(0), Some(at(60))));
        assert_eq!((publication.class, publication.tombstone), (Class::Reliable, None));
    }
    assert_eq!(delivered[0].publication.origin, Some(origin), "its connection is waiting for it");
}

/// Who subscribes while others publish misses nothing behind the answered position.
pub async fn everything_behind_the_answered_position_arrives<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    const MESSAGES: u64 = 60;
    let scene = &Scene::new(factory().await, Retention::default());
    let joined = &std::cell::RefCell::new(Vec::new());
    let publisher = async move {
        for number in 1..=MESSAGES {
            scene.say(&number.to_string()).await;
            step_aside().await;
        }
    };
    let subscriber = async move {
        for id in 1..=20 {
            let mailbox = Arc::new(Mailbox::new(id, MAIL_MAX));
            let top = scene.subscribe(&mailbox, 1).await;
            joined.borrow_mut().push((mailbox, top.bounds.last));
            step_aside().await;
        }
    };
    let both: [Pin<Box<dyn Future<Output = ()>>>; 2] = [Box::pin(publisher), Box::pin(subscriber)];
    join_all(both).await;
    for (mailbox, last) in joined.take() {
        let missing = usize::try_from(MESSAGES - last.get()).unwrap();
        let mut got = offsets(&receive_published(&mailbox, missing).await);
        // Earlier ones may come too and are dropped by offset, but none twice and none later.
        while missing > 0 && got.last().is_some_and(|end| *end < MESSAGES) {
            got.extend(offsets(&receive_published(&mailbox, 1).await));
        }
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
    let scene = Scene::new(factory().await, Retention::default());
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
    let scene = Scene::new(factory().await, Retention::default());
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

/// `latest` and `droppable` have no place in the order.
pub async fn a_message_without_position_is_delivered_and_not_logged<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = Scene::new(factory().await, Retention::default());
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
    let scene = Scene::new(factory().await, Retention::default());
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
