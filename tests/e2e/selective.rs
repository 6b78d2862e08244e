//! Some messages for some: tags and filters, patterns of rooms and the room of one's own, through
//! the WebSocket libraries of others, over HTTP and over a restart.

use serde_json::{Value, json};
use tests::foreign::{Tool, node, python, require};
use tests::hosts::{Part, has};
use tests::server::Server;
use tests::token;

use crate::client::{Client, PATH, secret};
use crate::http::ask;

const KEY: &str = "a-key-for-selective-messages-0123456789";

fn filter() -> Value {
    let lang = json!({"or": [{"eq": {"lang": "de"}}, {"eq": {"lang": "at"}}]});
    json!({"and": [lang, {"not": {"in": {"kind": ["a", "b"]}}}]})
}

fn say(room: &str, data: &Value, tags: &Value) -> Value {
    json!({"room": room, "data": data, "tags": tags})
}

/// What is told of each message: its data, and the offset before it.
fn told(frames: &[Value]) -> Vec<(&Value, &Value)> {
    let messages = frames.iter().filter(|frame| frame["type"] == "message");
    messages.map(|message| (&message["data"], &message["previous"])).collect()
}

fn a_reader_gets_what_it_asked_for(run: fn(&str, &[&str]) -> String, script: &str) {
    let server = Server::start(&["--set", "namespaces.public.patterns=true"]);
    let tags = |lang: &str, kind: &str| json!({"lang": lang, "kind": kind});
    let publish = [
        say("public:news", &json!(1), &tags("en", "c")),
        say("public:news", &json!(2), &tags("de", "c")),
        say("public:zone/7", &json!("of a zone"), &json!({})),
        say("public:news", &json!(3), &tags("de", "a")),
        say("public:news", &json!(4), &tags("at", "grüß")),
    ];
    let subscribe =
        json!([{"room": "public:news", "filter": filter()}, {"pattern": "public:zone/*"}]);
    let lines = run(
        script,
        &[
            "--url",
            &server.ws(PATH),
            "--subscribe",
            &subscribe.to_string(),
            "--publish",
            &json!(publish).to_string(),
            "--count",
            "3",
        ],
    );
    let frames: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for feature in ["tags", "filter", "patterns"] {
        assert!(frames[0]["features"].as_array().unwrap().contains(&json!(feature)));
    }
    let (zone, news): (Vec<Value>, Vec<Value>) =
        frames.into_iter().partition(|frame| frame["room"] == "public:zone/7");
    assert_eq!(told(&news), [(&json!(2), &json!(0)), (&json!(4), &json!(2))]);
    assert_eq!(news.last().unwrap()["tags"], tags("at", "grüß"));
    assert_eq!(zone.len(), 1);
    assert_eq!(
        (&zone[0]["data"], &zone[0]["pattern"]),
        (&json!("of a zone"), &json!("public:zone/*"))
    );
}

#[test]
fn a_reader_on_the_ws_library_of_node_gets_what_it_asked_for_and_nothing_else() {
    if require(Tool::Node) {
        a_reader_gets_what_it_asked_for(node, "selective.mjs");
    }
}

#[test]
fn a_reader_on_the_websockets_library_of_python_gets_what_it_asked_for_and_nothing_else() {
    if require(Tool::Python) {
        a_reader_gets_what_it_asked_for(python, "selective.py");
    }
}

#[test]
fn tags_of_a_durable_room_are_kept_over_a_kill_and_a_filter_recovers_by_them() {
    let data = tempfile::tempdir().unwrap();
    let data_dir = data.path().to_str().unwrap();
    let mut server = Server::start(&["--set", &secret(), "--data-dir", data_dir]);
    let mut ann = Client::open_as(&server, "ann");
    let room = "chat:guild/1";
    let command = json!({"type": "subscribe", "room": room, "filter": filter()});
    let first = ann.call_for("subscribed", command.clone());
    for (n, lang) in (1..=6).zip(["en", "de", "en", "en", "de", "en"]) {
        let publish = json!({"type": "publish", "room": room, "data": n, "tags": {"lang": lang}});
        assert_eq!(ann.call_for("ack", publish)["level"], "durable");
    }
    server.kill();
    server.restart();
    let mut ann = Client::open_as(&server, "ann");
    let mut again = command;
    again["since"] = json!({"epoch": first["epoch"], "offset": 0});
    let back = ann.call_for("subscribed", again);
    assert_eq!(
        (&back["recovered"], &back["offset"], &back["more"]),
        (&json!(true), &json!(6), &json!(false))
    );
    let messages = back["messages"].as_array().unwrap();
    assert_eq!(told(messages), [(&json!(2), &json!(0)), (&json!(5), &json!(2))]);
    assert_eq!(messages[0]["tags"], json!({"lang": "de"}));
    // Whoever asks for all gets all, those without tags as they were.
    let mut bob = Client::open_as(&server, "bob");
    let all = bob.subscribe_since(room, &first["epoch"], 0);
    assert_eq!(all["messages"].as_array().unwrap().len(), 6);
    assert!(all["messages"][0].get("previous").is_none());
}

#[test]
fn a_backend_reaches_a_user_in_the_room_of_its_own_with_tags() {
    if !has(Part::ServerApi) {
        return;
    }
    let key = format!("api.keys.backend.key={KEY}");
    let server = Server::start(&["--set", &secret(), "--set", &key]);
    let (mut ann, mut bob) = (Client::open_as(&server, "ann"), Client::open_as(&server, "bob"));
    assert_eq!(ann.hello["rooms"], json!(["user:ann"]));
    let body =
        json!({"room": "user:ann", "data": {"text": "you have mail"}, "tags": {"kind": "mail"}});
    let authorization = format!("Bearer {KEY}");
    let publish = |body: &Value| {
        let headers = [("Authorization", authorization.as_str())];
        ask(server.addr(), "POST", "/api/v1/publish", &headers, &body.to_string()).json()
    };
    assert_eq!(publish(&body)["offset"], 1);
    let message = ann.expect("message");
    assert_eq!((&message["room"], &message["offset"]), (&json!("user:ann"), &json!(1)));
    assert_eq!(message["tags"], json!({"kind": "mail"}));
    let refused = publish(&json!({"room": "user:ann", "data": 1, "tags": {"kind": 1}}));
    assert_eq!((&refused["code"], &refused["field"]), (&json!(102), &json!("tags")));
    // Nobody else, and not in a list of what one has joined twice.
    let status = bob.call_for("status", json!({"type": "status"}));
    assert_eq!(status["rooms"], json!(["user:bob"]));
    let not_his = bob.call(json!({"type": "subscribe", "room": "user:ann"}));
    assert_eq!(not_his["code"], 103);
}

#[test]
fn who_may_read_one_guild_follows_no_pattern_over_all() {
    let server = Server::start(&["--set", &secret(), "--set", "namespaces.chat.patterns=true"]);
    let token = token::hs256(token::SECRET, &token::claims("ann", "chat:guild/1*"));
    let mut ann = Client::open_at(server.addr(), &format!("{PATH}?token={token}"));
    let follow = |pattern: &str| json!({"type": "subscribe", "pattern": pattern});
    let denied = ann.call(follow("chat:guild/*"));
    assert_eq!((&denied["code"], &denied["field"]), (&json!(103), &json!("pattern")));
    ann.call_for("subscribed", follow("chat:guild/1*"));
    // Not offered in this namespace.
    assert_eq!(ann.call(follow("public:*"))["code"], 103);
}
