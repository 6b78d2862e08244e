//! Who may say what on the documents' endpoints, row by row: every type that a handler is registered for
//! has a row here, and one without fails.
//!
//! What a game's own messages need is its manager's word; `document_000_matches.rs` has that.

use std::collections::BTreeSet;

use application::built_in::BuiltIn;
use application::extensions::handlers::HandlerRegistry;
use domain::documents::lobby::PLAIN_TEXT;
use serde_json::{Value, json};
use tests::raw::RawSocket;
use tests::server::Server;

use crate::document_000_matches::{make, start};
use crate::speaker::{Speaker, bearer};

/// What a type needs.
#[derive(Clone, Copy, Debug)]
enum Needs {
    /// This right in the room it goes to.
    Right(&'static str),
    /// This right in the room that one begins in: who has not got it is not let in.
    Entry(&'static str),
    /// A role that the settings name.
    Role(&'static str),
    /// To play in the match.
    Part,
    /// Nothing beside being let in: it does not tell more than that does.
    Nothing,
    /// Nothing yet: it is checked, and then answered that there are no rules for it.
    NotAvailable,
}

struct Row {
    endpoint: &'static str,
    kind: &'static str,
    needs: Needs,
    message: &'static str,
    answer: &'static str,
}

const fn row(
    endpoint: &'static str,
    kind: &'static str,
    needs: Needs,
    message: &'static str,
    answer: &'static str,
) -> Row {
    Row { endpoint, kind, needs, message, answer }
}

const SYSTEM: Needs = Needs::Role("system");

const ROWS: &[Row] = &[
    row(
        "chat",
        "chat_message",
        Needs::Right("publish"),
        r#"{"type":"chat_message","id":1,"channel":"guild","guild_id":"7","content":"x"}"#,
        "ack",
    ),
    row(
        "chat",
        "typing",
        Needs::Right("publish"),
        r#"{"type":"typing","id":1,"channel":"guild","guild_id":"7"}"#,
        "ack",
    ),
    row(
        "chat",
        "history",
        Needs::Right("history"),
        r#"{"type":"history","channel":"guild","guild_id":"7"}"#,
        "history",
    ),
    row(
        "chat",
        "moderation",
        Needs::Right("moderate"),
        r#"{"type":"moderation","id":1,"channel":"guild","guild_id":"7","action":"mute","user_id":"eve"}"#,
        "ack",
    ),
    row(
        "combat",
        "combat_action",
        Needs::NotAvailable,
        r#"{"type":"combat_action","action":"hit","target":"orc","combat_session_id":"c1"}"#,
        "error",
    ),
    row(
        "game",
        "achievement",
        SYSTEM,
        r#"{"type":"achievement","user_id":"ann","achievement":"first"}"#,
        "achievement",
    ),
    row(
        "game",
        "player_status",
        SYSTEM,
        r#"{"type":"player_status","user_id":"ann","status":"online"}"#,
        "player_status",
    ),
    row(
        "game",
        "state_change",
        SYSTEM,
        r#"{"type":"state_change","state":{"phase":"night"}}"#,
        "state_change",
    ),
    row(
        "game",
        "system_announcement",
        SYSTEM,
        r#"{"type":"system_announcement","message":"noon"}"#,
        "system_announcement",
    ),
    row(
        "lobby",
        "announcement",
        Needs::Role("system"),
        r#"{"type":"announcement","message":"noon"}"#,
        "announcement",
    ),
    row("lobby", "chat", Needs::Right("publish"), r#"{"type":"chat","id":1,"message":"x"}"#, "ack"),
    row("lobby", PLAIN_TEXT, Needs::Right("publish"), "x", "chat"),
    row("lobby", "stats", Needs::Entry("presence"), r#"{"type":"stats"}"#, "stats"),
    row("lobby", "typing", Needs::Right("publish"), r#"{"type":"typing","id":1}"#, "ack"),
    row("lobby", "users", Needs::Entry("presence"), r#"{"type":"users"}"#, "user_list"),
    row(
        "match",
        "chat_message",
        Needs::Part,
        r#"{"type":"chat_message","id":1,"content":"x"}"#,
        "ack",
    ),
    // Who looks on is told who plays when it comes.
    row("match", "users", Needs::Nothing, r#"{"type":"users"}"#, "user_list"),
    row(
        "world",
        "player_movement",
        Needs::NotAvailable,
        r#"{"type":"player_movement","x":1,"y":2,"zone":"a"}"#,
        "error",
    ),
];

#[test]
fn every_type_of_the_documents_has_a_row() {
    let mut registry = HandlerRegistry::default();
    BuiltIn::default().register(&mut registry).unwrap();
    let known: BTreeSet<_> = registry
        .registered()
        .map(|(endpoint, kind)| (endpoint.map_or("every", |one| one.word()), kind))
        .collect();
    assert!(known.len() > 10, "the types were not found: {known:?}");
    let rows = ROWS.iter().map(|row| (row.endpoint, row.kind)).collect();
    assert_eq!(known, rows, "give each type its row in ROWS, with what it needs");
}

const ALL: [&str; 5] = ["subscribe", "publish", "presence", "history", "moderate"];

/// Claims with these rights in the rooms that the rows are about.
fn allowed(allow: &[&str]) -> Value {
    let grant = |room| json!({"pattern": room, "allow": allow});
    json!({"rooms": [grant("chat:guild/7"), grant("chat:lobby")]})
}

fn open(server: &Server, row: &Row, user: &str, claims: &Value) -> Speaker {
    let path = match row.endpoint {
        "lobby" => "/ws".to_owned(),
        "match" => "/ws/games/m1".to_owned(),
        other => format!("/ws/{other}"),
    };
    Speaker::open_with(server, &path, user, claims)
}

/// Says the row's message and answers the first thing heard that is an answer to it.
fn answer(speaker: &mut Speaker, row: &Row) -> Value {
    speaker.say(row.message);
    loop {
        let heard: Value = serde_json::from_str(&speaker.hear()).unwrap();
        // What comes of being let in: who is there, and who came.
        let is_of_coming = heard["type"] == "user_connected"
            || (heard["type"] == "user_list" && row.answer != "user_list");
        if !is_of_coming {
            return heard;
        }
    }
}

fn server() -> Server {
    let lobby = ["subscribe", "publish", "presence", "history"]
        .map(|right| format!("rooms.\"chat:lobby\".{right}=granted"));
    let mut settings = Vec::new();
    for setting in &lobby {
        settings.extend(["--set", setting]);
    }
    settings.extend([
        "--set",
        "lobby.echo_to_sender=true",
        "--set",
        "lobby.announcer_roles=system",
    ]);
    let server = start(&settings);
    make(&server, "m1", &["ann"], &json!({"spectators": "anyone"}));
    server
}

#[test]
fn each_type_is_refused_without_what_it_needs_and_carried_out_with_it_alone() {
    let server = server();
    for row in ROWS {
        let name = format!("{} {}", row.endpoint, row.kind);
        let (mut without, mut with) = match row.needs {
            Needs::Right(right) => {
                // Being let into the lobby takes the right to read it and to see who is there.
                let with = BTreeSet::from(["subscribe", "presence", right]);
                let with: Vec<_> = with.into_iter().collect();
                let others: Vec<_> = ALL.into_iter().filter(|other| *other != right).collect();
                (
                    open(&server, row, "eve", &allowed(&others)),
                    open(&server, row, "ann", &allowed(&with)),
                )
            }
            Needs::Entry(right) => {
                let others: Vec<_> = ALL.into_iter().filter(|other| *other != right).collect();
                let token = bearer("eve", &allowed(&others));
                let mut socket = RawSocket::open(server.addr(), &format!("/ws?token={token}"));
                assert_eq!(socket.read_close_code(), 3501, "{name}");
                let mut with = open(&server, row, "ann", &allowed(&["subscribe", right]));
                assert_eq!(answer(&mut with, row)["type"], row.answer, "{name}");
                continue;
            }
            Needs::Role(role) => (
                open(&server, row, "eve", &allowed(&ALL)),
                open(&server, row, "ann", &{
                    let mut claims = allowed(&["subscribe", "presence"]);
                    claims["roles"] = json!([role]);
                    claims
                }),
            ),
            Needs::Part => {
                (open(&server, row, "eve", &allowed(&ALL)), open(&server, row, "ann", &json!({})))
            }
            Needs::Nothing => {
                let mut with = open(&server, row, "eve", &json!({}));
                assert_eq!(answer(&mut with, row)["type"], row.answer, "{name}");
                continue;
            }
            Needs::NotAvailable => {
                let mut with = open(&server, row, "ann", &allowed(&ALL));
                let refused = answer(&mut with, row);
                assert_eq!(refused["error"], "not_available", "{name}: {refused}");
                continue;
            }
        };
        let refused = answer(&mut without, row);
        assert_eq!(
            (&refused["type"], &refused["code"]),
            (&json!("error"), &json!(103)),
            "{name}: {refused}"
        );
        let done = answer(&mut with, row);
        assert_eq!(done["type"], row.answer, "{name}: {done}");
    }
}
