//! Clients behind a slow link: what is on its way to them stays within their queue, and they are not
//! taken for gone while nothing of theirs is read.

use application::services::Rules;
use application::shard::Slot;
use domain::codes::CloseCode;
use serde_json::{Value, json};

use crate::host::{Host, Lines, open_rules, types};

const ROOM: &str = "public:a";

fn rules() -> Rules {
    let mut rules = open_rules();
    rules.limits.outbound_queue_bytes_max = Lines::QUEUE_BYTES_MAX;
    rules
}

/// A connection in some rooms; answers where it stands in each.
fn member(host: &mut Host, rooms: &[String]) -> (Slot, Vec<Value>) {
    let slot = host.connect(None);
    let stands = rooms.iter().map(|room| {
        host.say(slot, &json!({"type": "subscribe", "id": 1, "room": room}).to_string());
        let subscribed = host.frames(slot).pop().unwrap();
        json!({"epoch": subscribed["epoch"], "offset": subscribed["offset"]})
    });
    let stands = stands.collect();
    (slot, stands)
}

fn publish(host: &mut Host, slot: Slot, more: &Value) {
    let mut publish = json!({"type": "publish", "id": 9, "room": ROOM, "data": 1});
    let fields = more.as_object().unwrap().clone();
    publish.as_object_mut().unwrap().extend(fields);
    host.say(slot, &publish.to_string());
}

/// The link takes everything that waits, so many times; answers all that came.
fn drain(host: &mut Host, slot: Slot, times: usize, pause_ms: u64) -> Vec<Value> {
    let mut frames = Vec::new();
    for n in 0..times {
        host.pass(pause_ms);
        let line = host.line(slot);
        assert_eq!(line.closed, None, "after {n} times: {:?}", line.frames.last());
        frames.extend(line.frames);
        host.slow_down(slot, false);
        host.slow_down(slot, true);
    }
    frames
}

/// What was told of a room, in its order: the `data` of all messages.
fn told(frames: &[Value], room: &str) -> Vec<Value> {
    let of_room = frames.iter().filter(|frame| frame["room"] == room);
    let messages = of_room.filter_map(|frame| frame["messages"].as_array());
    messages.flatten().map(|message| message["data"][0].clone()).collect()
}

#[test]
fn who_comes_back_to_many_rooms_over_a_slow_link_gets_all_it_missed_and_is_not_closed_for_it() {
    let mut host = Host::new(rules());
    let rooms: Vec<String> = (0..10).map(|n| format!("public:{n}")).collect();
    let (publisher, stands) = member(&mut host, &rooms);
    for room in &rooms {
        for n in 0..5 {
            let data = json!([n, "x".repeat(5 << 10)]);
            publish(&mut host, publisher, &json!({"room": room, "data": data}));
        }
    }
    let slot = host.connect(None);
    host.slow_down(slot, true);
    for (room, since) in rooms.iter().zip(&stands) {
        let subscribe = json!({"type": "subscribe", "id": 1, "room": room, "since": since});
        host.say(slot, &subscribe.to_string());
    }
    let frames = drain(&mut host, slot, 100, 25);
    for room in &rooms {
        assert_eq!(told(&frames, room), [0, 1, 2, 3, 4], "{room}");
    }
    let subscribed: Vec<_> = frames.iter().filter(|frame| frame["type"] == "subscribed").collect();
    assert_eq!(subscribed.len(), 10);
    for answer in subscribed {
        assert_eq!(answer["recovered"], true);
        let has_pages = frames.iter().any(|f| f["type"] == "page" && f["room"] == answer["room"]);
        assert_eq!(answer["more"], has_pages, "{}", answer["room"]);
    }
}

#[test]
fn what_was_missed_comes_in_pages_that_the_clients_queue_can_hold() {
    let mut host = Host::new(rules());
    let (publisher, stands) = member(&mut host, &[ROOM.to_owned()]);
    for n in 0..40 {
        publish(&mut host, publisher, &json!({"data": [n, "x".repeat(5 << 10)]}));
    }
    let slot = host.connect(None);
    host.slow_down(slot, true);
    let subscribe = json!({"type": "subscribe", "id": 1, "room": ROOM, "since": stands[0]});
    host.say(slot, &subscribe.to_string());
    let frames = drain(&mut host, slot, 40, 25);
    assert_eq!(told(&frames, ROOM), (0..40).collect::<Vec<_>>());
}

