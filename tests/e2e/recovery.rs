//! Coming back: pages with live messages behind them, gaps that name what is gone, and history.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tests::server::Server;

use crate::client::{Client, PATH, data_of, offsets_of};

/// Publishes numbers without waiting for each answer, and sees all of them acknowledged.
fn publish_numbers(addr: SocketAddr, room: &str, numbers: impl Iterator<Item = u64>) {
    let mut publisher = Client::open_at(addr, PATH);
    let ids = numbers
        .map(|n| publisher.ask(json!({"type": "publish", "room": room, "data": n, "echo": false})));
    let ids = ids.collect::<Vec<_>>();
    for id in ids {
        assert_eq!(publisher.answer(id)["type"], "ack");
    }
}

/// What follows `subscribed` and its pages, up to the message with this number.
fn read_on(client: &mut Client, subscribed: &Value, last: u64) -> (Vec<Value>, u64) {
    let mut messages = subscribed["messages"].as_array().unwrap().clone();
    let (mut more, mut pages) = (subscribed["more"] == true, 0);
    while messages.last().is_none_or(|message| message["data"] != last) {
        let value = client.next();
        match value["type"].as_str() {
            Some("page") => {
                assert!(more, "a page that nobody announced");
                messages.extend(value["messages"].as_array().unwrap().iter().cloned());
                assert_eq!(value["offset"], messages.last().unwrap()["offset"]);
                more = value["more"] == true;
                pages += 1;
            }
            Some("message") => {
                assert!(!more, "live before the last page: {value}");
                messages.push(value);
            }
            _ => panic!("{value}"),
        }
    }
    (messages, pages)
}

#[test]
fn a_thousand_missed_messages_come_in_pages_and_live_ones_behind_them_without_hole_or_twin() {
    let server = Server::start(&["--set", "namespaces.public.history_messages_max=5000"]);
    let room = "public:long";
    // A room in memory without members and messages may be forgotten, and its epoch with it.
    let mut member = Client::open(&server);
    let epoch = member.subscribe(room)["epoch"].clone();
    publish_numbers(server.addr(), room, 1..=1_000);
    let mut readers = (0..4).map(|_| Client::open(&server)).collect::<Vec<_>>();
    std::thread::scope(|scope| {
        let addr = server.addr();
        let busy = scope.spawn(move || publish_numbers(addr, room, 1_001..=2_000));
        for (n, reader) in readers.iter_mut().enumerate() {
            let epoch = &epoch;
            scope.spawn(move || {
                let from = n as u64 * 300;
                let subscribed = reader.subscribe_since(room, epoch, from);
                assert_eq!(subscribed["recovered"], true);
                let (messages, pages) = read_on(reader, &subscribed, 2_000);
                assert!(pages > 0 || from >= 900, "all in one page");
                let expected = (from + 1..=2_000).collect::<Vec<_>>();
                assert_eq!(offsets_of(&messages), expected);
                assert_eq!(data_of(&messages), expected);
            });
        }
        busy.join().unwrap();
    });
}

#[test]
fn a_missed_part_that_the_log_no_longer_keeps_is_a_gap_that_names_it() {
    let server = Server::start(&["--set", "namespaces.public.history_messages_max=10"]);
    let room = "public:short";
    // A room in memory without members and messages may be forgotten, and its epoch with it.
    let mut member = Client::open(&server);
    let epoch = member.subscribe(room)["epoch"].clone();
    publish_numbers(server.addr(), room, 1..=30);
    let mut late = Client::open(&server);
    let subscribed = late.subscribe_since(room, &epoch, 5);
    assert_eq!(subscribed["recovered"], false);
    let messages = subscribed["messages"].as_array().unwrap();
    assert_eq!(offsets_of(messages), (21..=30).collect::<Vec<_>>());
    let gap = late.next();
    assert_eq!(gap["type"], "gap");
    assert_eq!((&gap["from"], &gap["to"]), (&json!(6), &json!(20)));
    assert_eq!((&gap["reason"], &gap["epoch"]), (&json!("retention"), &epoch));
    // From where the log begins nothing is missing.
    let subscribed = Client::open(&server).subscribe_since(room, &epoch, 20);
    assert_eq!(subscribed["recovered"], true);
    assert_eq!(subscribed["messages"].as_array().unwrap().len(), 10);
}

