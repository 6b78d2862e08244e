//! Postgres is replaced by a replica that had not got the last commits: what was lost is told, never passed over in
//! silence, and no place is given out twice under one epoch.

use std::collections::BTreeMap;
use std::time::Instant;

use application::ports::{Archive as _, Forget, RoomHead};
use application::testing::archive_contract::{offset, record, room};
use domain::id::Epoch;
use domain::position::{Offset, Position};
use domain::recovery::EarlierLives;
use serde_json::{Value, json};
use store_postgres::Config;
use tests::postgres::Postgres;
use tests::raw::RawSocket;
use tests::redis::Redis;
use tests::server::Server;
use tokio::runtime::Runtime;

use crate::fleet::until_status;
use crate::passage::Passage;
use crate::postgres_server::{arguments, ask, publish};
use crate::postgres_stores::{SOON, build, fresh_schema};

const ROOM: &str = "public:kept";

/// A primary with its replica, and a way that leads to one of them.
struct Servers {
    primary: Postgres,
    replica: Postgres,
    way: Passage,
    _runtime: Runtime,
}

impl Servers {
    fn start() -> Self {
        let primary = Postgres::start();
        let replica = primary.start_replica();
        let runtime = Runtime::new().unwrap();
        let way = Passage::start(runtime.handle(), primary.port());
        Self { primary, replica, way, _runtime: runtime }
    }

    fn url(&self) -> String {
        self.primary.url_at(self.way.port())
    }

    fn node(&self, redis: Option<&Redis>) -> Server {
        let mut words = arguments();
        words.extend(["--set".to_owned(), "redis.answer_timeout_ms=1000".to_owned()]);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let (url, redis) = (self.url(), redis.map(Redis::url));
        let mut environment = vec![("DATABASE_URL", &*url)];
        environment.extend(redis.as_deref().map(|redis| ("REDIS_URL", redis)));
        let node = Server::start_with(&words, &environment);
        until_status(&node, 200);
        node
    }

    /// Waits until the replica has so many messages.
    fn until_copied(&self, messages: usize) {
        let count = "SELECT count(*) FROM roomkeeper.messages";
        self.replica.until(count, &messages.to_string());
    }

    /// The primary dies, and the replica takes its place.
    fn fail_over(&mut self) {
        self.primary.kill();
        self.way.switch(self.replica.port());
        self.replica.promote();
    }
}

/// What lay at which place, as anybody was told.
#[derive(Default)]
struct Places(BTreeMap<(String, u64), u64>);

impl Places {
    fn note(&mut self, epoch: &Value, offset: &Value, n: u64) -> (String, u64) {
        let at = (epoch.as_str().unwrap().to_owned(), offset.as_u64().unwrap());
        let before = self.0.insert(at.clone(), n);
        assert!(before.is_none_or(|before| before == n), "{at:?} was {before:?}, and is {n}");
        at
    }

    /// Publishes it until it is taken, as clients do. Where it is, and whether it was there before.
    fn publish(&mut self, node: &Server, room: &str, n: u64) -> ((String, u64), bool) {
        let begin = Instant::now();
        loop {
            let (status, receipt) = publish(node, room, n);
            if status == "200" {
                assert_eq!(receipt["level"], json!("durable"), "{receipt}");
                let at = self.note(&receipt["epoch"], &receipt["offset"], n);
                return (at, receipt["duplicate"] == json!(true));
            }
            assert_eq!(status, "503", "{receipt}");
            assert!(begin.elapsed() < SOON, "{status}: {receipt}");
        }
    }

    /// What one who comes to the room hears up to this message, and whether it is told of a gap. `since` is where it
    /// stood.
    fn come(
        &mut self,
        node: &Server,
        since: Option<&(String, u64)>,
        last: u64,
    ) -> (Vec<u64>, bool) {
        let (mut socket, frames) = member(node, ROOM, since);
        self.hear_behind(frames, &mut socket, last)
    }

    /// The same of one who is there.
    fn hear(&mut self, socket: &mut RawSocket, last: u64) -> (Vec<u64>, bool) {
        self.hear_behind(Vec::new(), socket, last)
    }

