//! Document 001, "WebSocket Manager System": what it says of the server, sentence by sentence.
//!
//! What is printed there is sent byte for byte, line breaks included, and what is heard is compared with it byte
//! for byte, in one line and with the values that differ each time taken out. What is asked of the chat's past
//! is told by `document_001_history.rs`.

use serde_json::{Value, json};
use tests::raw::RawSocket;
use tests::server::Server;

use crate::client::{self, Client};
use crate::speaker::{Speaker, bearer, one_line, rooms, without};

const GAME: &str = "/ws/game";
const CHAT: &str = "/ws/chat";
const COMBAT: &str = "/ws/combat";
const WORLD: &str = "/ws/world";

const ACHIEVEMENT: &str = r#"{
  "type": "achievement",
  "user_id": "uuid",
  "achievement": "first_kill",
  "timestamp": "2025-06-06T16:00:00Z"
}"#;

const CHAT_MESSAGE: &str = r#"{
  "type": "chat_message",
  "user": "username",
  "user_id": "uuid",
  "content": "Hello world!",
  "channel": "global",
  "timestamp": "2025-06-06T16:00:00Z"
}"#;

const COMBAT_ACTION: &str = r#"{
  "type": "combat_action",
  "user_id": "uuid",
  "action": "attack",
  "target": "monster_id",
  "combat_session_id": "uuid"
}"#;

const PLAYER_MOVEMENT: &str = r#"{
  "type": "player_movement",
  "user_id": "uuid",
  "x": 100.5,
  "y": 200.3,
  "zone": "starter_town",
  "timestamp": "2025-06-06T16:00:00Z"
}"#;

fn start(more: &[&str]) -> Server {
    let secret = client::secret();
    let mut arguments = vec!["--set", &*secret];
    arguments.extend(more);
    Server::start(&arguments)
}

fn chat(server: &Server, user: &str) -> Speaker {
    let speaker = Speaker::open(server, CHAT, user);
    assert_eq!(speaker.greeting["type"], "connected");
    speaker
}

#[test]
fn game_and_world_support_anonymous_connections_and_chat_and_combat_require_authentication() {
    let server = start(&["--set", "auth.allow_anonymous=false"]);
    for path in [GAME, WORLD] {
        let speaker = Speaker::greeted(RawSocket::open(server.addr(), path));
        assert_eq!(
            (&speaker.greeting["type"], &speaker.greeting["user_id"]),
            (&json!("connected"), &Value::Null)
        );
    }
    for path in [CHAT, COMBAT] {
        // After the upgrade, since a browser sees nothing of one that fails.
        let mut socket = RawSocket::open(server.addr(), path);
        assert_eq!(socket.read_close(), (3500, "unauthenticated".to_owned()), "{path}");
    }
    for path in [GAME, CHAT, COMBAT, WORLD] {
        let mut socket = RawSocket::open(server.addr(), &format!("{path}?token=nonsense"));
        assert_eq!(socket.read_close().0, 3500, "{path}");
    }
    // Where the server lets nobody in particular in, a chat still wants to know who speaks.
    let server = start(&["--set", "auth.allow_anonymous=true"]);
    let mut socket = RawSocket::open(server.addr(), CHAT);
    assert_eq!(socket.read_close().0, 3500);
}

#[test]
fn a_token_comes_in_the_query_parameter_or_in_the_authorization_header() {
    let server = start(&[]);
    let token = bearer("ann", &json!({}));
    for path in [GAME, CHAT, COMBAT, WORLD] {
        let by_query = RawSocket::open(server.addr(), &format!("{path}?token={token}"));
        let mut by_header = RawSocket::connect(server.addr());
        by_header.upgrade(path, &[("Authorization", &format!("Bearer {token}"))]);
        for socket in [by_query, by_header] {
            let greeting = Speaker::greeted(socket).greeting;
            assert_eq!(
                (&greeting["user"], &greeting["user_id"]),
                (&json!("ann's name"), &json!("ann"))
            );
            assert_eq!(greeting["heartbeat_interval_ms"], 30_000, "{path}");
        }
    }
}

#[test]
fn the_printed_chat_message_is_taken_and_heard_as_it_is_printed() {
    let server = start(&[]);
    let token = bearer("uuid", &json!({"name": "username"}));
    let mut ann =
        Speaker::greeted(RawSocket::open(server.addr(), &format!("{CHAT}?token={token}")));
    let mut bob = chat(&server, "bob");
    ann.say(CHAT_MESSAGE);
    let printed = one_line(CHAT_MESSAGE);
    for hears in [&mut ann, &mut bob] {
        let heard = hears.hear();
        assert_eq!(without(&heard, &["timestamp"]), without(&printed, &["timestamp"]));
        let heard: Value = serde_json::from_str(&heard).unwrap();
        assert_eq!(heard["timestamp"].as_str().unwrap().len(), "2025-06-06T16:00:00Z".len());
    }
    // Nobody speaks in another's name.
    bob.say(CHAT_MESSAGE);
    let heard = ann.expect("chat_message");
    assert_eq!((&heard["user"], &heard["user_id"]), (&json!("bob's name"), &json!("bob")));
}

