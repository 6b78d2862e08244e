//! What a backend does over HTTP: messages to many, to a user, in a batch; who is where; what was
//! said; whom it sends away. And what each key may not do.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};
use tests::foreign::{Tool, node, python, require};
use tests::server::Server;
use tests::skips::has_tool;
use tests::token::{SECRET, claims, hs256};

use crate::client::{Client, PATH, secret, until};
use crate::http::{Answer, ask};

/// One key for each scope, named after it, one with all, one with none, and one that is limited to
/// some rooms.
pub(crate) const SCOPES: [&str; 8] =
    ["publish", "presence", "history", "rooms", "connections", "disconnect", "revoke", "matches"];

/// The key of this name.
pub(crate) fn key(name: &str) -> String {
    format!("k7Qp2vXz9LmN4rTs8WbYc3Df6GhJ5KaE-{name}")
}

/// A server with those keys.
pub(crate) fn server(more: &[&str]) -> Server {
    let mut settings = vec![secret()];
    for name in SCOPES.iter().chain(&["all", "none", "limited"]) {
        settings.push(format!("api.keys.{name}.key={}", key(name)));
    }
    for name in SCOPES {
        settings.push(format!("api.keys.{name}.scopes={name}"));
    }
    settings.push(format!("api.keys.all.scopes={}", SCOPES.join(",")));
    settings.push("api.keys.none.scopes=".to_owned());
    settings.push(format!("api.keys.limited.scopes={}", SCOPES[..5].join(",")));
    settings.push("api.keys.limited.rooms=chat:guild/*,public:one".to_owned());
    let mut arguments: Vec<&str> = settings.iter().flat_map(|set| ["--set", set]).collect();
    arguments.extend(more);
    Server::start(&arguments)
}

pub(crate) fn by(server: &Server, name: &str, method: &str, path: &str, body: &str) -> Answer {
    let authorization = format!("Bearer {}", key(name));
    let mut headers = vec![("Authorization", authorization.as_str())];
    if method == "POST" {
        headers.push(("Content-Type", "application/json"));
    }
    ask(server.addr(), method, path, &headers, body)
}

