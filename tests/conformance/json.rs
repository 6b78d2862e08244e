//! Texts that are no command, or almost one. Each is answered by what is wrong with it, changes
//! nothing, and leaves a connection that works.

use serde_json::{Value, json};
use tests::frame::{Frame, TEXT};
use tests::raw::RawSocket;
use tests::server::Server;

use crate::arena::{Arena, CONNECT, assert_closes, assert_works, new_room, subscribe};

/// The error in answer to this text, behind which the connection still works.
#[track_caller]
fn error_of(socket: &mut RawSocket, text: &str) -> Value {
    socket.send_text(text);
    let answer = socket.next_json();
    let shown = &text[..text.floor_char_boundary(100)];
    assert_eq!(answer["type"], "error", "{shown}: {answer}");
    assert!(answer["message"].as_str().is_some_and(|words| !words.is_empty()), "{answer}");
    assert_works(socket);
    answer
}

/// The number, the field and the id of the error.
#[track_caller]
fn assert_error(socket: &mut RawSocket, text: &str, code: u16, field: &str, id: Option<u64>) {
    let error = error_of(socket, text);
    let shown = &text[..text.floor_char_boundary(100)];
    assert_eq!(error["code"], code, "{shown}: {error}");
    assert_eq!(error["field"].as_str().unwrap_or_default(), field, "{shown}: {error}");
    assert_eq!(error["id"], json!(id), "{shown}: {error}");
}

/// What JSON is not, and what a command is not. Each is a strike.
const UNPARSABLE: &[&str] = &[
    "",
    "  \n ",
    "hello",
    "null",
    "true",
    "1",
    "\"ping\"",
    "[]",
    "[{\"type\":\"ping\"}]",
    "{",
    "}",
    "{\"type\":\"ping\"",
    "{\"type\":\"ping\",}",
    "{'type':'ping'}",
    "{type:\"ping\"}",
    "\u{feff}{\"type\":\"ping\"}",
    "{\"type\":\"ping\",\"id\":NaN}",
    "{\"type\":\"ping\",\"id\":Infinity}",
    "{\"type\":\"ping\",\"id\":01}",
    "{\"type\":\"ping\",\"id\":+1}",
    "{\"type\":\"ping\",\"id\":0x1}",
    "{\"type\":\"ping\",\"id\":1.}",
    "{\"type\":\"pi\u{1}ng\"}",
    "{\"type\":\"pi\nng\"}",
    "{\"type\":\"\\x41\"}",
    "{\"type\":\"\\ud800\"}",
    "{\"type\":\"\\udc00\\ud800\"}",
    "{\"type\":\"ping\" \"id\":1}",
    "{\"type\":\"ping\"/**/}",
    "{}",
    "{\"id\":null}",
    "{\"type\":null}",
];

/// J01.
#[test]
fn what_is_not_json_is_a_bad_request() {
    let arena = Arena::shared(&[]);
    for texts in UNPARSABLE.chunks(20) {
        let mut socket = arena.greeted();
        for text in texts {
            let field = if text.contains("null}") || *text == "{}" { "type" } else { "" };
            assert_error(&mut socket, text, 100, field, None);
        }
    }
    // What stands in front of the bad part is carried out; numbers without end are numbers.
    let mut socket = arena.greeted();
    socket.send_text("{\"type\":\"ping\",\"id\":1}\n{\"type\":\"ping\",\"id\":2} trailing");
    assert_eq!(socket.expect_json("pong")["id"], 1);
    assert_eq!(socket.expect_json("pong")["id"], 2);
    assert_eq!(socket.next_json()["code"], 100);
    assert_error(&mut socket, "{\"type\":\"ping\",\"id\":1e400}", 102, "id", None);
    arena.finish();
}

/// J01.
#[test]
fn the_twenty_first_unparsable_frame_of_a_minute_closes() {
    let arena = Arena::shared(&[]);
    let mut socket = arena.greeted();
    for _ in 0..20 {
        assert_error(&mut socket, "nonsense", 100, "", None);
    }
    socket.send_text("nonsense");
    let disconnect = socket.expect_json("disconnect");
    assert_eq!((&disconnect["code"], &disconnect["reconnect"]), (&json!(3503), &json!(false)));
    assert_closes(&mut socket, 3503, "the strikes are used up");

    // All in one frame are as many.
    let mut socket = arena.greeted();
    socket.send_text(&"1 ".repeat(1_000));
    for _ in 0..20 {
        assert_eq!(socket.next_json()["code"], 100);
    }
    assert_closes(&mut socket, 3503, "a thousand numbers");
    arena.finish();
}

