//! Who may do what, row by row: every command of the protocol and every route has a row here, and
//! a command or a route without one fails.
//!
//! What is compared with the rows is read from the sources, so that nothing can be added past it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tests::hosts::{Part, has};
use tests::raw::RawSocket;
use tests::server::Server;
use tests::token::{SECRET, claims, hs256};

use crate::client::{Client, PATH, secret};
use crate::http::ask;

const KEY: &str = "k7Qp2vXz9LmN4rTs8WbYc3Df6GhJ5KaE";
const NO_NOBODY: &str = "auth.allow_anonymous=false";

/// What a command needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Needs {
    /// This right in the room it names.
    Right(&'static str),
    /// To be known: nothing else of anybody's can be reached by it.
    Greeting,
    /// Nothing: it is how one becomes known, or a sign of life.
    Nothing,
}

/// Every command, what it needs, and the answer that says that it was carried out.
const COMMANDS: &[(&str, Needs, &str)] = &[
    ("connect", Needs::Nothing, "hello"),
    ("history", Needs::Right("history"), "history"),
    ("ping", Needs::Nothing, "pong"),
    ("pong", Needs::Nothing, ""),
    ("presence", Needs::Right("presence"), "presence"),
    ("presence_update", Needs::Right("presence"), "presence_updated"),
    ("publish", Needs::Right("publish"), "ack"),
    // The right is the fresh token itself.
    ("refresh", Needs::Greeting, "refreshed"),
    ("status", Needs::Greeting, "status"),
    ("subscribe", Needs::Right("subscribe"), "subscribed"),
    // Only ever of the connection's own memberships.
    ("unsubscribe", Needs::Greeting, "unsubscribed"),
];

/// The routes that are for everyone: they tell nothing, or ask for themselves. Those of the server
/// API are for holders of a key with the scope that the API's document names; `openapi.rs` asks each of
/// them with every scope.
const FOR_EVERYONE: &[&str] = &[
    "/healthz",
    "/readyz",
    // For key holders in production; with an address of its own it is not there at all. Tests of
    // its own are about that.
    "/metrics",
    "/api/v1/websocket/health",
    "/api/v1/websocket/metrics",
    // What one may do there is what the rows above are about.
    "/ws/v2/connect",
    // Views of the same rooms; `document_001.rs` and `document_004.rs` have who gets in.
    "/ws",
    "/ws/game",
    "/ws/chat",
    "/ws/combat",
    "/ws/world",
    "/ws/games/{match_id}",
    // Without rooms; `document_003.rs` has who gets in and what it may not do there.
    "/ws/client",
    // Off in production, and reaches nobody but oneself.
    "/ws/{client_id}",
];

/// Where the table of the server API's routes stands, and what it is made into.
const API: &str = "adapters/gateway_axum/src/api.rs";
const API_DOCUMENT: &str = "docs/openapi.json";
/// How the one call reads that makes routes of the table.
const OF_THE_TABLE: &str = "route.path,";

fn source(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    fs::read_to_string(root.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The words that begin an arm of a `match` and are texts, in one function.
fn arms(source: &str, function: &str) -> BTreeSet<String> {
    let body = source.split(&format!("fn {function}")).nth(1).expect("the function is there");
    let body = body.split("\n}\n").next().unwrap();
    let arm = |line: &str| {
        let line = line.trim();
        let word = line.strip_prefix('"')?.split_once('"')?;
        word.1.trim_start().starts_with("=>").then(|| word.0.to_owned())
    };
    body.lines().filter_map(arm).collect()
}

/// The paths in calls of `.route(…)`, each a text. One call makes routes of the server API's table.
fn routes(source: &str, is_table: bool) -> BTreeSet<String> {
    let code = source.split("#[cfg(test)]").next().unwrap();
    let calls = code.split(".route(").skip(1).map(str::trim_start);
    let calls = calls.filter(|call| !(is_table && call.starts_with(OF_THE_TABLE)));
    let path = |call: &str| {
        let path = call.strip_prefix('"').and_then(|rest| rest.split('"').next());
        path.unwrap_or_else(|| panic!("a path that can't be read from the source")).to_owned()
    };
    calls.map(path).collect()
}

/// The paths of the API's table.
fn table(source: &str) -> BTreeSet<String> {
    let rows = source.lines().filter_map(|line| line.trim().strip_prefix("path: \""));
    rows.map(|row| row.trim_end_matches("\",").to_owned()).collect()
}

fn as_set<'a>(words: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    words.map(str::to_owned).collect()
}

#[test]
fn every_command_has_a_row() {
    let known = arms(&source("domain/src/protocol/decode.rs"), "decode_command");
    assert!(known.len() > 5, "the commands were not found: {known:?}");
    let rows = as_set(COMMANDS.iter().map(|(command, ..)| *command));
    assert_eq!(known, rows, "give each command its row in COMMANDS, with the right it needs");
}

#[test]
fn every_route_has_a_row() {
    let folder = "adapters/gateway_axum/src";
    let mut known = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(&folder);
        for file in fs::read_dir(root).unwrap() {
            let file = file.unwrap();
            let path = format!("{folder}/{}", file.file_name().into_string().unwrap());
            if file.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if path.ends_with(".rs") {
                let text = source(&path);
                known.extend(routes(&text, path == API));
                for other_way in
                    [".route_service(", ".nest(", ".nest_service(", ".fallback_service("]
                {
                    let code = text.split("#[cfg(test)]").next().unwrap();
                    assert!(
                        !code.contains(other_way),
                        "{path}: {other_way} hides routes from this test"
                    );
                }
            }
        }
    }
    assert!(known.len() > 3, "the routes were not found: {known:?}");
    let rows = as_set(FOR_EVERYONE.iter().copied());
    assert_eq!(known, rows, "give each route its row: in FOR_EVERYONE, or in the API's table");
}

