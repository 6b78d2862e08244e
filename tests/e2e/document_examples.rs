//! Every example of `docs/protocol-documents.md`: what a client says there is said to a running server, as it stands
//! there, and taken; what the server says there is heard from it.
//!
//! An example that nobody says or hears must never pass: each section's examples belong to its scene, and each
//! of the server's to a message that was heard in that.

use serde_json::{Value, json};
use tests::raw::RawSocket;
use tests::server::Server;

use crate::client::{self, Client};
use crate::document_000_matches as matches;
use crate::speaker::{Speaker, bearer, rooms};

const DOCUMENT: &str = include_str!("../../docs/protocol-documents.md");

/// Says these of a section's examples and gives all that was heard.
type Scene = fn(&[&str]) -> Vec<Value>;

const SCENES: &[(&str, Scene)] = &[
    ("`/ws/client`", client),
    ("What the endpoints with rooms have in common", in_common),
    ("`/ws`", lobby),
    ("`/ws/game`", game),
    ("`/ws/chat`", chat),
    ("`/ws/games/{match_id}`", in_match),
    ("`/ws/combat` and `/ws/world`", without_rules),
];

/// Numbers that are others each time, and what finds a connection in the log.
const DIFFERS: [&str; 3] = ["uptime_ms", "missed", "request_id"];

#[derive(Debug)]
struct Example<'d> {
    section: &'d str,
    is_of_the_client: bool,
    text: &'d str,
}

/// The messages in the document's code, each with an arrow before it that tells who says it.
fn examples(document: &str) -> Vec<Example<'_>> {
    let (mut section, mut fenced, mut found) = ("", false, Vec::new());
    for line in document.lines() {
        section = line.strip_prefix("## ").unwrap_or(section);
        fenced ^= line.starts_with("```");
        let code: Vec<&str> =
            if fenced { vec![line] } else { line.split('`').skip(1).step_by(2).collect() };
        let is_example = |code: &&str| code.starts_with(['→', '←']) || code.contains(r#"{""#);
        for code in code.into_iter().filter(is_example) {
            let says = code.strip_prefix("→ ").map(|text| (true, text));
            let says = says.or_else(|| code.strip_prefix("← ").map(|text| (false, text)));
            let (is_of_the_client, text) = says.unwrap_or_else(|| panic!("who says {code}?"));
            found.push(Example { section, is_of_the_client, text });
        }
    }
    found
}

/// Whether it was heard as it is printed: the same fields with the same values. What is printed with `…` in it
/// may be any text, a time any time of its precision.
fn is_heard(printed: &Value, heard: &Value) -> bool {
    let digits_apart = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "0");
    match (printed, heard) {
        (Value::Object(printed), Value::Object(heard)) => {
            let same = |(key, value): (&String, &Value)| {
                heard.get(key).is_some_and(|told| match DIFFERS.contains(&&**key) {
                    true => {
                        value.is_number() == told.is_number()
                            && value.is_string() == told.is_string()
                    }
                    false => is_heard(value, told),
                })
            };
            printed.len() == heard.len() && printed.iter().all(same)
        }
        (Value::Array(printed), Value::Array(heard)) => {
            let mut pairs = printed.iter().zip(heard);
            printed.len() == heard.len() && pairs.all(|(printed, heard)| is_heard(printed, heard))
        }
        (Value::String(printed), Value::String(heard)) => {
            let is_time = printed.starts_with("20") && printed.ends_with('Z');
            let same_time = is_time && digits_apart(printed) == digits_apart(heard);
            printed.contains('…') || same_time || printed == heard
        }
        _ => printed == heard,
    }
}

/// The examples of the server that were not heard.
fn unheard<'d>(of_the_server: &[&'d str], heard: &[Value]) -> Vec<&'d str> {
    let was_not = |text: &&&str| {
        let printed: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
        !heard.iter().any(|heard| is_heard(&printed, heard))
    };
    of_the_server.iter().filter(was_not).copied().collect()
}

/// Somebody at an endpoint, with all that was heard there.
struct Listener {
    speaker: Speaker,
    heard: Vec<Value>,
}