/// What a field may hold.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Room,
    Number,
    Flag,
    Since,
    Tags,
    Filter,
    Any,
    Resume,
}

impl Kind {
    fn wrong(self) -> Vec<Value> {
        let scalars = [json!(true), json!(1), json!("x"), json!(-1), json!(1.5)];
        let all = scalars.into_iter().chain([json!([]), json!({}), json!([{"toString": 1}])]);
        let fits = |value: &Value| match self {
            Self::Text => value.is_string(),
            Self::Number => *value == 1,
            Self::Flag => value.is_boolean(),
            Self::Tags => *value == json!({}),
            Self::Any => true,
            Self::Resume => *value == json!([]),
            Self::Room | Self::Since | Self::Filter => false,
        };
        all.filter(|value| !fits(value)).collect()
    }
}

/// A field: its name, what it may hold, and whether it must be there.
type Field = (&'static str, Kind, bool);

/// Every field of every command.
const COMMANDS: &[(&str, &[Field])] = &[
    (
        "connect",
        &[
            ("token", Kind::Text, false),
            ("session", Kind::Text, false),
            ("resume", Kind::Resume, false),
        ],
    ),
    (
        "subscribe",
        &[
            ("room", Kind::Room, true),
            ("since", Kind::Since, false),
            ("presence", Kind::Flag, false),
            ("filter", Kind::Filter, false),
            ("pattern", Kind::Text, false),
        ],
    ),
    ("unsubscribe", &[("room", Kind::Room, true), ("pattern", Kind::Text, false)]),
    (
        "publish",
        &[
            ("room", Kind::Room, true),
            ("data", Kind::Any, true),
            ("msg_id", Kind::Text, false),
            ("echo", Kind::Flag, false),
            ("class", Kind::Text, false),
            ("key", Kind::Text, false),
            ("ttl_ms", Kind::Number, false),
            ("tags", Kind::Tags, false),
        ],
    ),
    ("presence", &[("room", Kind::Room, true)]),
    ("presence_update", &[("room", Kind::Room, true), ("data", Kind::Any, true)]),
    (
        "history",
        &[
            ("room", Kind::Room, true),
            ("since", Kind::Since, false),
            ("limit", Kind::Number, false),
        ],
    ),
    ("refresh", &[("token", Kind::Text, true)]),
    ("ping", &[]),
    ("pong", &[]),
    ("status", &[]),
];

/// The command with its required fields and nothing else.
fn least(kind: &str, fields: &[Field], room: &str) -> Value {
    let mut command = json!({"type": kind, "id": 7});
    for (name, kind, required) in fields {
        if *required {
            command[*name] = match kind {
                Kind::Room => json!(room),
                _ => json!("x"),
            };
        }
    }
    command
}

/// Everything that can be wrong with one field of this command: what is sent, the number of the
/// error, and the field that it names.
fn wrong_commands(kind: &str, fields: &[Field], room: &str) -> Vec<(Value, u16, String)> {
    let least = least(kind, fields, room);
    let mut all = Vec::new();
    let mut with = |name: &str, value: Value, code: u16| {
        let mut command = least.clone();
        command[name] = value;
        all.push((command, code, name.to_owned()));
    };
    for name in ["surplus", "Type", "__proto__", "constructor", "toString", "_placeholder", ""] {
        with(name, json!(1), 102);
    }
    for value in Kind::Text.wrong() {
        with("timestamp", value, 102);
    }
    for (name, kind, required) in fields {
        kind.wrong().into_iter().for_each(|value| with(name, value, 102));
        if *required && !matches!(kind, Kind::Any) {
            with(name, Value::Null, 102);
        }
    }
    // A field of another command is a surplus one here.
    for foreign in ["room", "data", "token", "limit", "echo"] {
        if !fields.iter().any(|(name, ..)| *name == foreign) {
            with(foreign, json!("x"), 102);
        }
    }
    for (name, _, required) in fields {
        if *required {
            let mut command = least.clone();
            command.as_object_mut().unwrap().remove(*name);
            all.push((command, 102, (*name).to_owned()));
        }
    }
    all
}

/// J02. J05. J06. J07.
#[test]
fn each_wrong_field_of_each_command_is_named_and_changes_nothing() {
    let arena = Arena::shared(&[]);
    let mut n_wrong = 0;
    for (kind, fields) in COMMANDS {
        let (room, other) = (new_room(), new_room());
        let mut socket = arena.member(&room);
        for (command, code, field) in wrong_commands(kind, fields, &other) {
            assert_error(&mut socket, &command.to_string(), code, &field, Some(7));
            n_wrong += 1;
        }
        let mut wrong_ids = Kind::Number.wrong();
        wrong_ids.extend([json!(1_u64 << 53), json!(u64::MAX), json!("7")]);
        for id in wrong_ids {
            let mut command = least(kind, fields, &other);
            command["id"] = id;
            assert_error(&mut socket, &command.to_string(), 102, "id", None);
        }
        socket.send_json(&json!({"type": "status", "id": 8}));
        assert_eq!(socket.expect_json("status")["rooms"], json!([room]), "{kind} joined or left");
        for room in [&room, &other] {
            socket.send_json(&json!({"type": "history", "id": 9, "room": room}));
            assert_eq!(socket.expect_json("history")["messages"], json!([]), "{kind} published");
        }
        socket.send_json(&json!({"type": "presence", "id": 9, "room": other}));
        assert_eq!(socket.expect_json("presence")["total"], 0, "{kind} joined");
    }
    assert!(n_wrong > 300, "only {n_wrong} wrong commands were made");
    arena.finish();
}

/// J05.
#[test]
fn a_type_that_is_no_text_or_no_type_is_refused() {
    let arena = Arena::shared(&[]);
    let mut socket = arena.greeted();
    for kind in ["1", "true", "[]", "{}", "[{\"toString\":1}]", "{\"length\":1e9}", "-0", "null"] {
        let text = format!("{{\"type\":{kind},\"id\":3}}");
        assert_error(&mut socket, &text, 100, "type", Some(3));
    }
    for kind in ["", "Ping", "PING", "hello", "message", "error", "disconnect", "__proto__", "a b"]
    {
        let text = json!({"type": kind, "id": 3}).to_string();
        assert_error(&mut socket, &text, 101, "type", Some(3));
    }
    arena.finish();
}

/// J03.
#[test]
fn nesting_is_taken_to_64_and_refused_beyond_without_a_stack() {
    let arena = Arena::shared(&[]);
    let room = new_room();
    let mut socket = arena.member(&room);
    let publish = |data: &str| {
        format!("{{\"type\":\"publish\",\"id\":5,\"room\":\"{room}\",\"data\":{data}}}")
    };
    for depth in [1, 63, 64] {
        let data = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        socket.send_text(&publish(&data));
        assert_eq!(socket.expect_json("message")["data"].to_string(), data);
        assert_works_behind_ack(&mut socket);
    }
    for depth in [65, 127, 128, 10_000, 1_000_000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let inner = if open == "[" { "" } else { "1" };
            let data = format!("{}{inner}{}", open.repeat(depth), close.repeat(depth));
            assert_error(&mut socket, &publish(&data), 100, "", Some(5));
        }
        assert_error(&mut socket, &"[".repeat(depth), 100, "", None);
    }
    arena.finish();
}

