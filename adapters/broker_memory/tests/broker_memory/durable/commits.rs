//! Commits: what waits for them, what a failed one leaves behind, and rooms of which it is not known where
//! they stand.

use super::*;

#[tokio::test]
async fn nothing_is_delivered_or_acknowledged_before_the_commit() {
    let archive = Arc::new(MemoArchive::gated());
    let scene = Scene::new(archive.clone());
    let (early, bounds) = scene.subscribe(1).await;
    assert_eq!((bounds.first, bounds.last), (number(1).unwrap(), Offset::ZERO));
    let publishing = scene.begin("a");
    settle().await;
    assert_eq!(archive.calls("append"), 1);
    assert!(!publishing.is_finished() && delivered(&early).is_empty());
    let (late, bounds) = scene.subscribe(2).await;
    assert_eq!(bounds.last, Offset::ZERO);
    assert!(scene.read_all(10).await.1.is_empty());
    archive.gate.add_permits(1);
    let receipt = publishing.await.unwrap().unwrap();
    assert_eq!((receipt.offset, receipt.level), (number(1), AckLevel::Durable));
    for mailbox in [early, late] {
        assert_eq!(delivered(&mailbox), said(&["a"]), "it comes behind the answered position");
    }
}

#[tokio::test]
async fn what_waits_during_a_commit_is_committed_together() {
    let archive = Arc::new(MemoArchive::gated());
    let scene = Scene::new(archive.clone());
    let (mailbox, _) = scene.subscribe(1).await;
    let first = scene.begin("0");
    settle().await;
    let others: Vec<_> = (1..=50).map(|n| scene.begin(&n.to_string())).collect();
    settle().await;
    archive.gate.add_permits(2);
    first.await.unwrap().unwrap();
    for other in others {
        assert!(!other.await.unwrap().unwrap().duplicate);
    }
    assert_eq!(archive.batches(), [1, 50]);
    assert_eq!(archive.calls("find"), 2, "one question for a batch");
    let texts: Vec<String> = (0..=50).map(|n| n.to_string()).collect();
    assert_eq!(delivered(&mailbox), (1..).zip(texts).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_failed_commit_delivers_nothing_and_uses_no_offset_and_the_next_publish_works() {
    let archive = Arc::new(MemoArchive::default());
    let scene = Scene::new(archive.clone());
    let (mailbox, _) = scene.subscribe(1).await;
    archive.set_mode(Mode::FailsBefore);
    assert_eq!(scene.say("a").await, Err(AWAY));
    assert_eq!(scene.say("a").await, Err(AWAY));
    assert!(delivered(&mailbox).is_empty());
    archive.set_mode(Mode::Well);
    assert_eq!(scene.say("b").await.unwrap().offset, number(1));
    assert!(!scene.say("a").await.unwrap().duplicate);
    assert_eq!(delivered(&mailbox), said(&["b", "a"]));
}

#[tokio::test]
async fn a_commit_that_failed_after_all_was_stored_ends_as_one_message() {
    let archive = Arc::new(MemoArchive::default());
    let scene = Scene::new(archive.clone());
    let (mailbox, _) = scene.subscribe(1).await;
    archive.set_mode(Mode::FailsAfter);
    assert_eq!(scene.say("a").await, Err(AWAY));
    assert!(delivered(&mailbox).is_empty());
    archive.set_mode(Mode::Well);
    let retried = scene.say("a").await.unwrap();
    assert_eq!((retried.offset, retried.duplicate), (number(1), true));
    assert_eq!(scene.say("b").await.unwrap().offset, number(2));
    assert_eq!(delivered(&mailbox), said(&["a", "b"]));
    assert_eq!(scene.read_all(10).await.1, said(&["a", "b"]));
}

#[tokio::test]
async fn a_commit_that_failed_after_all_is_known_by_its_name_although_retention_has_trimmed_it() {
    let archive = Arc::new(MemoArchive::default());
    let scene = Scene::with(archive.clone(), Config::default(), Retention::NONE);
    let (mailbox, _) = scene.subscribe(1).await;
    archive.set_mode(Mode::FailsAfter);
    assert_eq!(scene.say("a").await, Err(AWAY));
    archive.set_mode(Mode::Well);
    // The room is out of doubt, then trimmed.
    for seconds in 1..3 {
        scene.broker.sweep(at(seconds)).await;
        settle().await;
    }
    archive.forget_places();
    let retried = scene.say("a").await.unwrap();
    assert_eq!((retried.offset, retried.duplicate), (number(1), true));
    assert_eq!(delivered(&mailbox), said(&["a"]));
}

#[tokio::test]
async fn a_sweep_delivers_what_a_failed_commit_had_stored() {
    let archive = Arc::new(MemoArchive::default());
    let scene = Scene::new(archive.clone());
    let (mailbox, _) = scene.subscribe(1).await;
    archive.set_mode(Mode::FailsAfter);
    assert_eq!(scene.say("a").await, Err(AWAY));
    scene.broker.sweep(at(1)).await;
    settle().await;
    assert_eq!(delivered(&mailbox), said(&["a"]));
}

#[tokio::test]
async fn a_room_in_doubt_takes_nothing_until_the_archive_says_where_it_stands() {
    let archive = Arc::new(MemoArchive::default());
    let scene = Scene::with(archive.clone(), Config::default(), Retention::NONE);
    let (mailbox, _) = scene.subscribe(1).await;
    scene.say("a").await.unwrap();
    archive.set_mode(Mode::FailsAfter);
    archive.set_opens_fail(true);
    assert_eq!(scene.say("b").await, Err(AWAY));
    archive.set_mode(Mode::Well);
    let unnamed = || publish(ROOM, "u1", "c");
    assert_eq!(scene.publish(unnamed()).await, Err(AWAY));
    scene.broker.sweep(at(0)).await;
    settle().await;
    assert_eq!((delivered(&mailbox), archive.calls("append")), (said(&["a"]), 2));
    assert_eq!(scene.read_all(5).await.1, [], "trimmed, and nobody has been given the next");
    archive.set_opens_fail(false);
    assert_eq!(scene.publish(unnamed()).await.unwrap().offset, number(3));
    assert_eq!(delivered(&mailbox), said(&["a", "b", "c"])[1..].to_vec());
}

/// Brings rooms into doubt: their appends seem to fail.
async fn doubt(scene: &Scene, archive: &MemoArchive, rooms: &[&str]) {
    archive.set_mode(Mode::FailsAfter);
    for name in rooms {
        assert_eq!(scene.publish(publish(name, "u1", "a")).await, Err(AWAY));
    }
    archive.set_mode(Mode::Well);
}

#[tokio::test]
async fn a_room_that_nobody_can_read_holds_up_no_other_room_in_doubt() {
    let archive = Arc::new(MemoArchive::default());
    let scene = Scene::new(archive.clone());
    archive.set_unreadable(room("chat:a"), true);
    doubt(&scene, &archive, &["chat:a", "chat:b"]).await;
    let published = scene.publish(publish("chat:b", "u1", "b")).await;
    assert_eq!(published.unwrap().offset, number(2));
    assert_eq!(scene.publish(publish("chat:a", "u1", "b")).await, Err(AWAY));
    archive.set_unreadable(room("chat:a"), false);
    let published = scene.publish(publish("chat:a", "u1", "b")).await;
    assert_eq!(published.unwrap().offset, number(2));
}

#[tokio::test]
async fn however_many_rooms_nobody_can_read_each_commit_asks_for_few_of_them_and_all_have_a_turn() {
    let archive = Arc::new(MemoArchive::default());
    let scene = Scene::new(archive.clone());
    let unreadable = ["chat:a", "chat:b", "chat:c", "chat:d", "chat:e", "chat:f", "chat:g"];
    for name in unreadable {
        archive.set_unreadable(room(name), true);
    }
    doubt(&scene, &archive, &unreadable).await;
    doubt(&scene, &archive, &["chat:h"]).await;
    // Those before it take up three commits; each asks for the three that are next.
    let mut published = Vec::new();
    for _ in 0..4 {
        let read = archive.calls("read");
        published.push(scene.publish(publish("chat:h", "u1", "b")).await);
        assert!(archive.calls("read") - read <= 7, "{}", archive.calls("read") - read);
    }
    let n_refused = published.iter().take_while(|published| published.is_err()).count();
    assert!(n_refused <= 2, "{published:?}");
    assert_eq!(published[n_refused].as_ref().unwrap().offset, number(2));
}