#[test]
fn a_guild_and_a_party_are_heard_by_their_members_alone() {
    let server = start(&[]);
    let guild = rooms(&["chat:guild/42", "chat:party/p1"]);
    let mut ann = Speaker::open_with(&server, CHAT, "ann", &guild);
    assert_eq!(ann.greeting["channels"], json!(["global", "guild/42", "party/p1", "private"]));
    let mut bob = Speaker::open_with(&server, CHAT, "bob", &guild);
    let mut carl = chat(&server, "carl");
    for (channel, id) in [("guild", ("guild_id", "42")), ("party", ("party_id", "p1"))] {
        let (field, id) = id;
        ann.say(&format!(r#"{{"type":"chat_message","content":"us","channel":"{channel}","{field}":"{id}","id":5}}"#));
        let heard = bob.hear();
        assert_eq!(
            without(&heard, &["timestamp"]),
            format!(
                r#"{{"type":"chat_message","user":"ann's name","user_id":"ann","content":"us","channel":"{channel}","{field}":"{id}","timestamp":"…"}}"#
            )
        );
        // Its sender hears it, too, and is told that it was taken.
        let mut kinds = [ann.hear(), ann.hear()].map(|text| text[9..12].to_owned());
        kinds.sort();
        assert_eq!(kinds, ["ack", "cha"]);
        let outsider = format!(
            r#"{{"type":"chat_message","content":"hi","channel":"{channel}","{field}":"{id}"}}"#
        );
        assert_eq!(carl.refused(&outsider), (103, Value::Null));
    }
    bob.hears_nothing();
}

#[test]
fn a_private_message_is_for_one_user_and_a_copy_for_the_senders_other_devices() {
    let server = start(&[]);
    let (mut ann, mut tablet) = (chat(&server, "ann"), chat(&server, "ann"));
    let (mut bob, mut carl) = (chat(&server, "bob"), chat(&server, "carl"));
    ann.say(r#"{"type":"chat_message","content":"psst","channel":"private","to_user_id":"bob"}"#);
    assert_eq!(
        without(&bob.hear(), &["timestamp"]),
        r#"{"type":"chat_message","user":"ann's name","user_id":"ann","content":"psst","channel":"private","timestamp":"…"}"#
    );
    for device in [&mut ann, &mut tablet] {
        assert_eq!(device.expect("chat_message")["to_user_id"], "bob");
    }
    carl.hears_nothing();
    let server = start(&["--set", "chat.private_messages=false"]);
    let mut ann = chat(&server, "ann");
    let said = r#"{"type":"chat_message","content":"psst","channel":"private","to_user_id":"bob"}"#;
    assert_eq!(ann.refused(said), (115, json!("channel")));
}

#[test]
fn typing_is_indicated_to_the_others_of_a_channel() {
    let server = start(&[]);
    let (mut ann, mut bob) = (chat(&server, "ann"), chat(&server, "bob"));
    ann.say(r#"{"type":"typing","channel":"global"}"#);
    assert_eq!(
        without(&bob.hear(), &["timestamp"]),
        r#"{"type":"typing","user":"ann's name","user_id":"ann","is_typing":true,"channel":"global","timestamp":"…"}"#
    );
    ann.hears_nothing();
    ann.say(r#"{"type":"typing","channel":"private","to_user_id":"bob","is_typing":false}"#);
    assert_eq!(bob.expect("typing")["is_typing"], false);
}

#[test]
fn game_events_are_sent_by_the_server_api_or_the_role_system_and_by_nobody_else() {
    let server = start(&["--set", "api.keys.backend.key=a-key-of-the-backend-that-is-long-enough"]);
    let mut anyone = Speaker::greeted(RawSocket::open(server.addr(), GAME));
    let mut ann = Speaker::open(&server, GAME, "ann");
    let mut system = Speaker::open_with(&server, GAME, "engine", &json!({"roles": ["system"]}));
    for event in [
        ACHIEVEMENT,
        r#"{"type":"player_status","user_id":"uuid","status":"online"}"#,
        r#"{"type":"system_announcement","message":"Patch at noon"}"#,
        r#"{"type":"state_change","state":{"phase":"night"}}"#,
    ] {
        assert_eq!(ann.refused(event), (103, json!("type")), "{event}");
        assert_eq!(anyone.refused(event), (103, json!("type")), "{event}");
        system.say(event);
        for hears in [&mut anyone, &mut ann, &mut system] {
            let heard: Value = serde_json::from_str(&hears.hear()).unwrap();
            let said: Value = serde_json::from_str(event).unwrap();
            for (field, value) in said.as_object().unwrap() {
                assert!(field == "timestamp" || heard[field] == *value, "{heard}");
            }
        }
    }
    let body = format!(r#"{{"room":"game:events","data":{ACHIEVEMENT}}}"#);
    let key = "a-key-of-the-backend-that-is-long-enough";
    let authorization = format!("Bearer {key}");
    let headers = [("Authorization", &*authorization), ("Content-Type", "application/json")];
    let path = "/api/v1/publish";
    let answer = crate::http::ask(server.addr(), "POST", path, &headers, &body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let heard = anyone.hear();
    let printed = one_line(ACHIEVEMENT);
    assert_eq!(without(&heard, &["timestamp"]), without(&printed, &["timestamp"]));
    ann.expect("achievement");
    // One user alone can be meant.
    system
        .say(r#"{"type":"achievement","user_id":"ann","achievement":"hidden","to_user_id":"ann"}"#);
    assert_eq!(ann.expect("achievement")["achievement"], "hidden");
    anyone.hears_nothing();
}

#[test]
fn combat_and_world_accept_authenticate_and_validate_and_wait_for_their_rules() {
    let server = start(&[]);
    let mut combat = Speaker::open(&server, COMBAT, "ann");
    assert_eq!(combat.refused(COMBAT_ACTION), (115, json!("type")));
    assert_eq!(
        combat.refused(r#"{"type":"combat_action","action":"attack"}"#),
        (102, json!("target"))
    );
    let mut world = Speaker::open(&server, WORLD, "ann");
    assert_eq!(world.refused(PLAYER_MOVEMENT), (115, json!("type")));
    assert_eq!(world.refused(r#"{"type":"player_movement","x":"east"}"#), (102, json!("x")));
}

#[test]
fn a_message_on_the_chat_reaches_the_same_room_of_protocol_v2_and_the_other_way_round() {
    let server = start(&[]);
    let mut ann = chat(&server, "ann");
    let mut v2 = Client::open_as(&server, "bob");
    v2.subscribe("chat:global");
    ann.say(r#"{"type":"chat_message","content":"hello"}"#);
    ann.expect("chat_message");
    let message = v2.expect("message");
    assert_eq!(
        (&message["sender"]["user_id"], &message["data"]),
        (&json!("ann"), &json!({"type": "chat_message", "content": "hello"}))
    );
    for (data, heard) in [
        (json!("hi"), json!({"type": "chat_message", "content": "hi"})),
        (
            json!({"type": "chat_message", "content": "hi", "user": "root", "user_id": "root"}),
            json!({"type": "chat_message", "content": "hi"}),
        ),
        (json!({"type": "roll", "sides": 20}), json!({"type": "roll", "sides": 20})),
        (json!([1, 2]), json!({"type": "message", "data": [1, 2]})),
        (
            json!({"type": "error", "code": 1}),
            json!({"type": "message", "data": {"type": "error", "code": 1}}),
        ),
    ] {
        v2.send(&json!({"type": "publish", "room": "chat:global", "data": data}));
        let mut told: Value = serde_json::from_str(&ann.hear()).unwrap();
        let told = told.as_object_mut().unwrap();
        assert_eq!(told.remove("user_id"), Some(json!("bob")));
        for server_says in ["user", "channel", "timestamp"] {
            assert!(told.remove(server_says).is_some());
        }
        assert_eq!(json!(told), heard);
    }
    // Under the same checks: a room that is closed on one is closed on the other.
    let mut stranger = Speaker::open(&server, CHAT, "carl");
    assert_eq!(
        stranger.refused(r#"{"type":"chat_message","content":"x","channel":"secret"}"#).0,
        103
    );
}

#[test]
fn whoever_may_not_be_in_the_room_of_an_endpoint_is_closed_with_a_code_that_says_so() {
    let closed = "rooms.\"chat:global\".subscribe=granted";
    let server = start(&["--set", closed]);
    let path = format!("{CHAT}?token={}", bearer("ann", &json!({})));
    let mut socket = RawSocket::open(server.addr(), &path);
    assert_eq!(socket.read_close(), (3501, "forbidden".to_owned()));
}

#[test]
fn the_heartbeat_pings_and_who_is_silent_is_cleaned_up() {
    let server = start(&[
        "--set",
        "channels.heartbeat_interval_ms=1000",
        "--set",
        "channels.connection_timeout_ms=2500",
    ]);
    let mut socket = RawSocket::open(server.addr(), GAME);
    assert_eq!(socket.next_json()["heartbeat_interval_ms"], 1_000);
    socket.expect_json("ping");
    loop {
        let (opcode, payload) = socket.read_frame();
        if opcode == tests::frame::CLOSE {
            assert_eq!(u16::from_be_bytes([payload[0], payload[1]]), 3002);
            break;
        }
    }
}

#[test]
fn an_endpoint_that_is_switched_off_is_not_there() {
    let server = start(&["--set", "server.endpoints=chat", "--set", "server.echo_endpoint=false"]);
    for (path, status) in [("/ws", 404), (GAME, 404), (COMBAT, 404), (WORLD, 404), (CHAT, 400)] {
        assert_eq!(crate::http::get(server.addr(), path).status, status, "{path}");
    }
}

/// What `bob` is told until the answer to a `ping`.
fn letters_of(bob: &mut Speaker) -> Vec<String> {
    let mut contents = Vec::new();
    bob.say(r#"{"type":"ping"}"#);
    loop {
        let heard: Value = serde_json::from_str(&bob.hear()).unwrap();
        match heard["type"].as_str().unwrap() {
            "pong" => return contents,
            "chat_message" => contents.push(heard["content"].as_str().unwrap().to_owned()),
            other => panic!("{other}: {heard}"),
        }
    }
}

fn write_to_bob(ann: &mut Speaker, contents: &[&str]) {
    for content in contents {
        let said = json!({"type": "chat_message", "content": content, "channel": "private", "to_user_id": "bob", "id": 1});
        ann.say(&said.to_string());
        // The copy for her own devices, and the answer.
        let mut heard = [ann.hear(), ann.hear()];
        heard.sort();
        assert!(heard[0].starts_with(r#"{"type":"ack","id":1,"channel":"private""#), "{heard:?}");
        assert!(heard[1].contains(r#""to_user_id":"bob""#), "{heard:?}");
    }
}

#[test]
fn messages_for_a_user_who_is_away_wait_and_are_delivered_on_return_once() {
    let server = start(&[]);
    let mut ann = chat(&server, "ann");
    write_to_bob(&mut ann, &["one", "two", "three"]);
    let mut bob = chat(&server, "bob");
    assert_eq!(letters_of(&mut bob), ["one", "two", "three"]);
    write_to_bob(&mut ann, &["four"]);
    assert_eq!(letters_of(&mut bob), ["four"]);
    drop(bob);
    // Nothing twice, on one device or two.
    let mut devices = [chat(&server, "bob"), chat(&server, "bob")];
    for device in &mut devices {
        assert_eq!(letters_of(device), Vec::<String>::new());
    }
    // Everything that was said of it is as it was said.
    drop(devices);
    let mut seen = chat(&server, "carl");
    seen.hears_nothing();
    ann.say(
        r#"{"type":"chat_message","content":"dear bob","channel":"private","to_user_id":"dora"}"#,
    );
    ann.expect("chat_message");
    let mut dora = chat(&server, "dora");
    assert_eq!(
        without(&dora.hear(), &["timestamp"]),
        r#"{"type":"chat_message","user":"ann's name","user_id":"ann","content":"dear bob","channel":"private","timestamp":"…"}"#
    );
}

#[test]
fn what_waits_for_a_user_survives_a_kill_and_a_restart_and_comes_once() {
    let secret = client::secret();
    let mut server =
        Server::start_durable(&["--set", &secret, "--set", "chat.letters_per_pair_max=250"]);
    let mut ann = chat(&server, "ann");
    let said: Vec<String> = (0..250).map(|n| format!("m{n}")).collect();
    write_to_bob(&mut ann, &said.iter().map(String::as_str).collect::<Vec<_>>());
    server.kill();
    server.restart();
    // More than one page.
    let mut bob = chat(&server, "bob");
    assert_eq!(letters_of(&mut bob), said);
    drop(bob);
    server.kill();
    server.restart();
    let mut bob = chat(&server, "bob");
    assert_eq!(letters_of(&mut bob), Vec::<String>::new());
}

#[test]
fn no_more_than_so_many_messages_wait_for_one_user() {
    let server = start(&["--set", "chat.letters_per_user_max=2"]);
    let mut ann = chat(&server, "ann");
    write_to_bob(&mut ann, &["one", "two"]);
    let third =
        r#"{"type":"chat_message","content":"three","channel":"private","to_user_id":"bob"}"#;
    assert_eq!(ann.refused(third), (117, json!("to_user_id")));
    let mut bob = chat(&server, "bob");
    assert_eq!(letters_of(&mut bob), ["one", "two"]);
    write_to_bob(&mut ann, &["three"]);
    assert_eq!(letters_of(&mut bob), ["three"]);
}