    /// The same behind frames that were read already.
    fn hear_behind(
        &mut self,
        frames: Vec<Value>,
        socket: &mut RawSocket,
        last: u64,
    ) -> (Vec<u64>, bool) {
        let (mut heard, mut has_gap, mut frames) = (Vec::new(), false, frames.into_iter());
        while !heard.contains(&last) {
            let frame = frames.next().unwrap_or_else(|| socket.next_json());
            let messages = match frame["type"].as_str().unwrap() {
                "gap" => {
                    has_gap = true;
                    Vec::new()
                }
                "message" => vec![frame],
                "subscribed" | "page" => frame["messages"].as_array().unwrap().clone(),
                other => panic!("{other}: {frame}"),
            };
            for message in messages {
                let n = message["data"]["n"].as_u64().unwrap();
                self.note(&message["epoch"], &message["offset"], n);
                heard.push(n);
            }
        }
        (heard, has_gap)
    }
}

/// One who asks to be let in, and is not refused for the moment: right behind a loss that comes first.
fn member(node: &Server, room: &str, since: Option<&(String, u64)>) -> (RawSocket, Vec<Value>) {
    let mut socket = RawSocket::open(node.addr(), "/ws/v2/connect").with_deadline(SOON);
    socket.expect_json("hello");
    let mut subscribe = json!({"type": "subscribe", "id": 1, "room": room});
    if let Some((epoch, offset)) = since {
        subscribe["since"] = json!({"epoch": epoch, "offset": offset});
    }
    let begin = Instant::now();
    loop {
        socket.send_json(&subscribe);
        let mut frames = vec![socket.next_json()];
        if frames[0]["type"] == "gap" {
            frames.push(socket.next_json());
        }
        if frames[0]["code"] != json!(114) {
            return (socket, frames);
        }
        assert!(begin.elapsed() < SOON, "{frames:?}");
    }
}

/// One who is in the room by the time that this returns, and has been told nothing yet.
fn listener(node: &Server, room: &str) -> RawSocket {
    let (socket, frames) = member(node, room, None);
    assert_eq!(frames[0]["type"], "subscribed");
    socket
}

/// All of the log, and how many gaps a reader from its beginning meets.
fn history(node: &Server, room: &str) -> (Vec<u64>, usize) {
    let (begin, mut all, mut n_gaps, mut from) = (Instant::now(), Vec::new(), 0, String::new());
    loop {
        let path = format!("/api/v1/history?room={room}&limit=100{from}");
        let (status, page) = ask(node, "GET", &path, "");
        if status == "503" {
            // Right behind a loss.
            assert!(begin.elapsed() < SOON, "{page}");
            continue;
        }
        assert_eq!(status, "200", "{page}");
        n_gaps += usize::from(page["gap"] != Value::Null);
        let messages = page["messages"].as_array().unwrap();
        all.extend(messages.iter().filter_map(|message| message["data"]["n"].as_u64()));
        if page["more"] == json!(false) {
            return (all, n_gaps);
        }
        from = format!("&epoch={}&offset={}", page["epoch"].as_str().unwrap(), page["offset"]);
    }
}