#[test]
fn values_that_do_not_fit_into_what_may_wait_come_in_pages() {
    let mut host = Host::new(rules());
    let (publisher, _) = member(&mut host, &[ROOM.to_owned()]);
    for n in 0..20 {
        let value = json!([n, "x".repeat(5 << 10)]);
        let key = format!("k{n}");
        publish(&mut host, publisher, &json!({"class": "latest", "key": key, "data": value}));
    }
    let slot = host.connect(None);
    host.slow_down(slot, true);
    host.say(slot, &json!({"type": "subscribe", "id": 1, "room": ROOM}).to_string());
    let frames = drain(&mut host, slot, 20, 25);
    assert_eq!(told(&frames, ROOM), (0..20).collect::<Vec<_>>());
    let more = frames.iter().filter(|frame| frame["more"] == true).count();
    assert_eq!(types(&frames)[..2], ["hello", "subscribed"]);
    assert_eq!((frames.len() - 2, frames[frames.len() - 1]["more"].clone()), (more, json!(false)));
}

#[test]
fn a_value_that_expires_while_it_waits_for_its_page_is_not_told() {
    let mut host = Host::new(rules());
    let (publisher, _) = member(&mut host, &[ROOM.to_owned()]);
    for (n, ttl_ms) in [1_000, 60_000, 1_000].into_iter().enumerate() {
        let value = json!([n, "x".repeat(20 << 10)]);
        let fields = json!({"class": "latest", "key": format!("k{n}"), "data": value});
        let ttl = json!({"ttl_ms": ttl_ms});
        let both = [fields, ttl].iter().flat_map(|v| v.as_object().unwrap().clone()).collect();
        publish(&mut host, publisher, &Value::Object(both));
    }
    let slot = host.connect(None);
    host.slow_down(slot, true);
    host.say(slot, &json!({"type": "subscribe", "id": 1, "room": ROOM}).to_string());
    let frames = drain(&mut host, slot, 10, 2_000);
    assert_eq!(told(&frames, ROOM), [1]);
}

/// A client that missed so many messages, each a page, and says more than is read of it before it
/// has them.
fn pushy(n_missed: usize) -> (Host, Slot) {
    let mut rules = rules();
    (rules.limits.page_messages_max, rules.limits.inbox_messages_max) = (1, 4);
    let mut host = Host::new(rules);
    let (publisher, stands) = member(&mut host, &[ROOM.to_owned()]);
    for n in 0..n_missed {
        publish(&mut host, publisher, &json!({"data": [n]}));
    }
    let slot = host.connect(None);
    host.slow_down(slot, true);
    let subscribe = json!({"type": "subscribe", "id": 1, "room": ROOM, "since": stands[0]});
    host.say(slot, &subscribe.to_string());
    for id in 2..=6 {
        host.say(slot, &json!({"type": "ping", "id": id}).to_string());
    }
    let line = host.line(slot);
    assert!(!line.reading, "{:?}", line.frames);
    (host, slot)
}

#[test]
fn a_client_of_which_nothing_is_read_is_there_as_long_as_it_takes_what_it_is_sent() {
    let (mut host, slot) = pushy(20);
    let frames = drain(&mut host, slot, 24, 9_000);
    assert_eq!(told(&frames, ROOM), (1..20).collect::<Vec<_>>(), "the first came before");
    assert_eq!(frames.iter().filter(|frame| frame["type"] == "pong").count(), 5);
    assert!(host.line(slot).reading);
    // From then on it is missed as everybody is.
    host.slow_down(slot, false);
    host.pass(80_000);
    assert_eq!(host.line(slot).closed, Some(CloseCode::NoPong));
}

#[test]
fn a_client_of_which_nothing_is_read_and_that_takes_nothing_is_missed() {
    let (mut host, slot) = pushy(20);
    host.pass(49_000);
    assert_eq!(host.line(slot).closed, None);
    host.pass(2_000);
    assert_eq!(host.line(slot).closed, Some(CloseCode::NoPong));
}

#[test]
fn nobody_is_missed_while_its_own_commands_keep_the_server_from_reading_it() {
    let mut rules = rules();
    rules.limits.inbox_messages_max = 4;
    let mut host = Host::new(rules);
    let (slot, _) = member(&mut host, &[ROOM.to_owned()]);
    host.hold_calls = true;
    for n in 1..=5 {
        let publish = json!({"type": "publish", "id": n, "room": ROOM, "data": 1});
        host.say_only(slot, &publish.to_string());
    }
    assert!(!host.line(slot).reading);
    host.pass(200_000);
    assert_eq!(host.line(slot).closed, None);
    host.release_calls();
    host.settle();
    let line = host.line(slot);
    assert_eq!((line.reading, line.closed), (true, None));
    assert_eq!(line.frames.iter().filter(|frame| frame["type"] == "ack").count(), 5);
    host.pass(80_000);
    assert_eq!(host.line(slot).closed, Some(CloseCode::NoPong));
}

