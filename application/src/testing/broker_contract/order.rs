//! One order per room, and one message per `msg_id`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use domain::id::ClientId;
use domain::message::{Publish, Publisher};
use domain::policy::NamespacePolicy;
use domain::retention::Retention;

use super::{
    Factory, Scene, join_all, named, offset, offsets, publish, read_log, receive_published, room,
    step_aside, texts,
};
use crate::ports::{Broker, Receipt};

/// Offsets are 1, 2, 3, and the epoch does not change.
pub async fn publications_get_offsets_without_holes_in_one_epoch<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = Scene::new(factory().await, Retention::default());
    let first = scene.say("1").await;
    for number in 1..=20 {
        let receipt = if number == 1 { first } else { scene.say("n").await };
        assert_eq!(receipt.offset, Some(offset(number)));
        assert_eq!((receipt.epoch, receipt.duplicate), (first.epoch, false));
    }
    let bounds = scene.read(read_log(0, 1)).await.bounds;
    assert_eq!((bounds.epoch, bounds.first, bounds.last), (first.epoch, offset(1), offset(20)));
}

/// Every mailbox gets everything, in the order of offsets.
pub async fn two_mailboxes_see_one_order<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = Scene::new(factory().await, Retention::default());
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
    let scene = &Scene::new(factory().await, Retention::default());
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
    let scene = &Scene::new(factory().await, Retention::default());
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
    let scene = Scene::new(factory().await, Retention::default());
    let from = |publisher: Publisher| Publish { publisher, ..publish(Scene::ROOM, "u1", "x") };
    let client = ClientId::parse("u1").unwrap();
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

/// Who acknowledges a message because it came says what the answer says.
pub async fn what_may_be_acknowledged_when_it_is_delivered_is_answered_at_that_level<F>(
    factory: impl Factory<F>,
) where
    F: Future<Output = Arc<dyn Broker>>,
{
    let plain = Scene::new(factory().await, Retention::default());
    for (durable, replicated) in [(false, false), (true, false)] {
        let policy =
            NamespacePolicy { durable, replicated, ..NamespacePolicy::clone(&plain.policy) };
        let scene = Scene {
            broker: Arc::clone(&plain.broker),
            policy: Arc::new(policy),
            room: room(if durable { "public:b" } else { Scene::ROOM }),
        };
        let sent = publish(scene.room.as_str(), "u1", "x");
        let answered = scene.publish(sent).await.level;
        let delivered = scene.broker.level_of_delivery(&scene.policy);
        assert!(delivered.is_none_or(|level| level == answered), "{delivered:?}, {answered:?}");
    }
}

/// Equal messages without a name are different messages.
pub async fn a_publish_without_msg_id_is_never_a_duplicate<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = Scene::new(factory().await, Retention::default());
    assert_eq!(scene.say("same").await.offset, Some(offset(1)));
    assert_eq!(scene.say("same").await.offset, Some(offset(2)));
}

/// Each room has its own order and its own members.
pub async fn rooms_do_not_mix<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = Scene::new(factory().await, Retention::default());
    let mailbox = scene.mailbox(1).await;
    assert_eq!(scene.publish(publish("public:b", "u1", "b")).await.offset, Some(offset(1)));
    assert_eq!(scene.say("a").await.offset, Some(offset(1)));
    assert_eq!(texts(&receive_published(&mailbox, 1).await), ["a"]);
    assert_eq!(texts(&scene.read(read_log(0, 10)).await.messages), ["a"]);
}