/// An `ack` may come before the message or behind it.
#[track_caller]
fn assert_works_behind_ack(socket: &mut RawSocket) {
    socket.send_json(&json!({"type": "ping", "id": 1}));
    assert_eq!(socket.expect_json("pong")["id"], 1);
}

/// J04.
#[test]
fn a_key_may_come_once_in_a_command_and_as_it_likes_in_data() {
    let arena = Arena::shared(&[]);
    let room = new_room();
    let mut socket = arena.member(&room);
    for (text, id) in [
        ("{\"type\":\"ping\",\"type\":\"ping\",\"id\":1}", Some(1)),
        ("{\"type\":\"ping\",\"id\":1,\"id\":2}", None),
        ("{\"type\":\"ping\",\"id\":1,\"ty\\u0070e\":\"ping\"}", Some(1)),
        ("{\"type\":\"ping\",\"id\":1,\"x\":1,\"x\":1}", Some(1)),
        ("{\"type\":\"ping\",\"id\":1,\"__proto__\":{},\"__proto__\":{}}", Some(1)),
    ] {
        assert_error(&mut socket, text, 100, "", id);
    }
    let many = (0..10_000).map(|n| format!(",\"k{n}\":1")).collect::<String>();
    let text = format!("{{\"type\":\"ping\",\"id\":1{many}}}");
    assert_error(&mut socket, &text, 100, "", Some(1));
    let long = "k".repeat(64 << 10);
    let text = format!("{{\"type\":\"ping\",\"id\":1,\"{long}\":1}}");
    assert_error(&mut socket, &text, 102, &long[..64], Some(1));

    let data = format!("{{\"a\":1,\"a\":2,\"__proto__\":{{\"x\":1}},\"constructor\":[]{many}}}");
    socket.send_text(&format!("{{\"type\":\"publish\",\"room\":\"{room}\",\"data\":{data}}}"));
    assert!(next_text(&mut socket).contains(&format!("\"data\":{data}")), "not as published");
    arena.finish();
}