/// PG09: one server, which runs meanwhile. A replica takes no writes, and says so until it is promoted.
#[test]
fn what_a_promoted_postgres_had_not_got_is_a_gap_and_no_place_is_given_out_twice() {
    if !Postgres::is_here() {
        return;
    }
    let (mut servers, mut places) = (Servers::start(), Places::default());
    let mut node = servers.node(None);
    let ((first, _), _) = places.publish(&node, ROOM, 1);
    (2..=8).for_each(|n| drop(places.publish(&node, ROOM, n)));
    servers.until_copied(8);
    servers.replica.stop_following();
    let mut ann = listener(&node, ROOM);
    (9..=10).for_each(|n| drop(places.publish(&node, ROOM, n)));
    assert_eq!(places.hear(&mut ann, 10), (vec![9, 10], false));

    servers.primary.kill();
    servers.way.switch(servers.replica.port());
    until_status(&node, 503);
    assert_eq!(publish(&node, ROOM, 11).0, "503");
    assert_eq!(publish(&node, "public:memory", 1).0, "200");
    servers.replica.promote();
    let ((second, at), _) = places.publish(&node, ROOM, 11);
    assert!(second != first && at == 9, "{second} {at}");
    assert_eq!(places.hear(&mut ann, 11), (vec![11], true));
    // What was lost is not remembered as said, and the log goes beyond where it was.
    let (_, is_known) = places.publish(&node, ROOM, 10);
    assert!(!is_known);
    (12..=14).for_each(|n| drop(places.publish(&node, ROOM, n)));
    let (_, is_known) = places.publish(&node, ROOM, 8);
    assert!(is_known);
    for _ in 0..2 {
        let later = vec![11, 10, 12, 13, 14];
        for (stood, has_gap) in [(8, false), (10, true)] {
            let since = (first.clone(), stood);
            assert_eq!(places.come(&node, Some(&since), 14), (later.clone(), has_gap));
        }
        let five = (first.clone(), 5);
        let from_six: Vec<_> = (6..=8).chain(later.clone()).collect();
        assert_eq!(places.come(&node, Some(&five), 14), (from_six, false));
        let all: Vec<_> = (1..=8).chain(later).collect();
        assert_eq!(history(&node, ROOM).0, all);
        node.kill();
        node.restart();
        until_status(&node, 200);
    }
    assert_eq!(places.publish(&node, ROOM, 15).0, (second, 14));
}

/// PG09: the server finds another Postgres at its next start, with all or with less than it had.
#[test]
fn a_server_that_starts_on_a_promoted_postgres_begins_another_epoch_and_only_what_was_lost_is_a_gap()
 {
    if !Postgres::is_here() {
        return;
    }
    for lost in [0, 2] {
        let (mut servers, mut places) = (Servers::start(), Places::default());
        let mut node = servers.node(None);
        let ((first, _), _) = places.publish(&node, ROOM, 1);
        (2..=10 - lost).for_each(|n| drop(places.publish(&node, ROOM, n)));
        servers.until_copied(usize::try_from(10 - lost).unwrap());
        servers.replica.stop_following();
        (11 - lost..=10).for_each(|n| drop(places.publish(&node, ROOM, n)));
        node.kill();
        servers.fail_over();
        node.restart();
        until_status(&node, 200);
        let ((second, _), _) = places.publish(&node, ROOM, 11);
        assert_ne!(second, first);
        // As many as were there before: a place alone says nothing.
        (12..=13).for_each(|n| drop(places.publish(&node, ROOM, n)));
        let (heard, has_gap) = places.come(&node, Some(&(first.clone(), 10)), 13);
        assert_eq!((heard, has_gap), (vec![11, 12, 13], lost > 0));
        let (heard, has_gap) = places.come(&node, Some(&(first, 8)), 13);
        let kept: Vec<_> = (9..=10 - lost).chain(11..=13).collect();
        assert_eq!((heard, has_gap), (kept, false));
        assert_eq!(history(&node, ROOM).0, (1..=10 - lost).chain(11..=13).collect::<Vec<_>>());
    }
}

