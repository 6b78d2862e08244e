//! Numbers and lengths around the boundaries of 16, 31, 32, 53, 63 and 64 bits: none reaches a
//! part that would cut it, and none is taken for a smaller one.

use serde_json::{Value, json};
use tests::raw::RawSocket;
use tests::server::Server;

use crate::arena::{CONNECT, assert_works, new_room, subscribe};

const LENGTHS: [usize; 5] = [65_534, 65_535, 65_536, 65_537, 131_072];

/// What is written with more digits than 64 bits have, too.
const NUMBERS: [&str; 15] = [
    "65535",
    "65536",
    "65537",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "4294967297",
    "9007199254740992",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "18446744073709551617",
    "340282366920938463463374607431768211456",
];

fn answer(socket: &mut RawSocket, text: &str) -> Value {
    socket.send_text(text);
    let answer = socket.next_json();
    assert_works(socket);
    answer
}

/// The archive is behind these rooms, so whatever is let through goes as far as a database.
fn durable(server: &Server) -> (RawSocket, String) {
    let room = new_room();
    let mut socket = RawSocket::open(server.addr(), CONNECT);
    socket.expect_json("hello");
    (socket, room)
}

const DURABLE: &[&str] = &["--set", "namespaces.public.durable=true"];

/// J21.
#[test]
fn a_length_around_16_bits_is_refused_by_its_field_before_it_gets_anywhere() {
    let server = Server::start_durable(DURABLE);
    let (mut socket, room) = durable(&server);
    for length in LENGTHS {
        let long = "m".repeat(length);
        let publish = |more: Value| {
            let mut command = json!({"type": "publish", "id": 1, "room": room, "data": 1});
            for (name, value) in more.as_object().unwrap() {
                command[name] = value.clone();
            }
            command
        };
        let tag = json!({ long.clone(): "v" });
        for (field, command) in [
            ("msg_id", publish(json!({ "msg_id": long }))),
            ("key", publish(json!({"class": "latest", "key": long}))),
            ("room", publish(json!({"room": format!("public:{long}")}))),
            ("tags", publish(json!({ "tags": tag }))),
            ("tags", publish(json!({"tags": {"k": long}}))),
            ("room", json!({"type": "subscribe", "id": 1, "room": format!("public:{long}")})),
            ("data", json!({"type": "presence_update", "id": 1, "room": room, "data": long})),
        ] {
            let error = answer(&mut socket, &command.to_string());
            let found = (&error["type"], &error["code"], &error["field"], &error["id"]);
            let expected = (&json!("error"), &json!(109), &json!(field), &json!(1));
            assert_eq!(found, expected, "{field} of {length} bytes");
        }
        // Data may be that long here, and comes back as it was.
        subscribe(&mut socket, &room);
        socket.send_json(&publish(json!({"data": long})));
        let message = socket.expect_json("message");
        assert_eq!(message["data"].as_str().map(str::len), Some(length));
        assert_eq!(socket.expect_json("ack")["level"], "durable");
        socket.send_json(&json!({"type": "unsubscribe", "id": 1, "room": room}));
        socket.expect_json("unsubscribed");
    }
}

/// J21.
#[test]
fn a_number_around_16_32_or_64_bits_is_never_taken_for_another_one() {
    let server = Server::start_durable(DURABLE);
    let (mut socket, room) = durable(&server);
    let mut epoch = Value::Null;
    for n in 1..=3 {
        let publish = json!({"type": "publish", "id": n, "room": room, "data": n});
        socket.send_json(&publish);
        let ack = socket.expect_json("ack");
        assert_eq!(ack["offset"], n);
        epoch = ack["epoch"].clone();
    }
    for number in NUMBERS {
        let since = format!("{{\"epoch\":{epoch},\"offset\":{number}}}");
        let history =
            format!("{{\"type\":\"history\",\"id\":1,\"room\":\"{room}\",\"since\":{since}}}");
        let error = answer(&mut socket, &history);
        // Ahead of the log, or no offset at all.
        let known = [json!(110), json!(102)].contains(&error["code"]);
        assert!(error["type"] == "error" && known, "offset {number}: {error}");
        let limit =
            format!("{{\"type\":\"history\",\"id\":1,\"room\":\"{room}\",\"limit\":{number}}}");
        let error = answer(&mut socket, &limit);
        let found = (&error["type"], &error["code"], &error["field"]);
        assert_eq!(found, (&json!("error"), &json!(102), &json!("limit")), "{number}: {error}");
        let ttl = format!(
            "{{\"type\":\"publish\",\"id\":1,\"room\":\"public:other\",\"data\":1,\"ttl_ms\":{number}}}"
        );
        let told = answer(&mut socket, &ttl);
        let lawful = number.parse().is_ok_and(|ttl: u64| ttl <= 86_400_000);
        assert_eq!(told["type"] == "ack", lawful, "ttl_ms {number}: {told}");
        assert!(lawful || told["field"] == "ttl_ms", "{number}: {told}");
    }
    // And the log is what it was.
    let history = format!("{{\"type\":\"history\",\"id\":1,\"room\":\"{room}\"}}");
    let page = answer(&mut socket, &history);
    let data: Vec<_> = page["messages"].as_array().unwrap().iter().map(|m| &m["data"]).collect();
    assert_eq!(data, [1, 2, 3]);
}