/// The next text frame as it is.
fn next_text(socket: &mut RawSocket) -> String {
    let frame = socket.read_received();
    assert_eq!(frame.opcode, TEXT);
    String::from_utf8(frame.payload).expect("the server writes UTF-8")
}

/// J08.
#[test]
fn a_room_has_one_lawful_name() {
    let arena = Arena::shared(&[]);
    let mut socket = arena.greeted();
    let long = format!("public:{}", "x".repeat(249));
    for (room, code) in [
        ("", 102),
        ("public", 102),
        ("public:", 102),
        (":x", 102),
        ("Public:x", 102),
        ("public:..", 102),
        ("public:../chat:global", 102),
        ("public:a..b", 102),
        ("public:*", 102),
        ("*", 102),
        ("public:?", 102),
        ("public:[a-z]", 102),
        ("public:{a}", 102),
        ("room:{a}", 102),
        ("public:a b", 102),
        ("public:a\nSET x 1", 102),
        ("public:a\r\n", 102),
        ("public:a\0", 102),
        ("public:a\u{202e}b", 102),
        ("public:caf\u{e9}", 102),
        ("public:cafe\u{301}", 102),
        ("public:\u{1f600}", 102),
        ("public:\u{200b}", 102),
        ("p\u{443}blic:x", 102),
        ("public:a%2fb", 102),
        ("public:' OR 1=1--", 102),
        ("public:<script>", 102),
        (" public:x", 102),
        ("nowhere:x", 104),
        (&long, 109),
    ] {
        for kind in ["subscribe", "unsubscribe", "presence", "history"] {
            if kind == "unsubscribe" && code == 104 {
                continue;
            }
            let text = json!({"type": kind, "id": 1, "room": room}).to_string();
            assert_error(&mut socket, &text, code, "room", Some(1));
        }
    }
    let half = "{\"type\":\"subscribe\",\"id\":1,\"room\":\"public:\\ud800\"}";
    assert_error(&mut socket, half, 100, "", None);
    // Escapes are another spelling of the same name.
    let room = new_room();
    subscribe(&mut socket, &room);
    let escaped = room.replace('p', "\\u0070");
    let again = format!("{{\"type\":\"subscribe\",\"id\":1,\"room\":\"{escaped}\"}}");
    assert_error(&mut socket, &again, 106, "room", Some(1));
    arena.finish();
}

/// J09.
#[test]
fn ids_are_numbers_and_message_ids_make_a_publish_once() {
    let arena = Arena::shared(&[]);
    let room = new_room();
    let mut socket = arena.member(&room);
    for id in [0_u64, 1, 1, (1 << 53) - 1] {
        socket.send_json(&json!({"type": "ping", "id": id}));
        assert_eq!(socket.expect_json("pong")["id"], id);
    }
    for id in ["9007199254740992", "18446744073709551616", "-1", "1.0", "1e3", "\"1\"", "[1]"] {
        let text = format!("{{\"type\":\"ping\",\"id\":{id}}}");
        assert_error(&mut socket, &text, 102, "id", None);
    }
    let publish = |id: u32, msg_id: &str| json!({"type": "publish", "id": id, "room": room, "data": id, "msg_id": msg_id});
    // Both are under way at one time, and again when they are long done.
    socket.send_json(&publish(1, "same"));
    socket.send_json(&publish(2, "same"));
    let first = socket.expect_json("ack");
    let second = socket.expect_json("ack");
    socket.send_json(&publish(3, "same"));
    let third = socket.expect_json("ack");
    assert_eq!(first["duplicate"], false);
    for again in [second, third] {
        assert_eq!(again["duplicate"], true);
        assert_eq!(again["offset"], first["offset"]);
    }
    for msg_id in ["", "a\nb", "caf\u{e9}", &"x".repeat(129)] {
        let text = publish(4, msg_id).to_string();
        let code = if msg_id.len() > 128 { 109 } else { 102 };
        assert_error(&mut socket, &text, code, "msg_id", Some(4));
    }
    socket.send_json(&json!({"type": "history", "id": 5, "room": room}));
    assert_eq!(socket.expect_json("history")["messages"].as_array().map(Vec::len), Some(1));
    arena.finish();
}

