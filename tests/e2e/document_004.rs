//! Document 004, "WebSocket Architecture Documentation": what it says of the server, sentence by sentence.

use serde_json::{Value, json};
use tests::foreign::{Tool, node, python, require};
use tests::raw::RawSocket;
use tests::server::Server;
use tests::token;

use crate::client::{self, Client};
use crate::speaker::{Speaker, bearer, without};

const PATH: &str = "/ws";

fn start(more: &[&str]) -> Server {
    let secret = client::secret();
    let mut arguments = vec!["--set", &*secret];
    arguments.extend(more);
    Server::start(&arguments)
}

/// Somebody on `/ws` who has been told who is there.
fn open(server: &Server, user: &str) -> Speaker {
    open_with(server, user, &json!({}))
}

fn open_with(server: &Server, user: &str, more: &Value) -> Speaker {
    let mut speaker = Speaker::open_with(server, PATH, user, more);
    assert_eq!(speaker.greeting["type"], "welcome");
    let list = speaker.expect("user_list");
    let listed = list["users"].as_array().unwrap();
    assert!(listed.iter().any(|listed| listed["user_id"] == user), "{list}");
    speaker
}

#[test]
fn the_server_verifies_authentication_before_it_upgrades() {
    let server = start(&[]);
    let other = token::hs256(
        "another-secret-that-is-long-enough-for-hs256",
        &json!({"sub": "u1", "exp": token::now() + 60}),
    );
    let expired = bearer("u1", &json!({"exp": token::now() - 3600}));
    for query in
        ["", "?token=", "?token=nonsense", &format!("?token={other}"), &format!("?token={expired}")]
    {
        let mut socket = RawSocket::connect(server.addr());
        let head = socket.upgrade(&format!("{PATH}{query}"), &[]);
        assert!(head.starts_with("HTTP/1.1 401 "), "{query}: {head}");
        assert!(head.to_ascii_lowercase().contains("www-authenticate: bearer"), "{head}");
    }
    // A cookie is no authentication.
    let good = bearer("u1", &json!({}));
    let mut socket = RawSocket::connect(server.addr());
    let head = socket.upgrade(PATH, &[("Cookie", &format!("token={good}; session={good}"))]);
    assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
    // By query, header and sub-protocol.
    let authorization = format!("Bearer {good}");
    let protocols = format!("bearer.{good}");
    for (path, header) in [
        (format!("{PATH}?token={good}"), None),
        (PATH.to_owned(), Some(("Authorization", &*authorization))),
        (PATH.to_owned(), Some(("Sec-WebSocket-Protocol", &*protocols))),
    ] {
        let mut socket = RawSocket::connect(server.addr());
        let head = socket.upgrade(&path, header.as_slice());
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert_eq!(socket.next_json()["type"], "welcome");
    }
    // What is no upgrade is answered as one that is none, token or not.
    assert_eq!(crate::http::get(server.addr(), PATH).status, 400);
}

#[test]
fn a_welcome_and_the_user_list_are_sent() {
    let server = start(&[]);
    let mut ann = Speaker::open(&server, PATH, "ann");
    let welcome = ann.greeting.to_string();
    for (field, value) in [
        ("type", json!("welcome")),
        ("user", json!("ann's name")),
        ("user_id", json!("ann")),
        ("endpoint", json!("lobby")),
        ("channels", json!(["lobby", "private"])),
        ("heartbeat_interval_ms", json!(25_000)),
    ] {
        assert_eq!(ann.greeting[field], value, "{welcome}");
    }
    let list = without(&ann.hear(), &["timestamp"]);
    assert_eq!(
        list,
        r#"{"type":"user_list","users":[{"user":"ann's name","user_id":"ann","connections":1}],"total_users":1,"total_connections":1,"timestamp":"…"}"#
    );
}