impl Listener {
    fn at(server: &Server, path: &str) -> Self {
        let speaker = Speaker::greeted(RawSocket::open(server.addr(), path));
        let heard = vec![speaker.greeting.clone()];
        Self { speaker, heard }
    }

    /// With a token that calls the user by a name.
    fn named(server: &Server, path: &str, (user, name): (&str, &str), more: &Value) -> Self {
        let mut claims = more.clone();
        claims["name"] = json!(name);
        Self::at(server, &format!("{path}?token={}", bearer(user, &claims)))
    }

    fn ann(server: &Server, path: &str) -> Self {
        let more = json!({"roles": ["admin"]});
        Self::named(server, path, ("ann", "Ann"), &more)
    }

    fn bob(server: &Server, path: &str) -> Self {
        Self::named(server, path, ("bob", "Bob"), &rooms(&["chat:guild/42"]))
    }

    /// Hears on until there is one like this.
    fn until(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        loop {
            let heard: Value = serde_json::from_str(&self.speaker.hear()).unwrap();
            self.heard.push(heard.clone());
            if is_it(&heard) {
                return heard;
            }
        }
    }

    fn until_type(&mut self, kind: &str) -> Value {
        self.until(|heard| heard["type"] == kind)
    }

    /// Says it as it stands, and hears how it is answered: not at all with an error, or with this one alone.
    fn says(&mut self, message: &str, refused: Option<u64>) {
        let before = self.heard.len();
        self.speaker.say(message);
        // What is said behind it is answered behind it.
        self.speaker.say(r#"{"type":"ping","id":77}"#);
        self.until(|heard| heard["type"] == "pong" && heard["id"] == 77);
        let answers = self.heard[before..].iter();
        let errors: Vec<_> = answers.filter(|heard| heard["type"] == "error").collect();
        let codes: Vec<_> = errors.iter().filter_map(|error| error["code"].as_u64()).collect();
        assert_eq!(codes, Vec::from_iter(refused), "{message}: {errors:?}");
    }
}

fn client(said: &[&str]) -> Vec<Value> {
    const PATH: &str = "/ws/client?client_id=abc-123&version=1&role=frontend";
    let server = Server::start(&[]);
    let mut somebody = Listener::at(&server, PATH);
    said.iter().for_each(|message| somebody.says(message, None));
    // What its table names.
    for (message, answer) in [("ping", "pong"), ("status", "status"), ("roll", "error")] {
        somebody.speaker.say(&json!({"type": message}).to_string());
        somebody.until_type(answer);
    }
    somebody.heard.push(pinged(&["--set", "heartbeat.interval_ms=300"], PATH));
    somebody.heard
}

/// What a server that soon asks whether somebody is there asks.
fn pinged(settings: &[&str], path: &str) -> Value {
    Listener::at(&Server::start(settings), path).speaker.socket.expect_json("ping")
}

fn in_common(said: &[&str]) -> Vec<Value> {
    let server = matches::start(&[]);
    matches::make(&server, "m1", &["ann", "bob"], &json!({}));
    let mut all = Vec::new();
    for path in ["/ws", "/ws/game", "/ws/combat", "/ws/world", "/ws/games/m1", "/ws/chat"] {
        let mut ann = Listener::ann(&server, path);
        said.iter().for_each(|message| ann.says(message, None));
        for answer in ["pong", "status"] {
            assert!(ann.heard.iter().any(|heard| heard["type"] == answer), "{path}: {answer}");
        }
        all.append(&mut ann.heard);
    }
    let mut ann = Listener::ann(&server, "/ws/chat");
    ann.says(r#"{"type":"chat_message","content":"hi","id":3}"#, None);
    ann.says(r#"{"type":"chat_message"}"#, Some(102));
    let mut bob = Listener::bob(&server, "/ws/chat");
    ann.says(r#"{"type":"moderation","channel":"guild","guild_id":"42","action":"kick","user_id":"bob"}"#, None);
    bob.until_type("channel_left");
    let soon = json!({"exp": tests::token::now() + 30});
    let mut carl = Listener::named(&server, "/ws/chat", ("carl", "Carl"), &soon);
    carl.until_type("token_expiring");
    all.extend([ann.heard, bob.heard, carl.heard].concat());
    all.push(pinged(&["--set", "channels.heartbeat_interval_ms=1000"], "/ws/game"));
    all.push(gap());
    all
}

/// What somebody in a chat hears of a message that was too large for a server with little memory, in a room
/// that keeps no log.
fn gap() -> Value {
    let secret = client::secret();
    let settings = [
        &*secret,
        r#"rooms."chat:global".history_messages_max=0"#,
        // One worker's mail is a part of what all of them may have: 2 MiB.
        "server.workers=16",
        "server.memory_bytes_max=268435456",
    ];
    let server = Server::start(&settings.map(|set| ["--set", set]).concat());
    let mut ann = Listener::ann(&server, "/ws/chat");
    Client::open_as(&server, "bob").publish("chat:global", "x".repeat(3 << 20));
    ann.until_type("gap")
}

fn lobby(said: &[&str]) -> Vec<Value> {
    let server = matches::start(&[]);
    let mut ann = Listener::ann(&server, "/ws");
    // Alone, and with somebody who hears it.
    said.iter().for_each(|message| ann.says(message, None));
    // What he is called is known as long as he is anywhere.
    let elsewhere = Listener::bob(&server, "/ws/chat");
    let mut bob = Listener::bob(&server, "/ws");
    ann.until_type("user_connected");
    said.iter().for_each(|message| ann.says(message, None));
    ann.says("the end", None);
    bob.until(|heard| heard["message"] == "the end");
    // By protocol v2 he shows something of himself.
    let mut claims = rooms(&["chat:*"]);
    claims["name"] = json!("Bob");
    let path = format!("{}?token={}", client::PATH, bearer("bob", &claims));
    let mut shown = Client::open_at(server.addr(), &path);
    shown.subscribe("chat:lobby");
    let update = json!({"type": "presence_update", "room": "chat:lobby", "data": {"mood": "fine"}});
    shown.call_for("presence_updated", update);
    ann.until_type("user_update");
    drop(shown);
    let heard = bob.heard;
    drop(bob.speaker);
    ann.until_type("user_disconnected");
    drop(elsewhere);
    [ann.heard, heard].concat()
}

fn game(said: &[&str]) -> Vec<Value> {
    let server = matches::start(&[]);
    let mut anyone = Listener::at(&server, "/ws/game");
    let engine = json!({"roles": ["system"]});
    let mut engine = Listener::named(&server, "/ws/game", ("engine", "Engine"), &engine);
    said.iter().for_each(|message| engine.says(message, None));
    // Whatever the server says there, a backend or the role has said before.
    let of_section =
        examples(DOCUMENT).into_iter().filter(|example| example.section == "`/ws/game`");
    for example in of_section {
        engine.says(example.text, None);
    }
    engine.says(r#"{"type":"system_announcement","message":"the end"}"#, None);
    anyone.until(|heard| heard["message"] == "the end");
    [anyone.heard, engine.heard].concat()
}

fn chat(said: &[&str]) -> Vec<Value> {
    let server = matches::start(&[]);
    let mut carl = Listener::named(&server, "/ws/chat", ("carl", "Carl"), &json!({}));
    let admin = json!({"roles": ["admin"]});
    let mut printed = Listener::named(&server, "/ws/chat", ("uuid", "username"), &admin);
    let mut ann = Listener::ann(&server, "/ws/chat");
    for speaker in [&mut printed, &mut ann] {
        said.iter().for_each(|message| speaker.says(message, None));
    }
    ann.says(r#"{"type":"chat_message","content":"oh","id":5}"#, None);
    let ack = ann.heard.iter().find(|heard| heard["type"] == "ack" && heard["id"] == 5);
    let id = ack.expect("it was answered")["message_id"].clone();
    ann.says(
        &json!({"type": "moderation", "action": "delete", "message_id": id}).to_string(),
        None,
    );
    carl.until_type("message_deleted");
    [ann.heard, printed.heard, carl.heard].concat()
}

fn in_match(said: &[&str]) -> Vec<Value> {
    let server = matches::start(&[]);
    matches::make(&server, "m1", &["ann", "bob"], &json!({}));
    let mut ann = Listener::ann(&server, "/ws/games/m1");
    ann.until_type("user_list");
    let _bob = Listener::bob(&server, "/ws/games/m1");
    ann.until_type("user_connected");
    matches::post(&server, "/api/v1/matches/m1/start", &json!({}));
    ann.until_type("match_started");
    said.iter().for_each(|message| ann.says(message, None));
    matches::post(&server, "/api/v1/matches/m1/end", &json!({"result": {"winner": "ann"}}));
    ann.until_type("match_ended");
    ann.heard
}

fn without_rules(said: &[&str]) -> Vec<Value> {
    let server = matches::start(&[]);
    let mut heard = Vec::new();
    for message in said {
        let printed: Value = serde_json::from_str(message).unwrap();
        let path = match printed["type"].as_str() {
            Some("combat_action") => "/ws/combat",
            Some("player_movement") => "/ws/world",
            other => panic!("at which endpoint is {other:?} said?"),
        };
        let mut ann = Listener::ann(&server, path);
        ann.says(message, Some(115));
        heard.append(&mut ann.heard);
    }
    heard
}

#[test]
fn every_example_of_the_documents_endpoints_is_said_to_or_heard_from_a_running_server() {
    let all = examples(DOCUMENT);
    let has_scene =
        |example: &&Example<'_>| SCENES.iter().any(|(section, _)| *section == example.section);
    let homeless: Vec<_> = all.iter().filter(|example| !has_scene(example)).collect();
    assert!(homeless.is_empty(), "nobody plays what is printed there: {homeless:?}");
    for (section, play) in SCENES {
        let of = |is_of_the_client| -> Vec<&str> {
            let of = all.iter().filter(|e| e.section == *section);
            of.filter(|e| e.is_of_the_client == is_of_the_client).map(|e| e.text).collect()
        };
        let (said, told) = (of(true), of(false));
        assert!(!told.is_empty(), "{section} was not found");
        let heard = play(&said);
        let unheard = unheard(&told, &heard);
        let heard: Vec<_> = heard.iter().map(Value::to_string).collect();
        assert!(unheard.is_empty(), "{section}: not heard: {unheard:#?}\nin {heard:#?}");
    }
}

#[test]
fn an_example_is_found_with_who_says_it_and_where() {
    let document = "# A\n## `/a`\nor `→ {\"type\":\"x\"}` or `text`.\n```\n← {\"type\":\"y\"}\nGET /\n```\n## B\n";
    let found = examples(document);
    let found: Vec<_> = found.iter().map(|e| (e.section, e.is_of_the_client, e.text)).collect();
    assert_eq!(found, [("`/a`", true, r#"{"type":"x"}"#), ("`/a`", false, r#"{"type":"y"}"#)]);
    let arrowless = std::panic::catch_unwind(|| examples("or `{\"type\":\"x\"}`").len());
    assert!(arrowless.is_err());
}

#[test]
fn an_example_that_nothing_says_is_noticed_whatever_differs() {
    let heard = [json!({
        "type": "ack", "id": 3, "message_id": "00d1-58", "missed": 1, "of": [{"user": "ann"}],
        "code": null, "timestamp": "2026-11-26T11:54:11Z",
    })];
    let printed = r#"{"type":"ack","id":3,"message_id":"00d1…","missed":2,"of":[{"user":"ann"}],"code":null,"timestamp":"2025-06-06T16:00:00Z"}"#;
    assert!(unheard(&[printed], &heard).is_empty());
    for (one, other) in [
        (r#""type":"ack""#, r#""type":"nack""#),
        (r#""id":3,"#, ""),
        (r#""id":3"#, r#""id":"3""#),
        (r#""id":3"#, r#""id":3,"more":1"#),
        (r#""code":null"#, r#""code":1"#),
        (r#""missed":2"#, r#""missed":"2""#),
        (r#"{"user":"ann"}"#, ""),
        (r#"{"user":"ann"}"#, r#"{"user":"bob"}"#),
        ("16:00:00Z", "16:00:00.123Z"),
    ] {
        let printed = printed.replace(one, other);
        assert_eq!(unheard(&[&printed], &heard).len(), 1, "{printed}");
    }
}