#[test]
fn a_position_ahead_of_the_log_or_of_another_log_is_a_gap_and_never_a_guess() {
    let server = Server::start(&[]);
    let room = "public:doubt";
    let epoch = Client::open(&server).publish(room, 1)["epoch"].clone();
    let mut ahead = Client::open(&server);
    let subscribed = ahead.subscribe_since(room, &epoch, 7);
    assert_eq!((&subscribed["recovered"], &subscribed["offset"]), (&json!(false), &json!(1)));
    assert_eq!(ahead.next()["reason"], "unknown_position");
    for foreign in ["0123456789abcdef", "of another kind of server"] {
        let mut client = Client::open(&server);
        let subscribed = client.subscribe_since(room, &json!(foreign), 1);
        assert_eq!(subscribed["recovered"], false);
        assert_eq!(subscribed["epoch"], epoch);
        assert_eq!(data_of(subscribed["messages"].as_array().unwrap()), [1]);
        assert_eq!(client.next()["reason"], "epoch_changed");
    }
}

#[test]
fn history_is_read_in_pages_of_the_length_that_was_asked_for() {
    let server = Server::start(&[]);
    let room = "public:past";
    publish_numbers(server.addr(), room, 1..=25);
    let mut reader = Client::open(&server);
    let first = reader.call_for("history", json!({"type": "history", "room": room, "limit": 10}));
    assert_eq!(data_of(first["messages"].as_array().unwrap()), (1..=10).collect::<Vec<_>>());
    assert_eq!((&first["more"], &first["offset"]), (&json!(true), &json!(10)));
    assert_eq!(data_of(&reader.log(room, 10)), (1..=25).collect::<Vec<_>>());
    let since = json!({"epoch": first["epoch"], "offset": 20});
    let last = reader.call_for("history", json!({"type": "history", "room": room, "since": since}));
    assert_eq!(offsets_of(last["messages"].as_array().unwrap()), (21..=25).collect::<Vec<_>>());
    assert_eq!(last["more"], false);
    let foreign = json!({"epoch": "0123456789abcdef", "offset": 1});
    let refused = reader.call(json!({"type": "history", "room": room, "since": foreign}));
    assert_eq!((&refused["code"], &refused["field"]), (&json!(110), &json!("since")));
}

#[test]
fn history_of_a_room_where_nothing_was_said_is_empty() {
    let server = Server::start(&[]);
    let mut reader = Client::open(&server);
    assert_eq!(reader.log("public:silent", 10), Vec::<Value>::new());
}

#[test]
fn a_durable_log_longer_than_memory_holds_is_read_to_its_beginning() {
    let durable = [
        "--set",
        "namespaces.public.durable=true",
        "--set",
        "namespaces.public.history_messages_max=3000",
    ];
    let mut server = Server::start_durable(&durable);
    let room = "public:archive";
    publish_numbers(server.addr(), room, 1..=1_500);
    server.terminate();
    assert_eq!(server.wait().code, Some(0));
    server.restart();
    publish_numbers(server.addr(), room, 1_501..=1_600);
    let mut reader = Client::open(&server);
    assert_eq!(data_of(&reader.log(room, 1_000)), (1..=1_600).collect::<Vec<_>>());
    let epoch = reader.log(room, 1_000)[0]["epoch"].clone();
    let subscribed = reader.subscribe_since(room, &epoch, 100);
    assert_eq!(subscribed["recovered"], true);
    let (messages, _) = read_on(&mut reader, &subscribed, 1_600);
    assert_eq!(offsets_of(&messages), (101..=1_600).collect::<Vec<_>>());
}

#[test]
fn a_client_that_reads_too_slowly_is_closed_comes_back_and_has_lost_nothing() {
    let server = Server::start(&["--set", "namespaces.public.history_bytes_max=100000000"]);
    let room = "public:fast";
    let (mut slow, mut fast) = (Client::open(&server), Client::open(&server));
    let epoch = slow.subscribe(room)["epoch"].clone();
    fast.subscribe(room);
    let mut publisher = Client::open(&server);
    let data = "x".repeat(60_000);
    // Far more than the buffers of a socket and the queue behind it take.
    for n in 1..=400 {
        publisher.publish(room, data.clone());
        // The others are not held up.
        assert_eq!(fast.next()["offset"], n);
    }
    let (values, code) = slow.until_closed();
    assert_eq!(code, 3001);
    let (told, values) = values.split_last().unwrap();
    assert_eq!((&told["type"], &told["reconnect"]), (&json!("disconnect"), &json!(true)));
    let had = values.len() as u64;
    assert_eq!(offsets_of(values), (1..=had).collect::<Vec<_>>());
    assert!(had < 400);
    let mut back = Client::open(&server);
    let subscribed = back.subscribe_since(room, &epoch, had);
    assert_eq!(subscribed["recovered"], true);
    let mut offsets = offsets_of(subscribed["messages"].as_array().unwrap());
    let mut more = subscribed["more"] == true;
    while more {
        let page = back.next();
        assert_eq!(page["type"], "page", "{:.300}", page.to_string());
        offsets.extend(offsets_of(page["messages"].as_array().unwrap()));
        more = page["more"] == true;
    }
    assert_eq!(offsets, (had + 1..=400).collect::<Vec<_>>());
}