#[test]
fn every_route_of_the_api_is_in_its_document_with_the_scope_it_needs() {
    let document: Value = serde_json::from_str(&source(API_DOCUMENT)).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let known = table(&source(API));
    assert!(known.len() > 5, "the table was not found: {known:?}");
    assert_eq!(
        known,
        paths.keys().cloned().collect(),
        "run UPDATE_DOCS=1 cargo test -p gateway_axum"
    );
    let operations = paths.values().flat_map(|item| item.as_object().unwrap().values());
    let without: Vec<_> = operations
        .filter(|operation| operation["security"][0]["apiKey"] == json!([]))
        .map(|operation| operation["operationId"].as_str().unwrap())
        .collect();
    assert_eq!(without, ["describe"]);
}

#[test]
fn a_command_or_a_route_without_a_row_would_be_seen() {
    let code = "fn decode_command() {\n    match x {\n        \"a\" => 1,\n        \"b\" => 2,\n        \
                _ => \"c\",\n    }\n}\n";
    assert_eq!(arms(code, "decode_command"), as_set(["a", "b"].into_iter()));
    let code =
        "r.route(\"/a\", get(a))\n  .route(\n    \"/b/{c}\", x)\n#[cfg(test)] .route(\"/d\")";
    assert_eq!(routes(code, false), as_set(["/a", "/b/{c}"].into_iter()));
    let code = "for route in &ROUTES { r.route(route.path, on(m, h)); }";
    assert!(routes(code, true).is_empty());
    assert!(std::panic::catch_unwind(|| routes(code, false)).is_err());
    assert_eq!(table("    path: \"/x\",\n"), as_set(["/x"].into_iter()));
}

fn command(kind: &str, room: &str) -> Value {
    let mut command = json!({"type": kind});
    if !["connect", "ping", "pong", "refresh", "status"].contains(&kind) {
        command["room"] = json!(room);
    }
    match kind {
        "publish" | "presence_update" => command["data"] = json!({"n": 1}),
        "refresh" => command["token"] = json!(token("ann", &["subscribe"])),
        _ => {}
    }
    command
}

fn token(user: &str, allow: &[&str]) -> String {
    let mut claims = claims(user, "chat:*");
    claims["rooms"][0]["allow"] = json!(allow);
    hs256(SECRET, &claims)
}

fn client(server: &Server, allow: &[&str]) -> Client {
    let path = format!("{PATH}?token={}", token("ann", allow));
    Client::open_at(server.addr(), &path)
}

const ALL: [&str; 4] = ["subscribe", "publish", "presence", "history"];

#[test]
fn each_command_is_refused_without_its_right_and_carried_out_with_it_alone() {
    let server = Server::start(&["--set", &secret()]);
    for (kind, needs, answer) in COMMANDS {
        let Needs::Right(right) = needs else { continue };
        let others = ALL.into_iter().filter(|other| other != right).collect::<Vec<_>>();
        let mut without = client(&server, &others);
        let mut with = client(&server, &[right]);
        if *kind == "presence_update" {
            // Of members only: they need a second right to become one.
            with = client(&server, &["subscribe", right]);
            for client in [&mut without, &mut with] {
                client.subscribe("chat:room");
            }
        }
        let refused = without.call(command(kind, "chat:room"));
        assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!(103)), "{kind}");
        with.call_for(answer, command(kind, "chat:room"));
        // With all rights in other rooms, none in this one.
        let elsewhere = with.call(command(kind, "game:room-of-others"));
        let code = if *kind == "presence_update" { 105 } else { 103 };
        let open = matches!(*kind, "subscribe" | "history");
        assert!(open || elsewhere["code"] == code, "{kind}: {elsewhere}");
    }
}