/// J10.
#[test]
fn every_limit_of_filters_and_patterns_is_exact() {
    let arena = Arena::shared(&[]);
    let mut socket = arena.greeted();
    let room = new_room();
    let nots = |levels: usize| {
        (1..levels).fold(json!({"eq": {"a": "1"}}), |inner, _| json!({"not": inner}))
    };
    let wide = |parts: usize| json!({"or": vec![json!({"eq": {"a": "1"}}); parts]});
    let values = |n: usize| json!({"in": {"a": vec!["v"; n]}});
    let long = |bytes: usize| json!({"eq": {"a": "v".repeat(bytes)}});
    let at = [nots(8), wide(31), values(64), long(64)];
    let over = [nots(9), wide(32), values(65), long(65)];
    for (n, (at, over)) in at.into_iter().zip(over).enumerate() {
        let room = format!("{room}/{n}");
        let with = |filter| json!({"type": "subscribe", "id": 1, "room": room, "filter": filter});
        assert_error(&mut socket, &with(over).to_string(), 109, "filter", Some(1));
        socket.send_json(&with(at));
        assert_eq!(socket.next_json()["type"], "subscribed");
    }
    for (length, code) in [(255, 103), (256, 109)] {
        let pattern = format!("public:{}*", "r".repeat(length - 8));
        let command = json!({"type": "subscribe", "id": 1, "pattern": pattern});
        assert_error(&mut socket, &command.to_string(), code, "pattern", Some(1));
    }
    arena.finish();
}

/// J10.
#[test]
fn every_limit_is_exact() {
    let arena = Arena::own(&["--set", "limits.message_bytes_max=8192"]);
    let room = new_room();
    let mut socket = arena.member(&room);
    let mut check = |command: Value, field: &str, code: u16| {
        if code == 0 {
            socket.send_json(&command);
            let answer = socket.next_json();
            assert_ne!(answer["type"], "error", "{field}: {answer}");
        } else {
            assert_error(&mut socket, &command.to_string(), code, field, Some(1));
        }
    };
    let history = |limit: i64| json!({"type": "history", "id": 1, "room": room, "limit": limit});
    for (limit, code) in [(0, 102), (-1, 102), (1, 0), (1_000, 0), (1_001, 102), (1 << 31, 102)] {
        check(history(limit), "limit", code);
    }
    for (length, code) in [(254, 0), (255, 0), (256, 109)] {
        let room = format!("public:{}", "r".repeat(length - 7));
        check(json!({"type": "history", "id": 1, "room": room}), "room", code);
    }
    for (length, code) in [(4_095, 0), (4_096, 0), (4_097, 109)] {
        let data = "d".repeat(length - 2);
        check(
            json!({"type": "presence_update", "id": 1, "room": room, "data": data}),
            "data",
            code,
        );
    }
    // Behind the socket's own room, so that an acknowledgement is all that comes.
    let publish = |name: &str, value: Value| {
        let mut command = json!({"type": "publish", "id": 1, "room": "public:x", "data": 1});
        command[name] = value;
        command
    };
    let tags = |n: usize, size: usize| {
        let names = (0..n).map(|at| (format!("{at:x>size$}"), json!("v".repeat(size))));
        Value::Object(names.collect())
    };
    for (value, code) in [(tags(8, 64), 0), (tags(9, 1), 109), (tags(1, 65), 109)] {
        check(publish("tags", value), "tags", code);
    }
    for (ttl, code) in [(0, 102), (1, 0), (86_400_000, 0), (86_400_001, 102)] {
        check(publish("ttl_ms", json!(ttl)), "ttl_ms", code);
    }
    for (length, code) in [(64, 0), (65, 109)] {
        let mut latest = publish("key", json!("k".repeat(length)));
        latest["class"] = json!("latest");
        check(latest, "key", code);
    }
    for (length, code) in [(128, 0), (129, 109)] {
        check(publish("msg_id", json!("m".repeat(length))), "msg_id", code);
    }
    for (length, code) in [(8_191, 0), (8_192, 0), (8_193, 1009)] {
        let head = "{\"type\":\"publish\",\"id\":1,\"room\":\"public:x\",\"data\":\"";
        let text = format!("{head}{}\"}}", "x".repeat(length - head.len() - 2));
        let mut socket = arena.greeted();
        socket.send(&Frame::text(&text).bytes());
        match code {
            0 => assert_eq!(socket.expect_json("ack")["id"], 1),
            code => assert_closes(&mut socket, code, "one byte more than a message"),
        }
    }
    arena.finish();
}

