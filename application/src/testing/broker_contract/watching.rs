//! Who watches patterns of rooms.

use std::future::Future;
use std::sync::Arc;

use domain::principal::RoomPattern;
use domain::retention::Retention;

use super::{Factory, MAIL_MAX, Scene, publish, receive_published, texts};
use crate::mailbox::{Mailbox, Post};
use crate::ports::Broker;

impl Scene {
    async fn watcher(&self, id: u64, patterns: &[&str]) -> Arc<Mailbox> {
        let mailbox = Arc::new(Mailbox::new(id, MAIL_MAX));
        self.watch(&mailbox, patterns, 1).await;
        mailbox
    }

    async fn watch(&self, mailbox: &Arc<Mailbox>, patterns: &[&str], version: u64) {
        let patterns: Vec<_> = patterns.iter().map(|p| RoomPattern::parse(p).unwrap()).collect();
        self.broker.watch(mailbox, &patterns, version).await.unwrap();
    }
}

fn is_empty(mailbox: &Mailbox) -> bool {
    let mut post = Post::default();
    mailbox.take(&mut post);
    post.mail.is_empty() && post.holes.is_empty()
}

/// All rooms of a pattern come, new ones too, and no others.
pub async fn a_watcher_gets_every_room_of_its_patterns_in_order<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = Scene::new(factory().await, Retention::default());
    let mailbox = scene.watcher(1, &["public:a*", "game:*"]).await;
    for (room, text) in [
        ("public:a", "1"),
        ("public:b", "x"),
        ("public:ab", "2"),
        ("public:a", "3"),
        ("game:z", "4"),
    ] {
        scene.publish(publish(room, "u1", text)).await;
    }
    // Rooms have an order each, and none among them.
    let published = receive_published(&mailbox, 4).await;
    let heard = texts(&published);
    let place = |text: &str| heard.iter().position(|heard| *heard == text);
    assert!(place("1") < place("3"), "{heard:?}");
    assert!(["1", "2", "3", "4"].iter().all(|text| place(text).is_some()), "{heard:?}");
    assert!(is_empty(&mailbox));
}

/// Neither two patterns nor a subscription beside them double anything.
pub async fn what_is_watched_and_subscribed_comes_once<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = Scene::new(factory().await, Retention::default());
    let mailbox = scene.watcher(1, &["public:*", "public:a*"]).await;
    scene.subscribe(&mailbox, 1).await;
    scene.say("1").await;
    scene.say("2").await;
    assert_eq!(texts(&receive_published(&mailbox, 2).await), ["1", "2"]);
    scene.broker.unsubscribe(&scene.room, &mailbox, crate::ports::SubscriptionToken(1)).await;
    scene.say("3").await;
    assert_eq!(texts(&receive_published(&mailbox, 1).await), ["3"]);
    assert!(is_empty(&mailbox));
}

/// Of two changes the later counts, in whichever order the broker hears of them.
pub async fn the_later_set_of_patterns_counts<F>(factory: impl Factory<F>)
where
    F: Future<Output = Arc<dyn Broker>>,
{
    let scene = Scene::new(factory().await, Retention::default());
    let mailbox = scene.watcher(1, &["public:*"]).await;
    scene.watch(&mailbox, &["game:*"], 3).await;
    scene.watch(&mailbox, &["public:*"], 2).await;
    scene.say("x").await;
    scene.publish(publish("game:z", "u1", "1")).await;
    assert_eq!(texts(&receive_published(&mailbox, 1).await), ["1"]);
    scene.watch(&mailbox, &[], 4).await;
    scene.publish(publish("game:z", "u1", "x")).await;
    assert!(is_empty(&mailbox));
}
