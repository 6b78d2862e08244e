//! Publishing: order, acknowledgements, de-duplication, classes, and how commands may be sent.

use serde_json::{Value, json};
use tests::frame::Frame;
use tests::raw::RawSocket;
use tests::server::Server;
use tests::token;

use crate::client::{Client, PATH, data_of, offsets_of, secret, until, values_of};

#[test]
fn an_ack_takes_the_place_of_a_message_that_its_publisher_does_not_want_back() {
    let server = Server::start(&[]);
    let (mut ann, mut bob) = (Client::open(&server), Client::open(&server));
    ann.subscribe("public:order");
    bob.subscribe("public:order");
    let commands = (1..=40).map(|n| {
        let echo = n % 2 == 0;
        json!({"type": "publish", "id": n, "room": "public:order", "data": n, "echo": echo})
    });
    let commands = commands.collect::<Vec<Value>>();
    for command in &commands {
        ann.send(command);
        bob.send(&json!({"type": "publish", "room": "public:order", "data": "bob"}));
    }
    // In Ann's own order an offset comes once: as the message, or as the ack in its place.
    let (mut expected, mut of_others, mut silent) = (1, 0, 0);
    while expected <= 80 {
        let value = ann.next();
        let in_place = match value["type"].as_str() {
            Some("message") => {
                assert!(value["data"] == "bob" || value["data"].as_u64().unwrap() % 2 == 0);
                of_others += u64::from(value["data"] == "bob");
                true
            }
            Some("ack") => value["id"].as_u64().unwrap() % 2 == 1,
            _ => panic!("{value}"),
        };
        if in_place {
            silent += u64::from(value["type"] == "ack");
            assert_eq!(value["offset"], expected, "{value}");
            expected += 1;
        }
    }
    assert_eq!((of_others, silent), (40, 20));
    assert_eq!(offsets_of(&bob.messages(80)), (1..=80).collect::<Vec<_>>());
}

#[test]
fn a_message_published_twice_under_one_msg_id_is_one_message() {
    let server = Server::start(&["--set", &secret()]);
    let mut watcher = Client::open(&server);
    watcher.subscribe("public:once");
    let publish = |who: &mut Client, data: &str| {
        let command =
            json!({"type": "publish", "room": "public:once", "data": data, "msg_id": "same"});
        who.call_for("ack", command)
    };
    let mut ann = Client::open_as(&server, "ann");
    let first = publish(&mut ann, "first");
    let again = publish(&mut ann, "again");
    // The same user over another connection is the same publisher.
    let other_tab = publish(&mut Client::open_as(&server, "ann"), "other tab");
    // Another user is not, whatever the id.
    let bob = publish(&mut Client::open_as(&server, "bob"), "bob");
    assert_eq!((&first["offset"], &first["duplicate"]), (&json!(1), &json!(false)));
    for repeated in [again, other_tab] {
        assert_eq!((&repeated["offset"], &repeated["duplicate"]), (&json!(1), &json!(true)));
        assert_eq!(repeated["epoch"], first["epoch"]);
    }
    assert_eq!((&bob["offset"], &bob["duplicate"]), (&json!(2), &json!(false)));
    assert_eq!(data_of(&watcher.messages(2)), ["first", "bob"]);
}

#[test]
fn without_a_user_a_msg_id_belongs_to_the_client_id() {
    let server = Server::start(&[]);
    let publish = |client: &str| {
        let mut client = Client::open_at(server.addr(), &format!("{PATH}?client_id={client}"));
        let command = json!({"type": "publish", "room": "public:tabs", "data": 1, "msg_id": "m"});
        client.call_for("ack", command)["duplicate"].clone()
    };
    assert_eq!([publish("one"), publish("one"), publish("two")], [false, true, false]);
}

#[test]
fn an_acknowledged_message_of_a_durable_room_says_durable_and_of_another_accepted() {
    let server = Server::start_durable(&["--set", "namespaces.public.durable=true"]);
    let ack = Client::open(&server).publish("public:kept", 1);
    assert_eq!(ack["level"], "durable");
    let server = Server::start(&[]);
    let ack = Client::open(&server).publish("public:kept", 1);
    assert_eq!(ack["level"], "accepted");
}