/// J11.
#[test]
fn many_commands_in_one_frame_are_carried_out_in_order_and_within_the_limits() {
    let arena = Arena::shared(&[]);
    let mut socket = arena.greeted();
    let rooms = (0..1_000).map(|_| new_room()).collect::<Vec<_>>();
    let joins = rooms
        .iter()
        .enumerate()
        .map(|(id, room)| json!({"type": "subscribe", "id": id, "room": room}).to_string() + "\n");
    socket.send_text(&joins.collect::<String>());
    for id in 0..1_000 {
        let answer = socket.next_json();
        assert_eq!(answer["id"], id, "{answer}");
        match id {
            0..128 => assert_eq!(answer["type"], "subscribed", "{answer}"),
            _ => assert_eq!(answer["code"], 107, "{answer}"),
        }
    }
    let mut socket = arena.greeted();
    let turns = ["subscribe", "unsubscribe", "subscribe", "unsubscribe", "subscribe"];
    let room = new_room();
    let text = turns.map(|kind| json!({"type": kind, "id": 1, "room": room}).to_string()).concat();
    socket.send_text(&text);
    for kind in turns {
        socket.expect_json(&format!("{kind}d"));
    }
    socket.send_json(&json!({"type": "presence", "id": 1, "room": room}));
    assert_eq!(socket.expect_json("presence")["total"], 1);
    arena.finish();
}

/// J12.
#[test]
fn what_does_not_fit_the_state_has_its_own_error() {
    let arena = Arena::shared(&[]);
    let room = new_room();
    let mut socket = arena.member(&room);
    let epoch = {
        socket.send_json(&json!({"type": "history", "id": 1, "room": room}));
        socket.expect_json("history")["epoch"].clone()
    };
    let elsewhere = new_room();
    let future = json!({"epoch": epoch, "offset": 99});
    let foreign = json!({"epoch": "another", "offset": 0});
    for (command, code, field) in [
        (json!({"type": "unsubscribe", "id": 1, "room": elsewhere}), 105, "room"),
        (json!({"type": "presence_update", "id": 1, "room": elsewhere, "data": 1}), 105, "room"),
        (json!({"type": "subscribe", "id": 1, "room": room}), 106, "room"),
        (json!({"type": "history", "id": 1, "room": room, "since": future}), 110, "since"),
        (json!({"type": "history", "id": 1, "room": room, "since": foreign}), 110, "since"),
        (json!({"type": "connect", "id": 1}), 112, ""),
        (json!({"type": "subscribe", "id": 1, "room": "chat:secret"}), 103, ""),
        (json!({"type": "publish", "id": 1, "room": "chat:secret", "data": 1}), 103, ""),
        (json!({"type": "history", "id": 1, "room": "chat:secret"}), 103, ""),
        (json!({"type": "presence", "id": 1, "room": "chat:secret"}), 103, ""),
        (json!({"type": "publish", "id": 1, "room": "nowhere:x", "data": 1}), 104, "room"),
    ] {
        let text = command.to_string();
        assert_error(&mut socket, &text, code, field, Some(1));
    }
    // A publish needs no membership; a position that can't be kept is a gap, not an error.
    socket.send_json(&json!({"type": "publish", "id": 2, "room": elsewhere, "data": 1}));
    assert_eq!(socket.expect_json("ack")["offset"], 1);
    let subscribe = json!({"type": "subscribe", "id": 3, "room": elsewhere, "since": foreign});
    socket.send_json(&subscribe);
    assert_eq!(socket.expect_json("gap")["reason"], "epoch_changed");
    assert_eq!(socket.expect_json("subscribed")["recovered"], false);
    arena.finish();
}