/// A client that takes a little at a time and comes back with its position.
struct Behind {
    rest: Vec<u8>,
    since: Value,
    /// The `data` of all messages, in the order in which it was told.
    told: Vec<Value>,
}

impl Behind {
    fn come(&mut self, host: &mut Host) -> Slot {
        self.rest.clear();
        let slot = host.connect(None);
        host.slow_down(slot, true);
        let subscribe = json!({"type": "subscribe", "id": 1, "room": ROOM, "since": self.since});
        host.say(slot, &subscribe.to_string());
        slot
    }

    /// Takes so many bytes; answers the code when it was closed.
    fn take(&mut self, host: &mut Host, slot: Slot, bytes: usize) -> Option<CloseCode> {
        host.pass(25);
        let (taken, code) = host.trickle(slot, bytes);
        self.rest.extend(taken);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<_> = self.rest.drain(..=end).collect();
            let frame: Value = serde_json::from_slice(&line).unwrap();
            assert!(frame["type"] != "gap" && frame["recovered"] != false, "{frame}");
            let single = Some(&frame).filter(|frame| frame["type"] == "message");
            for message in frame["messages"].as_array().into_iter().flatten().chain(single) {
                self.told.push(message["data"][0].clone());
                self.since["offset"] = message["offset"].clone();
            }
        }
        code
    }
}

/// S05: the room says more than the link takes, for as long as the overload lasts.
#[test]
fn who_comes_back_into_the_overload_gets_on_as_fast_as_its_link_and_at_last_has_everything() {
    const LINK: usize = 8 << 10;
    const MESSAGE: usize = 5 << 10;
    let mut host = Host::new(rules());
    let (publisher, stands) = member(&mut host, &[ROOM.to_owned()]);
    let mut client = Behind { rest: Vec::new(), since: stands[0].clone(), told: Vec::new() };
    let (mut n_said, mut ends) = (0, Vec::new());
    for _ in 0..4 {
        let slot = client.come(&mut host);
        let (before, mut taken, mut end) = (client.told.len(), 0, None);
        while taken < 50 * LINK && end.is_none() {
            for _ in 0..2 {
                let data = json!([n_said, "x".repeat(MESSAGE)]);
                publish(&mut host, publisher, &json!({"data": data}));
                n_said += 1;
            }
            end = client.take(&mut host, slot, LINK);
            taken += LINK;
        }
        let got = (client.told.len() - before) * MESSAGE;
        assert!(
            got >= taken / 2,
            "{got} bytes of messages over a link that takes {taken}: {ends:?}"
        );
        if end.is_none() {
            host.drop_line(slot);
        }
        ends.push(end);
    }
    assert_eq!(ends[0], Some(CloseCode::SlowConsumer), "there was no overload: {ends:?}");
    let missed = n_said - client.told.len();
    assert!(missed > 50, "it was never behind: {missed}");
    let slot = client.come(&mut host);
    for _ in 0..missed {
        assert_eq!(client.take(&mut host, slot, LINK), None);
    }
    assert_eq!(client.told, (0..n_said).collect::<Vec<_>>());
}

/// S06.
#[test]
fn who_publishes_faster_than_the_broker_takes_it_is_not_read_and_the_room_goes_on() {
    let mut rules = rules();
    rules.limits.inbox_messages_max = 4;
    let mut host = Host::new(rules);
    let [flooder, other, listener] = [(); 3].map(|()| host.member(ROOM));
    let say = |id: u64| json!({"type": "publish", "id": id, "room": ROOM, "data": id}).to_string();
    host.hold_calls = true;
    for id in 1..=5 {
        host.say_only(flooder, &say(id));
    }
    assert_eq!((host.line(flooder).reading, host.n_held()), (false, 1));
    for id in 10..20 {
        host.say_only(other, &say(id));
        // The broker is still busy with the first of the flood.
        host.release_one(1);
        host.settle();
        for slot in [other, listener] {
            let line = host.line(slot);
            let heard = line.frames.iter().find(|frame| frame["type"] == "message");
            assert_eq!((line.reading, &heard.unwrap()["data"]), (true, &json!(id)));
        }
        let line = host.line(flooder);
        assert_eq!((line.reading, types(&line.frames)), (false, vec!["message"]));
    }
    host.release_calls();
    host.settle();
    let line = host.line(flooder);
    let acks: Vec<_> = line.frames.iter().filter(|frame| frame["type"] == "ack").collect();
    assert_eq!(acks.iter().map(|ack| ack["id"].clone()).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert!(line.reading);
    let heard: Vec<_> = host.frames(listener).iter().map(|frame| frame["data"].clone()).collect();
    assert_eq!(heard, [1, 2, 3, 4, 5]);
}