#[test]
fn coming_back_takes_the_right_of_each_room_as_a_subscribe_does() {
    let server = Server::start(&["--set", &secret()]);
    let session = client(&server, &["subscribe"]).hello["session"].clone();
    let room = |room: &str, presence: bool| json!({"room": room, "epoch": "0000000000000001", "offset": 1, "presence": presence});
    let resume = [room("chat:a", false), room("world:a", false), room("chat:b", true)];
    let mut socket = RawSocket::open(server.addr(), PATH);
    socket.expect_json("hello");
    socket.send_json(&json!({"type": "connect", "id": 1, "session": session, "resume": resume}));
    let hello = socket.expect_json("hello");
    let codes = hello["resumed"].as_array().unwrap().iter().map(|room| &room["error"]["code"]);
    assert_eq!(codes.collect::<Vec<_>>(), [&Value::Null, &json!(103), &json!(103)], "{hello}");
}

#[test]
fn before_it_is_known_who_somebody_is_nothing_is_carried_out() {
    let server = Server::start(&["--set", &secret(), "--set", NO_NOBODY]);
    for (kind, needs, answer) in COMMANDS {
        let mut socket = RawSocket::open(server.addr(), PATH);
        let mut command = command(kind, "public:lobby");
        command["id"] = json!(1);
        match (kind, needs) {
            (&"pong", _) => continue,
            (&"connect", _) => {
                // Without a token nobody becomes known by it.
                socket.send_json(&command);
                assert_eq!(socket.read_close_code(), 3500);
            }
            (_, Needs::Nothing) => {
                socket.send_json(&command);
                assert_eq!(socket.next_json()["type"], *answer);
            }
            (_, Needs::Right(_) | Needs::Greeting) => {
                socket.send_json(&command);
                let refused = socket.next_json();
                assert_eq!(refused["code"], 111, "{kind}: {refused}");
            }
        }
    }
}

/// A23
#[test]
fn a_room_that_exists_and_one_that_does_not_are_refused_with_the_same_bytes() {
    let server = Server::start(&["--set", &secret()]);
    let mut owner = Client::open_as(&server, "bob");
    owner.subscribe("chat:secret/plan");
    owner.publish("chat:secret/plan", "hidden");
    let mut claims = claims("eve", "chat:open/*");
    claims["rooms"].as_array_mut().unwrap().push(json!({"pattern": "chat:secre", "allow": ALL}));
    let path = format!("{PATH}?token={}", hs256(SECRET, &claims));
    let mut eve = Client::open_at(server.addr(), &path);
    let said = |eve: &mut Client, command: Value, room: &str| {
        let mut refused = eve.call(command);
        assert_eq!(refused["code"], 103, "{room}: {refused}");
        for field in ["id", "timestamp"] {
            refused[field] = Value::Null;
        }
        refused
    };
    for (kind, needs, _) in COMMANDS {
        let Needs::Right(_) = needs else { continue };
        if *kind == "presence_update" {
            continue;
        }
        let there = said(&mut eve, command(kind, "chat:secret/plan"), "there");
        for guess in
            ["chat:secret/plan2", "chat:secret/", "chat:secret", "chat:open", "chat:Secret/plan"]
        {
            assert_eq!(said(&mut eve, command(kind, guess), guess), there, "{kind} {guess}");
        }
    }
    // Names are ASCII, so none looks like another: a twin is no name at all.
    let twin = eve.call(command("subscribe", "chat:secret/pl\u{0430}n"));
    assert_eq!(twin["code"], 102);
}

/// A26
#[test]
fn a_token_for_one_tenant_opens_nothing_of_another() {
    let server = Server::start(&["--set", &secret()]);
    let path = format!("{PATH}?token={}", hs256(SECRET, &claims("ann", "chat:tenant-a/*")));
    let mut ann = Client::open_at(server.addr(), &path);
    ann.subscribe("chat:tenant-a/1");
    for (kind, needs, _) in COMMANDS {
        let Needs::Right(_) = needs else { continue };
        let refused = ann.call(command(kind, "chat:tenant-b/1"));
        let code = if *kind == "presence_update" { 105 } else { 103 };
        assert_eq!(refused["code"], code, "{kind}: {refused}");
    }
}

#[test]
fn a_users_token_and_a_key_that_is_almost_right_open_nothing_of_the_api() {
    if !has(Part::ServerApi) {
        return;
    }
    let key = format!("api.keys.backend.key={KEY}");
    let server = Server::start(&["--set", &secret(), "--set", &key]);
    let users = format!("Bearer {}", token("ann", &ALL));
    let almost = format!("Bearer {}", &KEY[1..]);
    for path in table(&source(API)) {
        for method in ["GET", "POST"] {
            let status =
                |headers: &[(&str, &str)]| ask(server.addr(), method, &path, headers, "{}").status;
            for authorization in [users.as_str(), &almost] {
                let refused = status(&[("Authorization", authorization)]);
                assert!([401, 405].contains(&refused), "{method} {path}: {refused}");
            }
            assert!([401, 405].contains(&status(&[])), "{method} {path}");
        }
    }
    for path in FOR_EVERYONE {
        let path = path.replace("{client_id}", "me").replace("{match_id}", "m1");
        let status = ask(server.addr(), "GET", &path, &[], "").status;
        assert!(![401, 403].contains(&status), "{path}: {status}");
    }
}