/// PG09 over Redis: with what Redis knows, and with a Redis that has another life that the replica never heard of.
#[test]
fn over_redis_a_promoted_postgres_loses_nobody_a_place_in_silence() {
    if !Redis::is_here() || !Postgres::is_here() {
        return;
    }
    for loses_redis in [false, true] {
        let (mut servers, mut places) = (Servers::start(), Places::default());
        let mut redis = Redis::start();
        let nodes = [(); 2].map(|()| servers.node(Some(&redis)));
        let ((first, _), _) = places.publish(&nodes[0], ROOM, 1);
        (2..=8).for_each(|n| drop(places.publish(&nodes[n as usize % 2], ROOM, n)));
        servers.until_copied(8);
        servers.replica.stop_following();
        let mut members = [0, 1].map(|of| listener(&nodes[of], ROOM));
        if loses_redis {
            redis.start_again();
        }
        let ((before, _), _) = places.publish(&nodes[0], ROOM, 9);
        places.publish(&nodes[1], ROOM, 10);
        for member in &mut members {
            assert_eq!(places.hear(member, 10), (vec![9, 10], false));
        }
        // One that the replica has never heard of.
        let young = "public:young";
        let ((lost, _), _) = places.publish(&nodes[0], young, 100);
        servers.fail_over();
        let ((after, at), _) = places.publish(&nodes[1], ROOM, 11);
        assert!(at > 10, "{at}");
        // Redis has what Postgres lost, unless Postgres knew nothing of its life.
        assert_eq!((after == before, before == first), (!loses_redis, !loses_redis));
        places.publish(&nodes[0], ROOM, 12);
        for member in &mut members {
            let (heard, has_gap) = places.hear(member, 12);
            // Who has heard of a life that nobody knows is told so, and then all that the next one has.
            assert!(heard.ends_with(&[11, 12]) && has_gap == loses_redis, "{heard:?} {has_gap}");
            assert!(loses_redis || heard.len() == 2, "{heard:?}");
        }
        nodes.iter().for_each(|node| until_status(node, 200));
        let ((young_epoch, at), _) = places.publish(&nodes[1], young, 101);
        assert!(young_epoch != lost && at > 1, "{young_epoch} {at}");
        let (mut one, frames) = member(&nodes[0], young, Some(&(lost, 1)));
        assert_eq!(places.hear_behind(frames, &mut one, 101), (vec![101], true));
        let (_, has_gap) = places.come(&nodes[0], Some(&(before.clone(), 10)), 12);
        assert_eq!(has_gap, loses_redis);

        // Now Redis forgets, too: what is in Postgres is the log, and its holes are told.
        redis.start_again();
        let ((last, _), _) = places.publish(&nodes[0], ROOM, 13);
        assert_ne!(last, after);
        nodes.iter().for_each(|node| until_status(node, 200));
        let (all, n_gaps) = history(&nodes[1], ROOM);
        assert_eq!(all, [(1..=8).collect::<Vec<_>>(), vec![11, 12, 13]].concat());
        assert_eq!(n_gaps, 1);
        let (heard, has_gap) = places.come(&nodes[1], Some(&(first, 8)), 13);
        assert_eq!((heard, has_gap), (vec![11, 12, 13], true));
    }
}

/// PG09: who publishes is told to come back, and all else goes on.
#[test]
fn a_postgres_that_takes_no_writes_is_a_refusal_to_come_back_and_heals() {
    if !Postgres::is_here() {
        return;
    }
    let (servers, mut places) = (Servers::start(), Places::default());
    let node = servers.node(None);
    places.publish(&node, ROOM, 1);
    let mut ann = listener(&node, ROOM);
    let say = |ann: &mut RawSocket, room: &str, n: u64| {
        ann.send_json(&json!({
            "type": "publish", "id": n, "room": room, "data": {"n": n}, "msg_id": format!("w{n}"),
        }));
        loop {
            let answer = ann.next_json();
            if answer["id"] == json!(n) {
                return answer;
            }
        }
    };
    servers.primary.tell("ALTER SYSTEM SET default_transaction_read_only = on");
    servers.primary.tell("SELECT pg_reload_conf()");
    servers.primary.until("SHOW default_transaction_read_only", "on");
    let refused = say(&mut ann, ROOM, 2);
    assert_eq!((&refused["type"], refused["code"].as_u64()), (&json!("error"), Some(114)));
    until_status(&node, 503);
    assert!(refused["retry_after_ms"].as_u64().is_some_and(|after| after > 0), "{refused}");
    assert_eq!(say(&mut ann, "public:memory", 3)["type"], json!("ack"));
    servers.primary.tell("ALTER SYSTEM RESET default_transaction_read_only");
    servers.primary.tell("SELECT pg_reload_conf()");
    until_status(&node, 200);
    let taken = say(&mut ann, ROOM, 2);
    assert_eq!((&taken["type"], &taken["level"]), (&json!("ack"), &json!("durable")), "{taken}");
    assert_eq!(history(&node, ROOM).0, [1, 2]);
}