#[test]
fn a_message_past_its_time_to_live_leaves_a_tombstone_in_its_place() {
    for arguments in [&[][..], &["--set", "namespaces.public.durable=true"]] {
        let server = if arguments.is_empty() {
            Server::start(&[])
        } else {
            Server::start_durable(arguments)
        };
        let mut ann = Client::open(&server);
        let epoch = ann.subscribe("public:ttl")["epoch"].clone();
        ann.publish("public:ttl", "before");
        let short = json!({"type": "publish", "room": "public:ttl", "data": "x", "ttl_ms": 1});
        ann.call_for("ack", short);
        ann.publish("public:ttl", "behind");
        until("the message expires", || {
            (ann.log("public:ttl", 100)[1]["type"] == "tombstone").then_some(())
        });
        let mut late = Client::open(&server);
        let subscribed = late.subscribe_since("public:ttl", &epoch, 0);
        let messages = subscribed["messages"].as_array().unwrap();
        assert_eq!(subscribed["recovered"], true);
        assert_eq!(offsets_of(messages), [1, 2, 3]);
        assert_eq!(messages[1]["type"], "tombstone");
        assert_eq!(messages[1]["reason"], "expired");
        assert_eq!(messages[1].get("data"), None, "{}", messages[1]);
        assert_eq!(messages[2]["data"], "behind");
    }
}

#[test]
fn who_subscribes_gets_the_newest_of_each_key_and_it_takes_no_place_in_the_log() {
    let server = Server::start(&[]);
    let mut ann = Client::open(&server);
    ann.publish("public:scores", "kick-off");
    let mut latest = |key: &str, data: u64| {
        let command = json!({
            "type": "publish", "room": "public:scores", "data": data, "class": "latest", "key": key,
        });
        ann.call_for("ack", command)
    };
    for data in 1..=3 {
        assert_eq!(latest("home", data)["offset"], Value::Null);
    }
    latest("away", 9);
    let mut bob = Client::open(&server);
    let subscribed = bob.subscribe("public:scores");
    assert_eq!(subscribed["offset"], 1);
    let mut snapshot = subscribed["messages"].as_array().unwrap().clone();
    snapshot.sort_by_key(|message| message["key"].to_string());
    assert_eq!(data_of(&snapshot), [9, 3]);
    for message in &snapshot {
        assert_eq!((&message["class"], &message["offset"]), (&json!("latest"), &Value::Null));
    }
    latest("home", 4);
    let live = bob.next();
    assert_eq!((&live["key"], &live["data"]), (&json!("home"), &json!(4)));
    assert_eq!(data_of(&bob.log("public:scores", 100)), ["kick-off"]);
}

#[test]
fn a_droppable_message_reaches_who_is_there_and_nobody_later() {
    let server = Server::start(&[]);
    let (mut ann, mut bob) = (Client::open(&server), Client::open(&server));
    let epoch = bob.subscribe("public:typing")["epoch"].clone();
    let typing =
        json!({"type": "publish", "room": "public:typing", "data": "…", "class": "droppable"});
    let ack = ann.call_for("ack", typing);
    assert_eq!((&ack["offset"], &ack["level"]), (&Value::Null, &json!("accepted")));
    ann.publish("public:typing", "hello");
    let messages = bob.messages(2);
    assert_eq!(data_of(&messages), ["…", "hello"]);
    assert_eq!((&messages[0]["offset"], &messages[1]["offset"]), (&Value::Null, &json!(1)));
    let later = Client::open(&server).subscribe_since("public:typing", &epoch, 0);
    assert_eq!(data_of(later["messages"].as_array().unwrap()), ["hello"]);
}