/// Data that somebody might take for something else.
const STRANGE: [&str; 15] = [
    "\"<script>alert(1)</script>\"",
    "\"'; DROP TABLE messages; --\"",
    "{\"$ne\":null,\"$where\":\"sleep(1000)\"}",
    "\"{{7*7}} ${7*7} <%= 7*7 %> %s%n %00\"",
    "\"\\u0000\\u001b]0;x\\u0007 \\\" \\\\ \\/\"",
    "\"\u{2028}\u{2029}\u{202e}\u{feff}\u{10ffff}\"",
    "\"caf\\u00e9\"",
    "1e400",
    "-0.0",
    "1.10",
    "12345678901234567890123456789",
    "{\"b\":1,\"a\":2,\"b\":3}",
    "[ 1 ,\t2 ]",
    "null",
    "{\"_placeholder\":true,\"num\":\"splice\"}",
];

/// J14.
#[test]
fn data_comes_back_as_it_was_published() {
    let arena = Arena::shared(&[]);
    let room = new_room();
    let mut socket = arena.member(&room);
    for data in STRANGE {
        let text = format!("{{\"type\":\"publish\",\"room\":\"{room}\",\"data\":{data}}}");
        socket.send_text(&text);
        let message = next_text(&mut socket);
        assert!(message.contains(&format!("\"data\":{data},")), "{data} came as {message}");
        socket.send_json(&json!({"type": "history", "id": 1, "room": room}));
        let history = next_text(&mut socket);
        assert!(history.contains(&format!("\"data\":{data},")), "{data} is kept as {history}");
    }
    arena.finish();
}

/// J14.
#[test]
fn data_is_stored_as_it_was_published() {
    let mut server = Server::start_durable(&["--set", "namespaces.public.durable=true"]);
    let room = new_room();
    let open = |server: &Server| {
        let mut socket = RawSocket::open(server.addr(), CONNECT);
        socket.expect_json("hello");
        socket
    };
    let mut socket = open(&server);
    for data in STRANGE {
        let publish =
            format!("{{\"type\":\"publish\",\"id\":1,\"room\":\"{room}\",\"data\":{data}}}");
        socket.send_text(&publish);
        assert_eq!(socket.expect_json("ack")["level"], "durable");
    }
    server.kill();
    server.restart();
    let mut socket = open(&server);
    socket.send_json(&json!({"type": "history", "id": 1, "room": room}));
    let mut rest = &next_text(&mut socket)[..];
    for data in STRANGE {
        let stored = format!("\"data\":{data},");
        let at = rest.find(&stored).unwrap_or_else(|| panic!("{data} is not in {rest}"));
        rest = &rest[at + stored.len()..];
    }
}

/// J20.
#[test]
fn nothing_that_a_client_sends_can_write_its_own_log_line() {
    let arena = Arena::own(&["--set", "log.filter=trace"]);
    let inject = "\u{1b}]0;owned\u{7}\n2026-01-01T00:00:00Z ERROR injected";
    let mut socket = arena.greeted();
    for text in [
        json!({"type": inject, "id": 1}).to_string(),
        json!({"type": "subscribe", "id": 1, "room": format!("public:{inject}")}).to_string(),
        json!({"type": "ping", "id": 1, inject: 1}).to_string(),
        json!({"type": "publish", "id": 1, "room": "public:x", "data": 1, "key": inject})
            .to_string(),
        format!("{{\"type\":\"{inject}\"}}"),
        "x".repeat(1 << 20),
    ] {
        error_of(&mut socket, &text);
    }
    let escaped = "/ws/v2/connect?client_id=%1b%5d0;owned%07&token=%0aERROR%20injected";
    arena.connect().upgrade(escaped, &[("User-Agent", "\u{9b}31mowned"), ("Origin", "null")]);
    arena.connect().upgrade("/ws/%1b%5d0;owned%07%0aERROR%20injected", &[]);
    let mut close = arena.greeted();
    close.send(&Frame::close(1000, "\u{1b}[31mowned\n ERROR injected").bytes());
    assert_closes(&mut close, 1000, "a reason that writes");
    let log = arena.server().log();
    assert!(!log.contains(['\u{1b}', '\u{7}', '\u{9b}']), "an escape is in the log: {log}");
    assert!(!log.lines().any(|line| line.contains("ERROR injected")), "{log}");
    let longest = log.lines().map(str::len).max().unwrap_or_default();
    assert!(longest < 2_048, "a line of {longest} bytes");
    arena.finish();
}
