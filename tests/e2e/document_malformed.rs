//! What is malformed on the documents' endpoints: each has an answer that names the field, the connection
//! stays where it should, and nothing reaches the room.

use serde_json::{Value, json};
use tests::raw::RawSocket;
use tests::server::Server;

use crate::client::{self, Client};
use crate::document_000_matches as matches;
use crate::speaker::{Speaker, bearer, rooms};

/// A message, the code that answers it, and the field that the answer names.
type Row = (&'static str, u64, Option<&'static str>);

/// Wrong on every endpoint.
const EVERYWHERE: &[Row] = &[
    ("{}", 100, Some("type")),
    (r#"{"type":null}"#, 100, Some("type")),
    (r#"{"type":7}"#, 100, Some("type")),
    (r#"{"type":["ping"]}"#, 100, Some("type")),
    (r#"{"type":{"a":1}}"#, 100, Some("type")),
    (r#"{"type":""}"#, 101, Some("type")),
    (r#"{"type":"no_such_type"}"#, 101, Some("type")),
    (r#"{"type":"PING"}"#, 101, Some("type")),
    (r#"{"type":" ping"}"#, 101, Some("type")),
    (r#"{"type":"publish","room":"chat:global","data":1}"#, 101, Some("type")),
    (r#"{"type":"subscribe","room":"chat:global"}"#, 101, Some("type")),
    (r#"{"type":"connect","token":"x"}"#, 101, Some("type")),
    (r#"{"type":"refresh","token":"x"}"#, 101, Some("type")),
    (r#"{"type":"hello"}"#, 101, Some("type")),
    (r#"{"type":"error"}"#, 101, Some("type")),
    (r#"{"type":"ping","type":"ping"}"#, 100, None),
    (r#"{"type":"ping","a":1,"a":2}"#, 100, None),
    (r#"{"type":"ping""#, 100, None),
    (r#"{"type":"ping",}"#, 100, None),
    (r#"{"type":'ping'}"#, 100, None),
    (r#"{type:"ping"}"#, 100, None),
    (r#"{"type":"ping"}}"#, 100, None),
    (r#"{"type":"p\xng"}"#, 100, None),
    (r#"{"type":"ping","n":01}"#, 100, None),
    (r#"{"type":"ping","n":NaN}"#, 100, None),
    ("{\"type\":\"pi\nng\"}", 100, None),
];

/// Wrong wherever plain text is no message.
const NO_OBJECT: &[Row] = &[
    ("hello", 100, None),
    ("42", 100, None),
    ("null", 100, None),
    ("true", 100, None),
    ("\"ping\"", 100, None),
    ("[]", 100, None),
    (r#"[{"type":"ping"}]"#, 100, None),
];

const CHAT: &[Row] = &[
    (r#"{"type":"chat_message"}"#, 102, Some("content")),
    (r#"{"type":"chat_message","content":null}"#, 102, Some("content")),
    (r#"{"type":"chat_message","content":7}"#, 102, Some("content")),
    (r#"{"type":"chat_message","content":true}"#, 102, Some("content")),
    (r#"{"type":"chat_message","content":["x"]}"#, 102, Some("content")),
    (r#"{"type":"chat_message","content":{"x":1}}"#, 102, Some("content")),
    (r#"{"type":"chat_message","content":""}"#, 102, Some("content")),
    (r#"{"type":"chat_message","content":" \t\n"}"#, 102, Some("content")),
    (r#"{"type":"chat_message","content":"\u00a0\u2003"}"#, 102, Some("content")),
    (r#"{"type":"chat_message","message":"wrong field"}"#, 102, Some("content")),
    (r#"{"type":"chat_message","content":"x","channel":7}"#, 102, Some("channel")),
    (r#"{"type":"chat_message","content":"x","channel":""}"#, 102, Some("channel")),
    (r#"{"type":"chat_message","content":"x","channel":["global"]}"#, 102, Some("channel")),
    (r#"{"type":"chat_message","content":"x","channel":"a b"}"#, 102, Some("channel")),
    (r#"{"type":"chat_message","content":"x","channel":"guild/42"}"#, 102, Some("channel")),
    (r#"{"type":"chat_message","content":"x","channel":"../secret"}"#, 102, Some("channel")),
    (r#"{"type":"chat_message","content":"x","channel":"*"}"#, 102, Some("channel")),
    (r#"{"type":"chat_message","content":"x","channel":"ünal"}"#, 102, Some("channel")),
    (r#"{"type":"chat_message","content":"x","channel":"closed"}"#, 103, None),
    (r#"{"type":"chat_message","content":"x","channel":"guild"}"#, 102, Some("guild_id")),
    (
        r#"{"type":"chat_message","content":"x","channel":"guild","guild_id":42}"#,
        102,
        Some("guild_id"),
    ),
    (
        r#"{"type":"chat_message","content":"x","channel":"guild","guild_id":""}"#,
        102,
        Some("guild_id"),
    ),
    (
        r#"{"type":"chat_message","content":"x","channel":"guild","guild_id":"a b"}"#,
        102,
        Some("guild_id"),
    ),
    (
        r#"{"type":"chat_message","content":"x","channel":"guild","guild_id":"a..b"}"#,
        102,
        Some("guild_id"),
    ),
    (r#"{"type":"chat_message","content":"x","channel":"guild","guild_id":"7"}"#, 103, None),
    (r#"{"type":"chat_message","content":"x","channel":"party"}"#, 102, Some("party_id")),
    (
        r#"{"type":"chat_message","content":"x","channel":"party","party_id":null}"#,
        102,
        Some("party_id"),
    ),
    (r#"{"type":"chat_message","content":"x","channel":"party","party_id":"p"}"#, 103, None),
    (r#"{"type":"chat_message","content":"x","channel":"private"}"#, 102, Some("to_user_id")),
    (
        r#"{"type":"chat_message","content":"x","channel":"private","to_user_id":7}"#,
        102,
        Some("to_user_id"),
    ),
    (
        r#"{"type":"chat_message","content":"x","channel":"private","to_user_id":""}"#,
        102,
        Some("to_user_id"),
    ),
    (
        r#"{"type":"chat_message","content":"x","channel":"private","to_user_id":"a b"}"#,
        102,
        Some("to_user_id"),
    ),
    (
        r#"{"type":"chat_message","content":"x","channel":"private","to_user_id":"a#b"}"#,
        104,
        Some("to_user_id"),
    ),
    (r#"{"type":"typing","is_typing":1}"#, 102, Some("is_typing")),
    (r#"{"type":"typing","is_typing":"true"}"#, 102, Some("is_typing")),
    (r#"{"type":"typing","channel":7}"#, 102, Some("channel")),
    (r#"{"type":"typing","channel":"guild"}"#, 102, Some("guild_id")),
    (r#"{"type":"typing","channel":"private"}"#, 102, Some("to_user_id")),
    (r#"{"type":"typing","channel":"closed"}"#, 103, None),
    (r#"{"type":"history","limit":0}"#, 102, Some("limit")),
    (r#"{"type":"history","limit":-1}"#, 102, Some("limit")),
    (r#"{"type":"history","limit":1001}"#, 102, Some("limit")),
    (r#"{"type":"history","limit":1.5}"#, 102, Some("limit")),
    (r#"{"type":"history","limit":1e2}"#, 102, Some("limit")),
    (r#"{"type":"history","limit":"10"}"#, 102, Some("limit")),
    (r#"{"type":"history","limit":99999999999999999999}"#, 102, Some("limit")),
    (r#"{"type":"history","before":7}"#, 102, Some("before")),
    (r#"{"type":"history","before":""}"#, 102, Some("before")),
    (r#"{"type":"history","before":"58"}"#, 102, Some("before")),
    (r#"{"type":"history","before":"00000000000000AB-5"}"#, 102, Some("before")),
    (r#"{"type":"history","before":"00000000000000ab-"}"#, 102, Some("before")),
    (r#"{"type":"history","before":"00000000000000ab-0"}"#, 102, Some("before")),
    (r#"{"type":"history","before":"00000000000000ab--5"}"#, 102, Some("before")),
    (r#"{"type":"history","before":"00000000000000ab-99999999999999999999"}"#, 102, Some("before")),
    (r#"{"type":"history","before":"00000000000000ab-5"}"#, 110, Some("before")),
    (r#"{"type":"history","channel":"private","to_user_id":"bob"}"#, 102, Some("channel")),
    (r#"{"type":"history","channel":"closed"}"#, 103, None),
    (r#"{"type":"history","channel":"guild","guild_id":"7"}"#, 103, None),
];

const LOBBY: &[Row] = &[
    (r#"{"type":"chat"}"#, 102, Some("message")),
    (r#"{"type":"chat","message":null}"#, 102, Some("message")),
    (r#"{"type":"chat","message":7}"#, 102, Some("message")),
    (r#"{"type":"chat","message":""}"#, 102, Some("message")),
    (r#"{"type":"chat","message":"  "}"#, 102, Some("message")),
    (r#"{"type":"chat","message":{"text":"x"}}"#, 102, Some("message")),
    (r#"{"type":"chat","content":7}"#, 102, Some("content")),
    (r#"{"type":"chat","content":""}"#, 102, Some("content")),
    (r#"{"type":"chat","message":"x","to_user_id":7}"#, 102, Some("to_user_id")),
    (r#"{"type":"chat","message":"x","to_user_id":""}"#, 102, Some("to_user_id")),
    (r#"{"type":"chat","message":"x","to_user_id":"a b"}"#, 102, Some("to_user_id")),
    (r#"{"type":"chat","message":"x","to_user_id":"a#b"}"#, 104, Some("to_user_id")),
    (r#"{"type":"typing","is_typing":0}"#, 102, Some("is_typing")),
    (r#"{"type":"typing","is_typing":"no"}"#, 102, Some("is_typing")),
    (r#"{"type":"announcement"}"#, 102, Some("message")),
    (r#"{"type":"announcement","message":7}"#, 102, Some("message")),
    (r#"{"type":"announcement","message":""}"#, 102, Some("message")),
    (r#"{"type":"announcement","message":"x"}"#, 103, Some("type")),
    (r#"{"type":"announcement","message":"x","to_user_id":"bob"}"#, 103, Some("type")),
    (r#"{"type":"text/plain"}"#, 102, Some("type")),
    (r#"{"type":"custom_message","content":"x"}"#, 101, Some("type")),
];

const GAME: &[Row] = &[
    (r#"{"type":"achievement"}"#, 102, Some("user_id")),
    (r#"{"type":"achievement","user_id":7,"achievement":"a"}"#, 102, Some("user_id")),
    (r#"{"type":"achievement","user_id":"a b","achievement":"a"}"#, 102, Some("user_id")),
    (r#"{"type":"achievement","user_id":"u"}"#, 102, Some("achievement")),
    (r#"{"type":"achievement","user_id":"u","achievement":7}"#, 102, Some("achievement")),
    (r#"{"type":"achievement","user_id":"u","achievement":"a b"}"#, 102, Some("achievement")),
    (r#"{"type":"achievement","user_id":"u","achievement":""}"#, 102, Some("achievement")),
    (
        r#"{"type":"achievement","user_id":"u","achievement":"a","to_user_id":7}"#,
        102,
        Some("to_user_id"),
    ),
    (r#"{"type":"player_status","status":"on"}"#, 102, Some("user_id")),
    (r#"{"type":"player_status","user_id":"u"}"#, 102, Some("status")),
    (r#"{"type":"player_status","user_id":"u","status":null}"#, 102, Some("status")),
    (r#"{"type":"system_announcement"}"#, 102, Some("message")),
    (r#"{"type":"system_announcement","message":[]}"#, 102, Some("message")),
    (r#"{"type":"system_announcement","message":""}"#, 102, Some("message")),
    (r#"{"type":"state_change"}"#, 102, Some("state")),
    (r#"{"type":"state_change","state":"night"}"#, 102, Some("state")),
    (r#"{"type":"state_change","state":[]}"#, 102, Some("state")),
    (r#"{"type":"state_change","state":{}}"#, 103, Some("type")),
    (r#"{"type":"achievement","user_id":"u","achievement":"a"}"#, 103, Some("type")),
    (r#"{"type":"chat_message","content":"x"}"#, 101, Some("type")),
];

const COMBAT: &[Row] = &[
    (r#"{"type":"combat_action"}"#, 102, Some("action")),
    (r#"{"type":"combat_action","action":7}"#, 102, Some("action")),
    (r#"{"type":"combat_action","action":"a b"}"#, 102, Some("action")),
    (r#"{"type":"combat_action","action":"attack"}"#, 102, Some("target")),
    (r#"{"type":"combat_action","action":"attack","target":null}"#, 102, Some("target")),
    (r#"{"type":"combat_action","action":"attack","target":["m"]}"#, 102, Some("target")),
    (r#"{"type":"combat_action","action":"attack","target":"m"}"#, 102, Some("combat_session_id")),
    (
        r#"{"type":"combat_action","action":"attack","target":"m","combat_session_id":""}"#,
        102,
        Some("combat_session_id"),
    ),
    (
        r#"{"type":"combat_action","action":"attack","target":"m","combat_session_id":"a b"}"#,
        102,
        Some("combat_session_id"),
    ),
    (
        r#"{"type":"combat_action","action":"attack","target":"m","combat_session_id":"a#b"}"#,
        102,
        Some("combat_session_id"),
    ),
    (
        r#"{"type":"combat_action","action":"attack","target":"m","combat_session_id":"c"}"#,
        115,
        Some("type"),
    ),
    (r#"{"type":"player_movement","x":1,"y":1,"zone":"z"}"#, 101, Some("type")),
];

const WORLD: &[Row] = &[
    (r#"{"type":"player_movement"}"#, 102, Some("x")),
    (r#"{"type":"player_movement","x":null,"y":1,"zone":"z"}"#, 102, Some("x")),
    (r#"{"type":"player_movement","x":"1","y":1,"zone":"z"}"#, 102, Some("x")),
    (r#"{"type":"player_movement","x":1e999,"y":1,"zone":"z"}"#, 102, Some("x")),
    (r#"{"type":"player_movement","x":[1],"y":1,"zone":"z"}"#, 102, Some("x")),
    (r#"{"type":"player_movement","x":1,"zone":"z"}"#, 102, Some("y")),
    (r#"{"type":"player_movement","x":1,"y":true,"zone":"z"}"#, 102, Some("y")),
    (r#"{"type":"player_movement","x":1,"y":-1e999,"zone":"z"}"#, 102, Some("y")),
    (r#"{"type":"player_movement","x":1,"y":1}"#, 102, Some("zone")),
    (r#"{"type":"player_movement","x":1,"y":1,"zone":7}"#, 102, Some("zone")),
    (r#"{"type":"player_movement","x":1,"y":1,"zone":""}"#, 102, Some("zone")),
    (r#"{"type":"player_movement","x":1,"y":1,"zone":"a b"}"#, 102, Some("zone")),
    (r#"{"type":"player_movement","x":1,"y":1,"zone":"a..b"}"#, 102, Some("zone")),
    (r#"{"type":"player_movement","x":1,"y":1,"zone":"z"}"#, 115, Some("type")),
    (r#"{"type":"combat_action","action":"attack"}"#, 101, Some("type")),
];

/// There are no rooms, and nothing has fields but what a host has registered.
const CLIENT: &[Row] = &[
    (r#"{"type":"ping","id":1,"id":2}"#, 100, None),
    (r#"{"type":"status","status":"x","status":"y"}"#, 100, None),
    (r#"{"type":"status""#, 100, None),
    (r#"{"timestamp":"2025-08-15T10:00:00Z"}"#, 100, Some("type")),
    (r#"{"Type":"status"}"#, 100, Some("type")),
    (r#"{"type":"Status"}"#, 101, Some("type")),
    (r#"{"type":"unsubscribe","room":"game:events"}"#, 101, Some("type")),
    (r#"{"type":"publish","room":"game:events","data":{}}"#, 101, Some("type")),
    (r#"{"type":"publish","room":"match:m1","data":{}}"#, 101, Some("type")),
    (r#"{"type":"presence","room":"chat:global"}"#, 101, Some("type")),
    (r#"{"type":"chat","message":"x"}"#, 101, Some("type")),
    (r#"{"type":"chat_message","content":"x"}"#, 101, Some("type")),
    (r#"{"type":"typing"}"#, 101, Some("type")),
    (r#"{"type":"history"}"#, 101, Some("type")),
    (r#"{"type":"users"}"#, 101, Some("type")),
    (r#"{"type":"announcement","message":"x"}"#, 101, Some("type")),
    (r#"{"type":"achievement","user_id":"u","achievement":"a"}"#, 101, Some("type")),
    (r#"{"type":"game_action","data":{}}"#, 101, Some("type")),
    (r#"{"type":"text/plain"}"#, 102, Some("type")),
];

const MATCH: &[Row] = &[
    (r#"{"type":"chat_message"}"#, 102, Some("content")),
    (r#"{"type":"chat_message","content":null}"#, 102, Some("content")),
    (r#"{"type":"chat_message","content":7}"#, 102, Some("content")),
    (r#"{"type":"chat_message","content":false}"#, 102, Some("content")),
    (r#"{"type":"chat_message","content":["x"]}"#, 102, Some("content")),
    (r#"{"type":"chat_message","content":{"x":1}}"#, 102, Some("content")),
    (r#"{"type":"chat_message","content":""}"#, 102, Some("content")),
    (r#"{"type":"chat_message","content":" \t\n"}"#, 102, Some("content")),
    (r#"{"type":"chat_message","message":"wrong field"}"#, 102, Some("content")),
    (r#"{"type":"game_action"}"#, 102, Some("data")),
    (r#"{"type":"game_action","data":null}"#, 102, Some("data")),
    (r#"{"type":"game_action","data":7}"#, 102, Some("data")),
    (r#"{"type":"game_action","data":"e4"}"#, 102, Some("data")),
    (r#"{"type":"game_action","data":[]}"#, 102, Some("data")),
    (r#"{"type":"game_action","move":"e4"}"#, 102, Some("move")),
    (r#"{"type":"game_action","data":{},"Data":{}}"#, 102, Some("Data")),
    (r#"{"type":"game_action","data":{},"user_id":"bob"}"#, 102, Some("user_id")),
    (r#"{"type":"game_action","data":{},"to_user_id":"bob"}"#, 102, Some("to_user_id")),
    (r#"{"type":"game_action","data":{},"data":{}}"#, 100, None),
    (r#"{"type":"game_message"}"#, 102, Some("data")),
    (r#"{"type":"game_message","data":true}"#, 102, Some("data")),
    (r#"{"type":"game_message","data":{},"text":"x"}"#, 102, Some("text")),
    (r#"{"type":"castle","data":{}}"#, 101, Some("type")),
    (r#"{"type":"Game_Action","data":{}}"#, 101, Some("type")),
    (r#"{"type":"match_ended","result":{"winner":"ann"}}"#, 101, Some("type")),
    (r#"{"type":"typing"}"#, 101, Some("type")),
    (r#"{"type":"history"}"#, 101, Some("type")),
    (r#"{"type":"announcement","message":"x"}"#, 101, Some("type")),
    (r#"{"type":"text/plain"}"#, 102, Some("type")),
];

struct Endpoint {
    path: &'static str,
    /// What is wrong there.
    own: &'static [Row],
    /// Whether text that is no JSON is a message.
    takes_text: bool,
    /// Whether it tells who is there.
    lists_users: bool,
}

const ENDPOINTS: &[Endpoint] = &[
    Endpoint { path: "/ws", own: LOBBY, takes_text: true, lists_users: true },
    Endpoint { path: "/ws/chat", own: CHAT, takes_text: false, lists_users: false },
    Endpoint { path: "/ws/game", own: GAME, takes_text: false, lists_users: false },
    Endpoint { path: "/ws/combat", own: COMBAT, takes_text: false, lists_users: false },
    Endpoint { path: "/ws/world", own: WORLD, takes_text: false, lists_users: false },
    Endpoint { path: "/ws/games/m1", own: MATCH, takes_text: false, lists_users: true },
    Endpoint { path: "/ws/client", own: CLIENT, takes_text: false, lists_users: false },
];

/// A server with the match, of which Ann and the canary are.
fn start(more: &[&str]) -> Server {
    let server = matches::start(more);
    matches::make(&server, "m1", &["ann", "canary"], &json!({}));
    server
}

impl Endpoint {
    /// Ann there, with nothing more to hear.
    fn open(&self, server: &Server) -> Speaker {
        let token = bearer("ann", &json!({}));
        let path = format!("{}?client_id=ann&token={token}", self.path);
        let mut ann = Speaker::greeted(RawSocket::open(server.addr(), &path));
        if self.lists_users {
            ann.expect("user_list");
        }
        ann
    }

    fn rows(&self) -> impl Iterator<Item = &'static Row> {
        let no_object: &[Row] = if self.takes_text { &[] } else { NO_OBJECT };
        EVERYWHERE.iter().chain(no_object).chain(self.own)
    }
}

/// The rooms that the rows would reach.
const ROOMS: [&str; 9] = [
    "chat:global",
    "chat:lobby",
    "chat:closed",
    "chat:guild/7",
    "chat:party/p",
    "game:events",
    "combat:c",
    "world:z",
    "match:m1",
];

/// Somebody who hears whatever is said in any of them.
fn canary(server: &Server) -> Client {
    let rooms = rooms(&["chat:*", "game:*", "combat:*", "world:*"]);
    let path = format!("{}?token={}", client::PATH, bearer("canary", &rooms));
    let mut canary = Client::open_at(server.addr(), &path);
    for room in ROOMS {
        canary.subscribe(room);
    }
    canary
}

#[test]
fn there_are_enough_of_them() {
    let own: usize = ENDPOINTS.iter().map(|endpoint| endpoint.own.len()).sum();
    let distinct = own + EVERYWHERE.len() + NO_OBJECT.len();
    assert!(distinct >= 150, "{distinct}");
}

#[test]
fn each_is_answered_with_its_field_and_nothing_reaches_a_room() {
    // All of them come from one hand here; how many one may send is another test's.
    let server = start(&[
        "--set",
        "limits.unparsable_per_minute_max=1000",
        "--set",
        "limits.commands_per_second=0",
    ]);
    let mut canary = canary(&server);
    let mut bob = Speaker::open_with(&server, "/ws/chat", "bob", &rooms(&["chat:guild/9"]));
    for endpoint in ENDPOINTS {
        let path = endpoint.path;
        let mut ann = endpoint.open(&server);
        for (message, code, field) in endpoint.rows() {
            ann.say(message);
            // A ping, and then what is none.
            if *message == r#"{"type":"ping"}}"# {
                ann.expect("pong");
            }
            let error = ann.expect("error");
            let told = (error["code"].as_u64().unwrap(), error["field"].as_str());
            assert_eq!(told, (*code, *field), "{path}: {message}");
            ann.hears_nothing();
        }
    }
    bob.hears_nothing();
    // It hears what is said where it listens, and heard nothing before that.
    for room in ROOMS {
        let last = json!({"room": room, "data": {"type": "last"}});
        matches::post(&server, "/api/v1/publish", &last);
        let heard = canary.next();
        assert_eq!((&heard["room"], &heard["data"]["type"]), (&json!(room), &json!("last")));
    }
    canary.send(&json!({"type": "ping", "id": 77}));
    assert_eq!(canary.next()["type"], "pong");
}

#[test]
fn whoever_goes_on_sending_what_is_none_is_closed_with_a_code_that_says_so() {
    let server = start(&["--set", "limits.unparsable_per_minute_max=20"]);
    for endpoint in ENDPOINTS {
        let mut socket = endpoint.open(&server).socket;
        let none = if endpoint.takes_text { "{not json" } else { "not json" };
        for _ in 0..20 {
            socket.send_text(none);
            assert_eq!(socket.expect_json("error")["field"], Value::Null);
        }
        socket.send_text(none);
        assert_eq!(socket.read_close().0, 3503, "{}", endpoint.path);
    }
}

#[test]
fn what_is_no_text_of_utf_8_ends_the_connection_as_everywhere() {
    let server = start(&[]);
    for endpoint in ENDPOINTS {
        let closes = |opcode, masked, payload: &[u8]| {
            let mut socket = endpoint.open(&server).socket;
            socket.send_frame(opcode, true, masked, payload);
            socket.read_close().0
        };
        let path = endpoint.path;
        assert_eq!(closes(tests::frame::TEXT, true, b"{\"type\":\"\xff\"}"), 1007, "{path}");
        assert_eq!(closes(tests::frame::BINARY, true, b"{\"type\":\"ping\"}"), 1003, "{path}");
        assert_eq!(closes(tests::frame::TEXT, false, b"{\"type\":\"ping\"}"), 1002, "{path}");
    }
}