#[test]
fn a_user_is_one_entry_online_with_the_first_connection_and_offline_with_the_last() {
    let server = start(&[]);
    let mut ann = open(&server, "ann");
    let mut tabs: Vec<_> = (0..3).map(|_| open(&server, "bob")).collect();
    let came = ann.hear();
    assert_eq!(
        without(&came, &["timestamp"]),
        r#"{"type":"user_connected","user":"bob's name","user_id":"bob","timestamp":"…"}"#
    );
    ann.say(r#"{"type":"users"}"#);
    let list = ann.expect("user_list");
    assert_eq!((&list["total_users"], &list["total_connections"]), (&json!(2), &json!(4)));
    assert_eq!(list["users"][1]["connections"], 3);
    ann.say(r#"{"type":"stats","id":7}"#);
    assert_eq!(
        without(&ann.hear(), &["timestamp"]),
        r#"{"type":"stats","id":7,"total_users":2,"total_connections":4,"timestamp":"…"}"#
    );
    tabs.truncate(1);
    ann.hears_nothing();
    tabs.clear();
    let gone = without(&ann.hear(), &["timestamp"]);
    assert!(gone.starts_with(r#"{"type":"user_disconnected","user":"#), "{gone}");
    assert!(gone.contains(r#""user_id":"bob""#), "{gone}");
}

#[test]
fn a_message_is_parsed_as_json_or_taken_as_plain_text() {
    let server = start(&[]);
    let (mut ann, mut bob) = (open(&server, "ann"), open(&server, "bob"));
    ann.expect("user_connected");
    for said in [r#"{"type":"chat","message":"hello"}"#, "hello"] {
        ann.say(said);
        assert_eq!(
            without(&bob.hear(), &["timestamp"]),
            r#"{"type":"chat","user":"ann's name","user_id":"ann","message":"hello","timestamp":"…"}"#
        );
    }
    // Everything that is no object is text, whatever else it may be.
    for (said, heard) in
        [("42", "42"), ("[1]", "[1]"), ("\"q\"", "\"q\""), ("<b>&</b> ü", "<b>&</b> ü")]
    {
        ann.say(said);
        assert_eq!(bob.expect("chat")["message"], heard);
    }
    assert_eq!(ann.refused("{\"type\":"), (100, Value::Null));
    assert_eq!(ann.refused("  "), (100, Value::Null));
    assert_eq!(ann.refused(r#"{"type":"text/plain"}"#), (102, json!("type")));
    bob.hears_nothing();
}

#[test]
fn the_sender_hears_itself_only_where_the_server_echoes() {
    for (echo, heard) in [("false", false), ("true", true)] {
        let server = start(&["--set", &format!("lobby.echo_to_sender={echo}")]);
        let mut ann = open(&server, "ann");
        let mut tab = open(&server, "ann");
        ann.say(r#"{"type":"chat","message":"hi","id":1}"#);
        if heard {
            // In either order: the message comes over the room, the answer does not.
            let mut kinds = [ann.hear(), ann.hear()].map(|text| text[9..13].to_owned());
            kinds.sort();
            assert_eq!(kinds, ["ack\"", "chat"]);
        } else {
            ann.expect("ack");
            ann.hears_nothing();
        }
        // To its user's other connections it is another's.
        assert_eq!(tab.expect("chat")["user_id"], "ann");
    }
}

#[test]
fn typing_is_told_to_others_and_a_ping_is_answered() {
    let server = start(&[]);
    let (mut ann, mut bob) = (open(&server, "ann"), open(&server, "bob"));
    ann.expect("user_connected");
    ann.say(r#"{"type":"typing","is_typing":true}"#);
    assert_eq!(
        without(&bob.hear(), &["timestamp"]),
        r#"{"type":"typing","user":"ann's name","user_id":"ann","is_typing":true,"timestamp":"…"}"#
    );
    ann.hears_nothing();
    bob.say(r#"{"type":"ping"}"#);
    assert_eq!(without(&bob.hear(), &["timestamp"]), r#"{"type":"pong","timestamp":"…"}"#);
}

#[test]
fn one_user_alone_can_be_meant_over_all_its_connections() {
    let server = start(&[]);
    let mut ann = open(&server, "ann");
    let mut anns_phone = open(&server, "ann");
    let mut bobs = [open(&server, "bob"), open(&server, "bob")];
    let mut carl = open(&server, "carl");
    ann.expect("user_connected");
    ann.expect("user_connected");
    anns_phone.expect("user_connected");
    anns_phone.expect("user_connected");
    bobs.iter_mut().for_each(|bob| drop(bob.expect("user_connected")));
    ann.say(r#"{"type":"chat","message":"psst","to_user_id":"bob"}"#);
    for bob in &mut bobs {
        let chat = bob.expect("chat");
        assert_eq!(
            (&chat["user_id"], &chat["message"], &chat["channel"]),
            (&json!("ann"), &json!("psst"), &json!("private"))
        );
    }
    // The sender's own copy says to whom it went; where it was said it is not heard without an echo.
    assert_eq!(anns_phone.expect("chat")["to_user_id"], "bob");
    ann.hears_nothing();
    carl.hears_nothing();
}

#[test]
fn broadcasting_for_the_server_needs_a_role() {
    let server = start(&[]);
    let (mut ann, mut bob) =
        (open(&server, "ann"), open_with(&server, "bob", &json!({"roles": ["admin"]})));
    ann.expect("user_connected");
    let printed = r#"{"type":"announcement","message":"Server maintenance in 5 minutes"}"#;
    assert_eq!(ann.refused(printed), (103, json!("type")));
    bob.hears_nothing();
    bob.say(printed);
    for hears in [&mut ann, &mut bob] {
        assert_eq!(
            without(&hears.hear(), &["timestamp"]),
            r#"{"type":"announcement","message":"Server maintenance in 5 minutes","timestamp":"…"}"#
        );
    }
}

#[test]
fn a_sixth_connection_of_a_user_is_refused_with_a_code_that_says_so() {
    let server = start(&["--set", "limits.connections_per_user_max=5"]);
    let tabs: Vec<_> = (0..5).map(|_| open(&server, "ann")).collect();
    let path = format!("{PATH}?token={}", bearer("ann", &json!({})));
    let mut sixth = RawSocket::open(server.addr(), &path);
    assert_eq!(sixth.read_close(), (3506, "connection_limit".to_owned()));
    drop(tabs);
}

#[test]
fn what_is_not_valid_is_refused_with_its_field_and_reaches_nobody() {
    let server = start(&[]);
    let (mut ann, mut bob) = (open(&server, "ann"), open(&server, "bob"));
    ann.expect("user_connected");
    for (said, code, field) in [
        (r#"{"type":"custom_message","content":"x"}"#, 101, json!("type")),
        (r#"{"content":"x"}"#, 100, json!("type")),
        (r#"{"type":"chat"}"#, 102, json!("message")),
        (r#"{"type":"chat","message":""}"#, 102, json!("message")),
        (r#"{"type":"chat","message":["x"]}"#, 102, json!("message")),
        (r#"{"type":"typing","is_typing":"yes"}"#, 102, json!("is_typing")),
        (r#"{"type":"announcement"}"#, 102, json!("message")),
    ] {
        assert_eq!(ann.refused(said), (code, field), "{said}");
    }
    let long = format!(r#"{{"type":"chat","message":"{}"}}"#, "x".repeat(4097));
    assert_eq!(ann.refused(&long), (109, json!("message")));
    bob.hears_nothing();
}

#[test]
fn a_lobby_is_the_room_chat_lobby_of_protocol_v2() {
    let server = start(&[]);
    let mut ann = open(&server, "ann");
    let mut v2 = Client::open_as(&server, "bob");
    v2.subscribe("chat:lobby");
    ann.expect("user_connected");
    ann.say("hello");
    let message = v2.expect("message");
    assert_eq!(
        (&message["room"], &message["sender"]["user_id"]),
        (&json!("chat:lobby"), &json!("ann"))
    );
    assert_eq!(message["data"], json!({"type": "chat", "message": "hello"}));
    v2.send(&json!({"type": "publish", "room": "chat:lobby", "data": {"type": "chat", "user": "ann", "message": "hi"}}));
    let chat = ann.expect("chat");
    assert_eq!(
        (&chat["user"], &chat["user_id"], &chat["message"]),
        (&json!("bob"), &json!("bob"), &json!("hi"))
    );
}

#[test]
fn sessions_are_validated_again_while_the_connection_lasts() {
    let server = start(&["--set", "auth.leeway_ms=0"]);
    let mut ann = open_with(&server, "ann", &json!({"exp": token::now() + 2}));
    loop {
        let (opcode, payload) = ann.socket.read_frame();
        if opcode == tests::frame::CLOSE {
            assert_eq!(u16::from_be_bytes([payload[0], payload[1]]), 3004);
            break;
        }
    }
}

#[test]
fn verbose_logging_tells_of_messages_and_not_what_they_say() {
    let server = start(&["--set", "lobby.verbose_logging=true"]);
    let mut ann = open(&server, "ann");
    ann.say(r#"{"type":"chat","message":"a secret of ann's","id":1}"#);
    ann.expect("ack");
    let is_told = || server.log().contains("kind=chat ").then(|| server.log());
    let log = client::until("the log tells of the message", is_told);
    for word in ["connected", "user=ann"] {
        assert!(log.contains(word), "{word} is not in {log}");
    }
    assert!(!log.contains("a secret of ann's"), "{log}");
    // Off unless somebody wants it.
    let server = start(&[]);
    let mut ann = open(&server, "ann");
    ann.say(r#"{"type":"chat","message":"x","id":1}"#);
    ann.expect("ack");
    assert!(!server.log().contains("kind=chat "));
}

#[test]
fn clients_of_node_and_python_talk_in_the_lobby() {
    let server = start(&[]);
    let url = format!("ws://{}{PATH}", server.addr());
    let mut ann = open(&server, "ann");
    for (place, tool) in [Tool::Node, Tool::Python].into_iter().enumerate() {
        if !require(tool) {
            continue;
        }
        let user = format!("guest{place}");
        let token = bearer(&user, &json!({}));
        let arguments = ["--url", &*url, "--token", &token];
        let said = std::thread::scope(|scope| {
            let talk = scope.spawn(|| match tool {
                Tool::Node => node("document_004.mjs", &arguments),
                _ => python("document_004.py", &arguments),
            });
            ann.expect("user_connected");
            assert_eq!(ann.expect("chat")["message"], "plain text");
            ann.say(r#"{"type":"chat","message":"welcome"}"#);
            talk.join().unwrap()
        });
        assert_eq!(said, "welcome user_list chat welcome pong error 101\nrefused 401\n");
        ann.expect("user_disconnected");
    }
}
