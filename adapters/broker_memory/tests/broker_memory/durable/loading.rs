//! How a room's log comes from the archive into memory: once, whoever asks, and nobody waits for it in vain.

use super::*;

#[tokio::test]
async fn after_a_restart_the_archive_is_asked_once_per_room_whoever_comes_back() {
    let archive = Arc::new(MemoArchive::default());
    let before = Scene::new(Arc::clone(&archive) as _);
    for n in 1..=20 {
        before.say(&n.to_string()).await.unwrap();
    }
    before.committer.abort();
    let (opened, read) = (archive.calls("open_room"), archive.calls("read"));
    let scene = Scene::new(Arc::clone(&archive) as _);
    for (member, answer) in (0..).zip(crowd(&scene, 500).await) {
        let missed: Vec<u64> = (member % 20 + 1..=20).collect();
        assert_eq!(answer.unwrap(), missed, "member {member}");
    }
    assert_eq!(archive.calls("open_room") - opened, 1);
    assert_eq!(archive.calls("read") - read, 1);
    // A sweep that finds nothing to trim leaves known where the log begins.
    scene.broker.sweep(at(1)).await;
    // And what is published now follows what was loaded.
    scene.say("21").await.unwrap();
    let (_, all) = scene.read_all(7).await;
    let offsets: Vec<u64> = all.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, (1..=21).collect::<Vec<_>>());
    assert_eq!(archive.calls("read") - read, 1);
}

#[tokio::test]
async fn a_room_that_was_published_to_first_is_loaded_behind_what_is_there() {
    let archive = Arc::new(MemoArchive::default());
    let before = Scene::new(Arc::clone(&archive) as _);
    for n in 1..=20 {
        before.say(&n.to_string()).await.unwrap();
    }
    before.committer.abort();
    let scene = Scene::new(Arc::clone(&archive) as _);
    scene.say("21").await.unwrap();
    scene.say("22").await.unwrap();
    let read = archive.calls("read");
    for (member, answer) in (0..).zip(crowd(&scene, 60).await) {
        assert_eq!(answer.unwrap(), (member % 20 + 1..=22).collect::<Vec<_>>());
    }
    assert_eq!(archive.calls("read") - read, 1);
}

#[tokio::test]
async fn a_crowd_shares_the_failure_of_its_archive_and_the_next_one_asks_again() {
    let archive = Arc::new(MemoArchive::default());
    let scene = Scene::new(Arc::clone(&archive) as _);
    archive.set_opens_fail(true);
    let opened = archive.calls("open_room");
    assert!(crowd(&scene, 200).await.iter().all(Result::is_err));
    assert_eq!(archive.calls("open_room") - opened, 1);
    archive.set_opens_fail(false);
    assert!(crowd(&scene, 200).await.iter().all(Result::is_ok));
    assert_eq!(archive.calls("open_room") - opened, 2);
}

#[tokio::test]
async fn only_the_end_of_a_long_log_is_loaded_and_what_lies_before_it_is_still_read() {
    let archive = Arc::new(MemoArchive::default());
    let keep = Retention { messages_max: 5_000, ..Retention::default() };
    let before = Scene::with(Arc::clone(&archive) as _, Config::default(), keep);
    let all: Vec<_> = (1..=1_500).map(|n| before.begin(&n.to_string())).collect();
    for published in all {
        published.await.unwrap().unwrap();
    }
    before.committer.abort();
    let scene = Scene::with(Arc::clone(&archive) as _, Config::default(), keep);
    let read = archive.calls("read");
    let (_, all) = scene.read_all(500).await;
    let offsets: Vec<u64> = all.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, (1..=1_500).collect::<Vec<_>>());
    assert!(archive.calls("read") - read <= 3, "the load, and a page of what lies before it");
}

#[tokio::test]
async fn a_log_that_did_not_fit_into_memory_is_loaded_once_there_is_room_again() {
    let archive = Arc::new(MemoArchive::default());
    let before = Scene::new(Arc::clone(&archive) as _);
    for n in 1..=20 {
        before.say(&n.to_string()).await.unwrap();
    }
    before.committer.abort();
    let config = Config { log_bytes_max: 100_000, ..Config::default() };
    let scene = Scene::with(Arc::clone(&archive) as _, config, Retention::default());
    // Values of another room take the memory, until they end.
    let beside = policy(Retention::default());
    for n in 0..95 {
        let value = Publish {
            class: Class::Latest,
            key: Some(MessageKey::parse(&n.to_string()).unwrap()),
            ttl: Some(Duration::from_secs(60)),
            ..publish("chat:beside", "u1", &"x".repeat(60))
        };
        scene.broker.publish(value, &beside).await.unwrap();
    }
    let missed = |member: u64| (member % 20 + 1..=20).collect::<Vec<_>>();
    for (member, answer) in (0..).zip(crowd(&scene, 60).await) {
        assert_eq!(answer.unwrap(), missed(member), "from the archive");
    }
    scene.broker.sweep(at(61)).await;
    let read = archive.calls("read");
    for _ in 0..2 {
        for (member, answer) in (0..).zip(crowd(&scene, 60).await) {
            assert_eq!(answer.unwrap(), missed(member));
        }
    }
    assert_eq!(archive.calls("read") - read, 1);
}

#[tokio::test]
async fn a_publish_does_not_wait_for_what_a_reader_loads() {
    let archive = Arc::new(MemoArchive::read_gated());
    let before = Scene::new(Arc::clone(&archive) as _);
    before.say("1").await.unwrap();
    before.committer.abort();
    let scene = Scene::new(Arc::clone(&archive) as _);
    let readers: Vec<_> = (1..=2)
        .map(|id| {
            let (broker, policy) = (Arc::clone(&scene.broker), Arc::clone(&scene.policy));
            let mailbox = Arc::new(Mailbox::new(id, 1_000));
            let token = SubscriptionToken(1);
            tokio::spawn(async move {
                broker.subscribe(&room(ROOM), &policy, &mailbox, token).await.map(|top| top.bounds)
            })
        })
        .collect();
    settle().await;
    let publishing = scene.begin("2");
    settle().await;
    assert!(publishing.is_finished(), "it waits for a reader");
    assert_eq!(publishing.await.unwrap().unwrap().offset, number(2));
    assert!(readers.iter().all(|reader| !reader.is_finished()));
    archive.read_gate.add_permits(100);
    for reader in readers {
        let bounds = reader.await.unwrap().unwrap();
        assert_eq!((bounds.first, Some(bounds.last)), (number(1).unwrap(), number(2)));
    }
    assert_eq!(scene.read_all(10).await.1, said(&["1", "2"]));
}