fn post(server: &Server, path: &str, body: &Value) -> Value {
    let answer = by(server, "all", "POST", path, &body.to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn get(server: &Server, path: &str) -> Value {
    let answer = by(server, "all", "GET", path, "");
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}

fn of_user(server: &Server, user: &str) -> Client {
    Client::open_as(server, user)
}

#[test]
fn one_publish_reaches_many_rooms_and_says_what_became_of_it_in_each() {
    let server = server(&[]);
    let mut member = Client::open(&server);
    member.subscribe("public:a");
    member.subscribe("public:b");
    let rooms = json!(["public:b", "nowhere:x", "public:a"]);
    let body = json!({"rooms": rooms, "data": {"n": 1}, "msg_id": "m-1"});
    let first = post(&server, "/api/v1/publish", &body);
    let results = first["results"].as_array().unwrap();
    let told: Vec<_> =
        results.iter().map(|r| (&r["room"], &r["offset"], &r["error"]["code"])).collect();
    assert_eq!(
        told,
        [
            (&json!("public:b"), &json!(1), &Value::Null),
            (&json!("nowhere:x"), &Value::Null, &json!(104)),
            (&json!("public:a"), &json!(1), &Value::Null),
        ]
    );
    assert_eq!(first["failed"], 1);
    let got: Vec<_> = member.messages(2).iter().map(|m| m["room"].clone()).collect();
    assert_eq!(got, [json!("public:b"), json!("public:a")]);
    // The id is one of each room.
    let again = post(&server, "/api/v1/publish", &body);
    assert!(again["results"][0]["duplicate"] == true && again["results"][2]["duplicate"] == true);
    let too_many: Vec<_> = (0..101).map(|n| format!("public:{n}")).collect();
    let body = json!({"rooms": too_many, "data": 1}).to_string();
    let refused = by(&server, "all", "POST", "/api/v1/publish", &body);
    assert_eq!((refused.status, &refused.json()["field"]), (413, &json!("rooms")));
}

#[test]
fn a_batch_is_published_in_order_and_one_message_that_fails_keeps_no_other_back() {
    let server = server(&[]);
    let mut member = Client::open(&server);
    member.subscribe("public:a");
    let body = json!({"publishes": [
        {"room": "public:a", "data": 1},
        {"room": "public:a", "data": 2, "colour": "red"},
        {"room": "nowhere:x", "data": 3},
        {"room": "public:a", "data": 4, "msg_id": "own"},
        {"room": "public:a", "data": 5, "tags": {"lang": "de"}},
        7,
    ]});
    let authorization = format!("Bearer {}", key("all"));
    let headers = [("Authorization", authorization.as_str()), ("Idempotency-Key", "batch-1")];
    let send = || ask(server.addr(), "POST", "/api/v1/batch", &headers, &body.to_string()).json();
    let first = send();
    let results = first["results"].as_array().unwrap();
    let told: Vec<_> = results
        .iter()
        .map(|r| (r["offset"].as_u64(), r["error"]["code"].as_u64(), r["error"]["field"].as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (Some(1), None, None),
            (None, Some(102), Some("colour")),
            (None, Some(104), Some("room")),
            (Some(2), None, None),
            (Some(3), None, None),
            (None, Some(100), None),
        ]
    );
    assert_eq!(first["failed"], 3);
    let again = send();
    for place in [0, 3, 4] {
        assert_eq!(again["results"][place]["duplicate"], true, "{again}");
        assert_eq!(again["results"][place]["offset"], results[place]["offset"]);
    }
    let data: Vec<_> = member.messages(3).iter().map(|m| m["data"].clone()).collect();
    assert_eq!(data, [json!(1), json!(4), json!(5)]);
    assert_eq!(member.log("public:a", 10).len(), 3);
    // A message's own id is its own in another batch, too.
    let own = json!({"publishes": [{"room": "public:a", "data": 4, "msg_id": "own"}]});
    assert_eq!(post(&server, "/api/v1/batch", &own)["results"][0]["duplicate"], true);
}

#[test]
fn what_is_sent_to_a_user_reaches_all_of_its_connections_and_says_how_many_there_are() {
    let server = server(&[]);
    let (mut tab, mut phone) = (of_user(&server, "ann"), of_user(&server, "ann"));
    let mut bob = of_user(&server, "bob");
    let sent = post(&server, "/api/v1/send", &json!({"user_id": "ann", "data": "for-ann-alone"}));
    assert_eq!((&sent["room"], &sent["connections"]), (&json!("user:ann"), &json!(2)));
    for client in [&mut tab, &mut phone] {
        assert_eq!(client.messages(1)[0]["data"], "for-ann-alone");
    }
    let sent = post(&server, "/api/v1/send", &json!({"user_id": "zoe", "data": "for-zoe-alone"}));
    assert_eq!(sent["connections"], 0);
    post(&server, "/api/v1/send", &json!({"user_id": "bob", "data": "for-bob"}));
    assert_eq!(bob.messages(1)[0]["data"], "for-bob", "and nothing of the others before it");
    let refused = by(&server, "all", "POST", "/api/v1/send", r#"{"user_id":"a*b","data":1}"#);
    assert_eq!((refused.status, &refused.json()["field"]), (400, &json!("user_id")));
}

#[test]
fn presence_and_history_are_told_as_to_a_member() {
    let server = server(&["--set", "namespaces.public.history_messages_max=3"]);
    let mut member = Client::open(&server);
    member.subscribe("public:a");
    member.call_for(
        "presence_updated",
        json!({"type": "presence_update", "room": "public:a", "data": {"mood": "fine"}}),
    );
    let presence = get(&server, "/api/v1/presence?room=public%3Aa");
    assert_eq!(
        (&presence["total"], &presence["members"][0]["data"]["mood"]),
        (&json!(1), &json!("fine"))
    );
    let listed = by(&server, "all", "GET", "/api/v1/presence?room=user:ann", "");
    assert_eq!((listed.status, &listed.json()["code"]), (404, &json!(115)));

    for n in 1..=5 {
        member.publish("public:a", n);
    }
    let own = member.call_for("history", json!({"type": "history", "room": "public:a"}));
    let page = get(&server, "/api/v1/history?room=public:a&limit=2");
    assert_eq!(page["messages"].as_array().unwrap()[..], own["messages"].as_array().unwrap()[..2]);
    assert_eq!(
        (&page["offset"], &page["more"], &page["gap"]),
        (&json!(4), &json!(true), &Value::Null)
    );
    let epoch = page["epoch"].as_str().unwrap();
    let from = |offset: u64| format!("/api/v1/history?room=public:a&epoch={epoch}&offset={offset}");
    let rest = get(&server, &from(4));
    assert_eq!((&rest["messages"][0]["offset"], &rest["more"]), (&json!(5), &json!(false)));
    // What is not kept any more is named.
    let late = get(&server, &from(1));
    assert_eq!(late["gap"], json!({"from": 2, "to": 2, "reason": "retention"}));
    for ahead in [from(6), "/api/v1/history?room=public:a&epoch=other&offset=1".to_owned()] {
        let refused = by(&server, "all", "GET", &ahead, "");
        let error = refused.json();
        assert_eq!((refused.status, &error["code"]), (400, &json!(110)), "{ahead}");
        assert_eq!(error["field"], "epoch");
    }
}

fn pages(server: &Server, path: &str, list: &str) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = get(server, &format!("{path}{after}"));
        all.extend(page[list].as_array().unwrap().iter().cloned());
        let Some(next) = page["next"].as_str() else { return all };
        after = format!("&after={next}");
    }
}

#[test]
fn rooms_and_connections_of_all_workers_are_listed_page_by_page() {
    let server = server(&["--set", "server.workers=3"]);
    let mut clients: Vec<_> = (0..5).map(|_| of_user(&server, "ann")).collect();
    clients.push(of_user(&server, "bob"));
    for (n, client) in clients.iter_mut().enumerate() {
        client.subscribe("chat:all");
        for k in 0..4 {
            client.subscribe(&format!("chat:{n}/{k}"));
        }
    }
    clients[0].publish("chat:all", "position");
    let rooms = pages(&server, "/api/v1/rooms?prefix=chat:&limit=4", "rooms");
    let names: Vec<_> = rooms.iter().map(|room| room["room"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 25);
    assert!(names.is_sorted(), "{names:?}");
    let all = rooms.last().unwrap();
    assert_eq!((&all["members"], &all["offset"]), (&json!(6), &json!(1)));
    assert_eq!(pages(&server, "/api/v1/rooms?prefix=chat:3/&limit=100", "rooms").len(), 4);

    let ids = |of: &str| {
        let path = format!("/api/v1/connections?limit=2{of}");
        let listed = pages(&server, &path, "connections");
        let ids = listed.iter().map(|c| c["connection_id"].as_str().unwrap().to_owned());
        let mut ids: Vec<_> = ids.collect();
        ids.sort();
        ids
    };
    let mut hellos: Vec<_> =
        clients.iter().map(|c| c.hello["connection_id"].as_str().unwrap().to_owned()).collect();
    let bob = hellos[5].clone();
    hellos.sort();
    assert_eq!(ids(""), hellos);
    assert_eq!(ids("&user_id=bob"), std::slice::from_ref(&bob));
    assert_eq!(ids("&room=chat:5/1"), std::slice::from_ref(&bob));
    // Everybody is in the room of its own.
    assert_eq!(ids("&room=user:ann").len(), 5);
    let listed = get(&server, "/api/v1/connections?user_id=bob");
    let here = &listed["connections"][0];
    assert_eq!((&here["user_id"], &here["rooms"]), (&json!("bob"), &json!(6)));
    let since = clients[5].call_for("status", json!({"type": "status"}))["connected_since"].clone();
    assert_eq!(here["connected_since"], since);
}

#[test]
fn a_user_or_a_connection_is_sent_away_with_the_code_that_was_asked_for() {
    let server = server(&["--set", "server.workers=2"]);
    let mut anns: Vec<_> = (0..3).map(|_| of_user(&server, "ann")).collect();
    let mut bob = of_user(&server, "bob");
    let mut one = anns.pop().unwrap();
    let id = one.hello["connection_id"].clone();
    let ended = post(&server, "/api/v1/disconnect", &json!({"connection_id": id, "code": 3006}));
    assert_eq!(
        ended,
        json!({"disconnected": 1, "code": 3006, "reconnect": true, "incomplete": false, "missing": []})
    );
    let again = post(&server, "/api/v1/disconnect", &json!({"connection_id": id}));
    assert_eq!(again["disconnected"], 0);
    assert_eq!(one.until_closed().1, 3006);
    let body = json!({"user_id": "ann", "reconnect": false});
    let ended = post(&server, "/api/v1/disconnect", &body);
    assert_eq!(
        ended,
        json!({"disconnected": 2, "code": 3501, "reconnect": false, "incomplete": false, "missing": []})
    );
    for ann in &mut anns {
        let (values, code) = ann.until_closed();
        assert_eq!((code, &values.last().unwrap()["reconnect"]), (3501, &json!(false)));
    }
    bob.call_for("pong", json!({"type": "ping"}));
    // Nobody is kept from coming back by it.
    of_user(&server, "ann");
    until("the order is in the log", || {
        let log = server.log();
        (log.contains("disconnect_ordered") && log.contains("3501")).then_some(())
    });
}

#[test]
fn a_key_that_is_limited_to_rooms_reaches_no_other_by_any_way() {
    let server = server(&[]);
    let limited = |method: &str, path: &str, body: &str| by(&server, "limited", method, path, body);
    for (method, path, body) in [
        ("POST", "/api/v1/publish", r#"{"room":"chat:guild/7","data":1}"#),
        ("POST", "/api/v1/publish", r#"{"rooms":["chat:guild/7","public:one"],"data":1}"#),
        ("GET", "/api/v1/presence?room=public:one", ""),
        ("GET", "/api/v1/history?room=chat:guild/7", ""),
        ("GET", "/api/v1/rooms?prefix=chat:guild/", ""),
        ("GET", "/api/v1/connections?room=chat:guild/7", ""),
    ] {
        assert_eq!(limited(method, path, body).status, 200, "{path} {body}");
    }
    for (method, path, body) in [
        ("POST", "/api/v1/publish", r#"{"room":"chat:guild","data":1}"#),
        ("POST", "/api/v1/publish", r#"{"rooms":["chat:guild/7","public:two"],"data":1}"#),
        ("POST", "/api/v1/publish", r#"{"room":"nowhere:x","data":1}"#),
        ("POST", "/api/v1/send", r#"{"user_id":"ann","data":1}"#),
        ("GET", "/api/v1/presence?room=public:two", ""),
        ("GET", "/api/v1/history?room=public:one/more", ""),
        ("GET", "/api/v1/rooms", ""),
        ("GET", "/api/v1/rooms?prefix=chat:", ""),
        ("GET", "/api/v1/rooms?prefix=public:one", ""),
        ("GET", "/api/v1/connections", ""),
        ("GET", "/api/v1/connections?user_id=ann", ""),
        ("GET", "/api/v1/connections?room=public:two", ""),
    ] {
        let refused = limited(method, path, body);
        assert_eq!((refused.status, &refused.json()["code"]), (403, &json!(103)), "{path} {body}");
    }
    // Nothing of the refused list was published; of a batch each message is judged alone.
    let batch = r#"{"publishes":[{"room":"public:two","data":1},{"room":"public:one","data":2}]}"#;
    let results = limited("POST", "/api/v1/batch", batch).json();
    assert_eq!(results["results"][0]["error"]["code"], 103);
    assert_eq!(results["results"][1]["room"], "public:one");
    assert!(Client::open(&server).log("public:two", 10).is_empty());
}

#[test]
fn what_guards_should_know_of_keys_is_in_the_security_log() {
    let server = server(&[]);
    let refused = by(&server, "history", "POST", "/api/v1/revoke", "{}");
    let error = refused.json();
    assert_eq!((refused.status, &error["code"]), (403, &json!(103)));
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("scope revoke") && message.contains("api.keys.history.scopes"),
        "{message}"
    );
    assert!(refused.head.to_ascii_lowercase().contains(r#"scope="revoke""#), "{}", refused.head);
    let line = until("the refusal is in the log", || {
        let log = server.log();
        log.lines().find(|line| line.contains("api_not_allowed")).map(str::to_owned)
    });
    for part in ["history", "revoke"] {
        assert!(line.contains(part), "{line}");
    }
    let metrics = crate::http::get(server.addr(), "/metrics").body;
    assert!(metrics.contains("roomkeeper_security_events_total{event=\"api_not_allowed\"} 1"));
}

/// R10: a query of thousands of parameters.
#[test]
fn a_wrong_request_is_told_what_is_wrong_and_how_it_is_done() {
    let server = server(&[]);
    let authorization = format!("Bearer {}", key("all"));
    let asked = |method: &str, path: &str, kind: &str, body: &str| {
        let headers = [("Authorization", authorization.as_str()), ("Content-Type", kind)];
        ask(server.addr(), method, path, &headers, body)
    };
    let body = r#"{"room":"public:a","data":1}"#;
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
        let refused = asked("POST", "/api/v1/publish", kind, body);
        assert_eq!(refused.status, 415, "{kind}");
        assert!(refused.json()["message"].as_str().unwrap().contains("application/json"));
    }
    for kind in ["application/json", "Application/JSON; charset=utf-8"] {
        assert_eq!(asked("POST", "/api/v1/publish", kind, body).status, 200, "{kind}");
    }
    for (method, path, allowed) in [
        ("GET", "/api/v1/publish", "POST"),
        ("DELETE", "/api/v1/rooms", "GET,HEAD"),
        ("PUT", "/api/v1/openapi.json", "GET,HEAD"),
    ] {
        let refused = asked(method, path, "application/json", "");
        assert_eq!(refused.status, 405, "{path}");
        let head = refused.head.to_ascii_lowercase();
        assert!(head.contains(&format!("allow: {}\r\n", allowed.to_ascii_lowercase())), "{head}");
        assert_eq!(refused.json()["code"], 100);
    }
    let nothing = asked("GET", "/api/v1/nothing", "application/json", "");
    assert_eq!(nothing.status, 404);
    assert!(nothing.json()["message"].as_str().unwrap().contains("/api/v1/openapi.json"));
    let many = format!("/api/v1/rooms?{}", "x=1&".repeat(3_000));
    let refused = asked("GET", &many, "application/json", "");
    assert_eq!((refused.status, &refused.json()["field"]), (400, &json!("x")));
}

/// J10: lists of the server API.
#[test]
fn a_batch_and_the_rooms_of_one_publish_may_be_a_hundred_and_no_more() {
    let server = server(&[]);
    for (count, status) in [(99, 200), (100, 200), (101, 413)] {
        let batch = vec![json!({"room": "public:a", "data": 1}); count];
        let rooms: Vec<_> = (0..count).map(|n| format!("public:{n}")).collect();
        let batch = json!({ "publishes": batch }).to_string();
        let publish = json!({"rooms": rooms, "data": 1}).to_string();
        for (path, body) in [("/api/v1/batch", batch), ("/api/v1/publish", publish)] {
            let answer = by(&server, "all", "POST", path, &body);
            assert_eq!(answer.status, status, "{path} with {count}: {answer:?}");
        }
    }
}

#[test]
fn a_key_that_goes_on_too_fast_is_told_when_to_come_back_and_another_is_not() {
    let server =
        server(&["--set", "api.operations_per_second=1", "--set", "api.operations_burst=3"]);
    let batch: Vec<_> = (0..10).map(|n| json!({"room": "public:a", "data": n})).collect();
    let body = json!({"publishes": batch}).to_string();
    // A large one is taken whole, and waited for by what comes behind it.
    assert_eq!(by(&server, "all", "POST", "/api/v1/batch", &body).status, 200);
    let refused = by(&server, "all", "GET", "/api/v1/rooms", "");
    assert_eq!((refused.status, &refused.json()["code"]), (429, &json!(108)));
    let wait = refused.json()["retry_after_ms"].as_u64().unwrap();
    assert!((5_000..=8_000).contains(&wait), "{wait}");
    assert!(refused.head.to_ascii_lowercase().contains("retry-after: "), "{}", refused.head);
    assert_eq!(by(&server, "rooms", "GET", "/api/v1/rooms", "").status, 200);
}

/// The commands of the document, as somebody would type them.
#[test]
fn the_examples_of_the_document_do_what_the_document_says() {
    if !has_tool("curl", "--version") {
        return;
    }
    let server = server(&[]);
    let token = hs256(SECRET, &claims("ada", "public:*"));
    let path = format!("{PATH}?token={token}&client_id=tab-1");
    let mut ada = Client::open_at(server.addr(), &path);
    ada.subscribe("public:lobby");
    let document = include_str!("../../docs/server-api.md");
    let mut examples = BTreeMap::new();
    for block in document.split("```\n$ ").skip(1) {
        let block = block.split("\n```").next().unwrap();
        let (command, wanted) = block.rsplit_once('\n').unwrap();
        let wanted: Value =
            serde_json::from_str(wanted).unwrap_or_else(|e| panic!("{e}: {wanted}"));
        let command = command.replace("http://127.0.0.1:8000", &server.http(""));
        let run = Command::new("sh")
            .args(["-c", &command])
            .env("KEY", key("all"))
            .output()
            .expect("a shell");
        let answer = String::from_utf8(run.stdout).unwrap();
        let answer: Value =
            serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{e}: {command}\n{answer}"));
        assert_eq!(shape(&answer), shape(&wanted), "{command}\n{answer}");
        examples.insert(command.split('?').next().unwrap().to_owned(), ());
    }
    assert!(examples.len() >= 9, "{examples:?}");
}

/// What an answer looks like: its names, and what of its values is not of one moment.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            members.iter().map(|(name, member)| (name.clone(), shape(member))).collect()
        }
        Value::Array(items) => items.iter().map(shape).collect(),
        Value::String(text) if text.len() == 16 || text.ends_with('Z') => json!("…"),
        Value::Number(_) => json!(0),
        other => other.clone(),
    }
}

#[test]
fn node_and_python_use_the_whole_api_over_one_connection_kept_alive() {
    let server = server(&[]);
    let (url, all) = (server.http(""), key("all"));
    if require(Tool::Node) {
        let said = node("server_api.mjs", &[&url, &all]);
        assert!(said.contains("done"), "{said}");
    }
    if require(Tool::Python) {
        let said = python("server_api.py", &[&url, &all]);
        assert!(said.contains("done"), "{said}");
    }
}
