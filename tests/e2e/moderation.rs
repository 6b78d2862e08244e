//! Moderation of the chat: who may, what it does, on every endpoint and over a kill of the server.

use serde_json::{Value, json};
use tests::raw::RawSocket;
use tests::server::Server;
use tests::token;

use crate::client::{self, Client};
use crate::http;
use crate::speaker::{Speaker, bearer, rooms, without};

const CHAT: &str = "/ws/chat";

fn start(more: &[&str]) -> Server {
    let secret = client::secret();
    let mut arguments = vec!["--set", &*secret];
    arguments.extend(more);
    Server::start(&arguments)
}

fn chat(server: &Server, user: &str) -> Speaker {
    Speaker::open(server, CHAT, user)
}

fn moderator(server: &Server) -> Speaker {
    Speaker::open_with(server, CHAT, "mod", &json!({"roles": ["moderator"]}))
}

/// A connection of protocol v2 of this user in the same room.
fn v2(server: &Server, user: &str) -> Client {
    let mut client = Client::open_as(server, user);
    client.subscribe("chat:global");
    client
}

/// Does it, and hears that it was done and what the room was told of it.
fn moderate(by: &mut Speaker, rest: &str) -> Value {
    by.say(&format!(r#"{{"type":"moderation","id":1,{rest}}}"#));
    // The answer may stand before or behind what everybody hears.
    let heard = [by.hear(), by.hear()].map(|text| serde_json::from_str::<Value>(&text).unwrap());
    let (acks, told): (Vec<Value>, Vec<Value>) =
        heard.into_iter().partition(|heard| heard["type"] == "ack");
    assert_eq!(acks.len(), 1, "{told:?}");
    told.into_iter().next().unwrap()
}

fn say(content: &str) -> String {
    json!({"type": "chat_message", "content": content}).to_string()
}

/// Says something that is heard.
fn speaks(who: &mut Speaker, content: &str) {
    who.say(&say(content));
    assert_eq!(who.expect("chat_message")["content"], content);
}

fn refused_join(client: &mut Client) -> (Value, Value) {
    let id = client.ask(json!({"type": "subscribe", "room": "chat:global"}));
    let answer = client.answer(id);
    assert_eq!(answer["type"], "error", "{answer}");
    (answer["code"].clone(), answer["retry_after_ms"].clone())
}

/// How the chat's endpoint ends a connection of this user.
fn closed_with(server: &Server, user: &str) -> (u16, String) {
    let path = format!("{CHAT}?token={}", bearer(user, &json!({})));
    RawSocket::open(server.addr(), &path).read_close()
}

#[test]
fn a_muted_user_is_refused_with_the_reason_and_when_it_ends_on_every_endpoint() {
    let server = start(&[]);
    let (mut bob, mut other) = (chat(&server, "bob"), chat(&server, "ann"));
    let mut by_v2 = v2(&server, "bob");
    let mut judge = moderator(&server);
    let told = moderate(
        &mut judge,
        r#""action":"mute","user_id":"bob","duration_seconds":60,"reason":"loud""#,
    );
    let printed = r#"{"type":"moderation","action":"mute","user_id":"bob","by":"mod","duration_seconds":60,"reason":"loud","channel":"global","timestamp":"…"}"#;
    assert_eq!(told["action"], "mute");
    for hears in [&mut other, &mut bob] {
        assert_eq!(without(&hears.hear(), &["timestamp"]), printed);
    }
    for said in [say("hi"), r#"{"type":"typing"}"#.to_owned()] {
        bob.say(&said);
        let error = bob.expect("error");
        assert_eq!((&error["code"], &error["error"]), (&json!(103), &json!("permission_denied")));
        assert!(error["message"].as_str().unwrap().contains("muted"), "{error}");
        let wait = error["retry_after_ms"].as_u64().unwrap();
        assert!((50_000..=60_000).contains(&wait), "{error}");
    }
    assert_eq!(by_v2.expect("message")["data"]["action"], "mute");
    let id = by_v2.ask(json!({"type": "publish", "room": "chat:global", "data": "hi"}));
    let refused = by_v2.answer(id);
    assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!(103)));
    other.hears_nothing();
    // To one user alone, and elsewhere, he may speak.
    bob.say(r#"{"type":"chat_message","content":"sorry","channel":"private","to_user_id":"ann"}"#);
    assert_eq!(other.expect("chat_message")["content"], "sorry");
    bob.expect("chat_message");
    moderate(&mut judge, r#""action":"unmute","user_id":"bob""#);
    assert_eq!(bob.expect("moderation")["action"], "unmute");
    speaks(&mut bob, "thanks");
}

#[test]
fn the_lobby_is_moderated_as_the_channel_that_it_is() {
    let server = start(&[]);
    let mut bob = Speaker::open(&server, "/ws", "bob");
    bob.expect("user_list");
    let admin = json!({"roles": ["admin"]});
    let mut judge = Speaker::open_with(&server, CHAT, "mod", &admin);
    judge.say(r#"{"type":"moderation","id":1,"channel":"lobby","action":"mute","user_id":"bob"}"#);
    judge.expect("ack");
    assert_eq!(bob.expect("moderation")["duration_seconds"], Value::Null);
    for said in [r#"{"type":"chat","message":"hi"}"#, "hi", r#"{"type":"typing"}"#] {
        bob.say(said);
        let error = bob.expect("error");
        assert_eq!((&error["code"], &error["retry_after_ms"]), (&json!(103), &Value::Null));
    }
}

#[test]
fn a_kicked_user_leaves_on_all_connections_and_may_come_back() {
    let server = start(&[]);
    let (mut bob, mut tablet) = (chat(&server, "bob"), chat(&server, "bob"));
    let mut by_v2 = v2(&server, "bob");
    let mut judge = moderator(&server);
    let told = moderate(&mut judge, r#""action":"kick","user_id":"bob""#);
    assert_eq!((&told["action"], &told["by"]), (&json!("kick"), &json!("mod")));
    for device in [&mut bob, &mut tablet] {
        let left = device.expect("channel_left");
        assert_eq!((&left["channel"], &left["code"]), (&json!("global"), &json!(103)));
    }
    let left = by_v2.expect("unsubscribed");
    assert_eq!((&left["room"], &left["code"]), (&json!("chat:global"), &json!(103)));
    bob.hears_nothing();
    by_v2.subscribe("chat:global");
    speaks(&mut chat(&server, "bob"), "back");
}

#[test]
fn a_banned_user_is_put_out_can_not_come_back_and_hears_of_nothing_until_unbanned() {
    let server = start(&["--set", "api.keys.backend.key=a-key-of-the-backend-that-is-long-enough"]);
    let mut bob = chat(&server, "bob");
    let mut by_v2 = v2(&server, "bob");
    let mut judge = moderator(&server);
    let told = moderate(&mut judge, r#""action":"ban","user_id":"bob","duration_seconds":600"#);
    assert_eq!((&told["action"], &told["duration_seconds"]), (&json!("ban"), &json!(600)));
    bob.expect("channel_left");
    by_v2.expect("unsubscribed");
    assert_eq!(closed_with(&server, "bob"), (3501, "forbidden".to_owned()));
    let (code, wait) = refused_join(&mut by_v2);
    assert_eq!(code, 103);
    assert!(wait.as_u64().unwrap() > 500_000, "{wait}");
    assert_eq!(bob.refused(&say("let me in")).0, 103);
    assert_eq!(bob.refused(r#"{"type":"history"}"#).0, 103);
    speaks(&mut judge, "peace");
    bob.hears_nothing();
    // A backend is no user: it speaks for whom it likes.
    let body = r#"{"room":"chat:global","data":"for bob"}"#;
    let headers = [
        ("Authorization", "Bearer a-key-of-the-backend-that-is-long-enough"),
        ("Content-Type", "application/json"),
    ];
    let answer = http::ask(server.addr(), "POST", "/api/v1/publish", &headers, body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    judge.expect("chat_message");
    moderate(&mut judge, r#""action":"unban","user_id":"bob""#);
    by_v2.subscribe("chat:global");
    speaks(&mut chat(&server, "bob"), "back");
}

/// The `message_id` of the newest message of the chat, and its content.
fn newest(who: &mut Speaker) -> (String, Value) {
    who.say(r#"{"type":"history","limit":1}"#);
    let page = who.expect("history");
    let message = &page["messages"][0];
    (message["message_id"].as_str().unwrap().to_owned(), message["content"].clone())
}

#[test]
fn a_deleted_message_is_gone_from_history_and_everybody_is_told() {
    let server = start(&[]);
    let (mut ann, mut judge) = (chat(&server, "ann"), moderator(&server));
    let mut by_v2 = v2(&server, "carl");
    speaks(&mut ann, "rude words");
    judge.expect("chat_message");
    let (id, content) = newest(&mut judge);
    assert_eq!(content, "rude words");
    let told = moderate(&mut judge, &format!(r#""action":"delete","message_id":"{id}""#));
    assert_eq!(told["type"], "message_deleted");
    assert_eq!(
        without(&ann.hear(), &["timestamp"]),
        format!(
            r#"{{"type":"message_deleted","message_id":"{id}","by":"mod","channel":"global","timestamp":"…"}}"#
        )
    );
    by_v2.expect("message");
    let announced = by_v2.expect("message");
    let data = json!({"type": "message_deleted", "message_id": id, "by": "mod"});
    assert_eq!((&announced["data"], &announced["sender"]["user_id"]), (&data, &Value::Null));
    let question = by_v2.ask(json!({"type": "history", "room": "chat:global"}));
    let page = by_v2.answer(question);
    let gone = &page["messages"][0];
    assert_eq!((&gone["type"], &gone["reason"]), (&json!("tombstone"), &json!("deleted")));
    assert!(!page.to_string().contains("rude words"), "{page}");
    // Who reads the past learns which message it was.
    ann.say(r#"{"type":"history"}"#);
    let listed = ann.expect("history");
    let entries = listed["messages"].as_array().unwrap();
    assert_eq!(entries.len(), 1, "{listed}");
    assert_eq!((&entries[0]["type"], &entries[0]["message_id"]), (&told["type"], &json!(id)));
    // Once more changes nothing, and what there is not can't be deleted.
    moderate(&mut judge, &format!(r#""action":"delete","message_id":"{id}""#));
    let unknown = r#"{"type":"moderation","action":"delete","message_id":"00000000000000aa-1"}"#;
    assert_eq!(judge.refused(unknown), (110, json!("message_id")));
}

#[test]
fn only_a_moderators_role_or_the_right_in_the_room_moderates() {
    let server = start(&["--set", "chat.moderator_roles=referee"]);
    let mut bob = chat(&server, "bob");
    let kick = r#"{"type":"moderation","action":"kick","user_id":"bob"}"#;
    let mute_in_guild = r#"{"type":"moderation","id":1,"channel":"guild","guild_id":"42","action":"mute","user_id":"bob"}"#;
    for claims in [json!({}), json!({"roles": ["moderator", "admin"]}), rooms(&["chat:*"])] {
        let mut anybody = Speaker::open_with(&server, CHAT, "eve", &claims);
        assert_eq!(anybody.refused(kick), (103, Value::Null), "{claims}");
    }
    let guild = json!({"rooms": [{"pattern": "chat:guild/42", "allow": ["subscribe", "publish", "moderate"]}]});
    let mut head = Speaker::open_with(&server, CHAT, "head", &guild);
    assert_eq!(head.refused(kick), (103, Value::Null));
    moderate(
        &mut head,
        mute_in_guild.trim_start_matches(r#"{"type":"moderation","id":1,"#).trim_end_matches('}'),
    );
    bob.hears_nothing();
    let mut referee = Speaker::open_with(&server, CHAT, "r", &json!({"roles": ["referee"]}));
    moderate(&mut referee, r#""action":"kick","user_id":"bob""#);
    bob.expect("channel_left");
    // A moderator may be moderated by another, and does not lift that itself.
    let own = r#"{"type":"moderation","action":"mute","user_id":"r"}"#;
    assert_eq!(referee.refused(own), (102, json!("user_id")));
    let roles = json!({"roles": ["referee"]});
    let mut other = Speaker::open_with(&server, CHAT, "r2", &roles);
    moderate(&mut other, r#""action":"mute","user_id":"r""#);
    referee.expect("moderation");
    let lift = r#"{"type":"moderation","action":"unmute","user_id":"r"}"#;
    assert_eq!(referee.refused(lift), (103, Value::Null));
}

#[test]
fn a_malformed_act_names_its_field_and_does_nothing() {
    let server = start(&[]);
    let (mut judge, mut bob) = (moderator(&server), chat(&server, "bob"));
    let long = "x".repeat(257);
    for (rest, field) in [
        (String::new(), "action"),
        (r#","action":"hang""#.to_owned(), "action"),
        (r#","action":7"#.to_owned(), "action"),
        (r#","action":"mute""#.to_owned(), "user_id"),
        (r#","action":"ban","user_id":7"#.to_owned(), "user_id"),
        (r#","action":"kick","user_id":"a b""#.to_owned(), "user_id"),
        (r#","action":"mute","user_id":"bob","duration_seconds":0"#.to_owned(), "duration_seconds"),
        (
            r#","action":"mute","user_id":"bob","duration_seconds":"60""#.to_owned(),
            "duration_seconds",
        ),
        (
            r#","action":"ban","user_id":"bob","duration_seconds":1.5"#.to_owned(),
            "duration_seconds",
        ),
        (r#","action":"delete""#.to_owned(), "message_id"),
        (r#","action":"delete","message_id":"5""#.to_owned(), "message_id"),
        (format!(r#","action":"kick","user_id":"bob","reason":"{long}""#), "reason"),
        (
            r#","action":"kick","user_id":"bob","channel":"private","to_user_id":"x""#.to_owned(),
            "channel",
        ),
        (r#","action":"kick","user_id":"bob","channel":"guild""#.to_owned(), "guild_id"),
    ] {
        let (code, named) = judge.refused(&format!(r#"{{"type":"moderation"{rest}}}"#));
        let expected = if field == "reason" { 109 } else { 102 };
        assert_eq!((code, named), (expected, json!(field)), "{rest}");
    }
    bob.hears_nothing();
    speaks(&mut bob, "still here");
}

#[test]
fn sanctions_and_deletions_survive_a_kill_and_a_restart() {
    let secret = client::secret();
    let mut server = Server::start_durable(&["--set", &secret]);
    let mut ann = chat(&server, "ann");
    let mut judge = moderator(&server);
    speaks(&mut ann, "rude words");
    judge.expect("chat_message");
    let (id, _) = newest(&mut judge);
    moderate(&mut judge, &format!(r#""action":"delete","message_id":"{id}""#));
    moderate(&mut judge, r#""action":"ban","user_id":"bob""#);
    moderate(&mut judge, r#""action":"mute","user_id":"carl","duration_seconds":600"#);
    moderate(&mut judge, r#""action":"mute","user_id":"dora""#);
    moderate(&mut judge, r#""action":"unmute","user_id":"dora""#);
    server.kill();
    server.restart();
    assert_eq!(closed_with(&server, "bob").0, 3501);
    let mut carl = chat(&server, "carl");
    assert_eq!(carl.refused(&say("hi")), (103, Value::Null));
    speaks(&mut chat(&server, "dora"), "hi");
    let path = format!(
        "{}?token={}",
        client::PATH,
        token::hs256(token::SECRET, &token::claims("eve", "chat:*"))
    );
    let mut by_v2 = Client::open_at(server.addr(), &path);
    let question = by_v2.ask(json!({"type": "history", "room": "chat:global"}));
    let page = by_v2.answer(question);
    assert_eq!(page["messages"][0]["reason"], "deleted", "{page}");
    assert!(!page.to_string().contains("rude words"), "{page}");
    let mut judge = moderator(&server);
    moderate(&mut judge, r#""action":"unban","user_id":"bob""#);
    server.kill();
    server.restart();
    speaks(&mut chat(&server, "bob"), "back");
}

#[test]
fn every_act_is_in_the_security_log_without_its_words() {
    let server = start(&["--set", "log.format=json"]);
    let mut judge = moderator(&server);
    moderate(&mut judge, r#""action":"ban","user_id":"bob","reason":"secret words""#);
    let eve = r#"{"type":"moderation","action":"ban","user_id":"bob"}"#;
    assert_eq!(chat(&server, "eve").refused(eve).0, 103);
    let log = server.log();
    let acts: Vec<Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["event"] == "moderation")
        .collect();
    assert_eq!(acts.len(), 1, "{log}");
    for (field, value) in [
        ("target", json!("security")),
        ("user", json!("mod")),
        ("action", json!("ban")),
        ("room", json!("chat:global")),
        ("subject", json!("bob")),
        ("recorded", json!(true)),
        ("done", json!(true)),
    ] {
        assert_eq!(acts[0][field], value, "{}", acts[0]);
    }
    assert!(!log.contains("secret words"), "{log}");
}