#[test]
fn several_commands_in_one_text_are_answered_each_in_order() {
    let server = Server::start(&[]);
    let mut ann = Client::open(&server);
    let text = r#"{"type":"ping","id":1}{"type":"subscribe","id":2,"room":"public:many"}
        {"type":"publish","id":3,"room":"public:many","data":"a","echo":false}

        {"type":"status","id":4}{"type":"nonsense","id":5}{"type":"ping","id":6}"#;
    ann.socket.send_text(text);
    let answers = (1..=6).map(|id| ann.answer(id)["type"].clone()).collect::<Vec<_>>();
    assert_eq!(answers, ["pong", "subscribed", "ack", "status", "error", "pong"]);
}

#[test]
fn commands_may_be_sent_before_the_upgrade_is_answered() {
    let server = Server::start(&["--set", &secret(), "--set", "auth.allow_anonymous=false"]);
    let addr = server.addr();
    let token = token::hs256(token::SECRET, &token::claims("ann", "chat:*"));
    let mut socket = RawSocket::connect(addr);
    let head = format!(
        "GET {PATH} HTTP/1.1\r\nHost: {addr}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let frames = [
        json!({"type": "connect", "id": 1, "token": token}),
        json!({"type": "subscribe", "id": 2, "room": "public:eager"}),
        json!({"type": "publish", "id": 3, "room": "public:eager", "data": "eager"}),
    ];
    let frames = frames.iter().flat_map(|frame| Frame::text(&frame.to_string()).bytes());
    socket.send(&head.into_bytes().into_iter().chain(frames).collect::<Vec<_>>());
    assert!(socket.read_head().starts_with("HTTP/1.1 101"));
    let hello = socket.expect_json("hello");
    assert_eq!((&hello["id"], &hello["user_id"]), (&json!(1), &json!("ann")));
    assert_eq!(socket.expect_json("subscribed")["id"], 2);
    assert_eq!(socket.expect_json("message")["data"], "eager");
}

#[test]
fn published_data_is_passed_on_as_it_is_except_for_line_breaks_outside_of_strings() {
    let server = Server::start(&[]);
    let (mut ann, mut bob) = (Client::open(&server), Client::open(&server));
    bob.subscribe("public:bytes");
    let data = "{ \"b\" : 1.0e2,\n\t\"a\":\"\\u0041\\n\", \"a\":-0 ,\r\n \"ü\":\"\u{2028}\"}";
    let command = format!(r#"{{"type":"publish","room":"public:bytes","data":{data}}}"#);
    ann.socket.send_text(&command);
    let (_, text) = bob.socket.read_frame();
    let expected = data.replace(['\n', '\r'], "");
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains(&format!("\"data\":{expected},")), "{text}");
    assert_eq!(values_of(text.as_bytes()).len(), 1);
}

#[test]
fn ping_and_status_answer_and_unsubscribe_ends_delivery() {
    let server = Server::start(&["--set", &secret()]);
    let mut ann = Client::open_as(&server, "ann");
    ann.subscribe("public:a");
    ann.subscribe("public:b");
    assert_eq!(ann.call(json!({"type": "ping"}))["type"], "pong");
    let status = ann.call_for("status", json!({"type": "status"}));
    let mut rooms = status["rooms"].as_array().unwrap().clone();
    rooms.sort_by_key(ToString::to_string);
    // The last one without having asked: her own.
    assert_eq!(rooms, ["public:a", "public:b", "user:ann"]);
    assert_eq!(status["user_id"], "ann");
    assert_eq!(status["connection_id"], ann.hello["connection_id"]);
    assert_eq!(status["queue_bytes"], 0);
    ann.call_for("unsubscribed", json!({"type": "unsubscribe", "room": "public:a"}));
    Client::open(&server).publish("public:a", "not for ann");
    Client::open(&server).publish("public:b", "for ann");
    assert_eq!(ann.messages(1)[0]["data"], "for ann");
    let again = ann.call(json!({"type": "unsubscribe", "room": "public:a"}));
    assert_eq!((&again["type"], &again["error"]), (&json!("error"), &json!("not_subscribed")));
}