/// PG09: a base backup that is started without recovery says the life that it had.
#[tokio::test]
async fn a_log_that_lacks_what_a_node_knows_ends_its_epoch_whatever_life_the_server_says() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let store =
        build(Config { schema: fresh_schema(), ..Config::new(postgres.url().into()) }).await;
    let (name, [one, two, three]) = (room("chat:a"), [1, 2, 3].map(Epoch::from_bits));
    let at = |epoch, last| Some(Position { epoch, offset: offset(last) });
    store.open_room(&name, one, None).await.unwrap();
    store.append((1..=3).map(|n| record(&name, one, n)).collect()).await.unwrap();
    for known in [at(one, 3), at(one, 2)] {
        assert_eq!(
            store.open_room(&name, two, known).await.unwrap().epoch,
            one,
            "it lacks nothing"
        );
    }
    let head = store.open_room(&name, two, at(one, 5)).await.unwrap();
    let earlier = EarlierLives::new([Position { epoch: one, offset: offset(3) }]);
    assert_eq!(head, RoomHead { epoch: two, last: offset(3), earlier });
    assert!(store.append(vec![record(&name, one, 4)]).await.is_err());
    store.append(vec![record(&name, two, 4)]).await.unwrap();
    let page = store.read(&name, two, Offset::ZERO, 10, usize::MAX).await.unwrap();
    assert_eq!(page.messages.len(), 4);
    // What was known of an epoch that has ended is there; an epoch that never was, was begun behind all this.
    assert_eq!(store.open_room(&name, three, at(one, 3)).await.unwrap().epoch, two);
    let unknown = at(Epoch::from_bits(9), 2);
    assert_eq!(store.open_room(&name, three, unknown).await.unwrap().epoch, three);
    store.close().await;
}

/// PG09: what is read and erased of an epoch that goes on from another, and what a further one does.
#[tokio::test]
async fn a_log_that_goes_on_in_another_life_is_read_whole_and_under_its_present_epoch() {
    if !Postgres::is_here() {
        return;
    }
    let [one, two, three] = [1, 2, 3].map(Epoch::from_bits);
    let (schema, primary) = (fresh_schema(), Postgres::start());
    let settings =
        |of: &Postgres| Config { schema: schema.clone(), ..Config::new(of.url().into()) };
    let replica = primary.start_replica();
    let (kept, empty) = (room("chat:a"), room("chat:b"));
    let store = build(settings(&primary)).await;
    store.open_room(&kept, one, None).await.unwrap();
    store.open_room(&empty, one, None).await.unwrap();
    store.append((1..=3).map(|n| record(&kept, one, n)).collect()).await.unwrap();
    store.close().await;
    replica.until(&format!("SELECT count(*) FROM {schema}.messages"), "3");
    replica.promote();
    let store = build(settings(&replica)).await;
    let end = |epoch, at| Position { epoch, offset: offset(at) };
    for _ in 0..2 {
        let head = store.open_room(&kept, two, None).await.unwrap();
        let earlier = EarlierLives::new([end(one, 3)]);
        assert_eq!(head, RoomHead { epoch: two, last: offset(3), earlier });
    }
    assert_eq!(store.open_room(&empty, two, None).await.unwrap().epoch, two);
    // Nothing of the ended one is taken any more, and it can't be begun again.
    assert!(store.append(vec![record(&kept, one, 4)]).await.is_err());
    store.append(vec![record(&kept, two, 4)]).await.unwrap();
    store.forget(&kept, Forget::Message(end(two, 2))).await.unwrap();
    let page = store.read(&kept, two, Offset::ZERO, 10, usize::MAX).await.unwrap();
    let read: Vec<_> = page.messages.iter().map(|one| (one.epoch, one.offset.unwrap())).collect();
    assert_eq!(read, [1, 2, 3, 4].map(|n| (two, offset(n))));
    assert_eq!(page.first, offset(1));
    let is_gone = |at: usize| page.messages[at].tombstone.is_some();
    assert_eq!([0, 1, 2, 3].map(is_gone), [false, true, false, false]);

    let next = replica.start_replica();
    next.until(&format!("SELECT count(*) FROM {schema}.messages"), "4");
    store.close().await;
    next.promote();
    let store = build(settings(&next)).await;
    let head = store.open_room(&kept, three, None).await.unwrap();
    let earlier = EarlierLives::new([end(two, 4), end(one, 3)]);
    assert_eq!(head, RoomHead { epoch: three, last: offset(4), earlier });
    let page = store.read(&kept, three, Offset::ZERO, 10, usize::MAX).await.unwrap();
    assert_eq!((page.messages.len(), page.first), (4, offset(1)));
    store.close().await;
}
