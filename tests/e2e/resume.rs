//! Coming back with a ticket: to the same server, to one that was killed, and to another one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::{Value, json};
use tests::foreign::{Tool, node, python, require};
use tests::raw::RawSocket;
use tests::server::Server;
use tests::token::{SECRET, claims, hs256, now, with_claim};

use crate::client::{Client, PATH, secret};

const NO_NOBODY: &str = "auth.allow_anonymous=false";
/// The most that the messages of one `hello`, or of one page, may have together.
const FRAME_BYTES_MAX: usize = 512 << 10;
const TICKETS: &str = "auth.ticket_secret=the-one-secret-of-both-servers-in-this-test";

fn entry(room: &str, told: &Value) -> Value {
    json!({"room": room, "epoch": told["epoch"], "offset": told["offset"]})
}

/// Connects without a token in the upgrade, and says `connect`.
fn come_back(
    addr: SocketAddr,
    session: &Value,
    token: Option<&str>,
    resume: &[Value],
) -> RawSocket {
    let mut socket = RawSocket::open(addr, PATH);
    let connect =
        json!({"type": "connect", "id": 1, "session": session, "token": token, "resume": resume});
    socket.send_json(&connect);
    socket
}

fn data_of(entry: &Value) -> Vec<&Value> {
    entry["messages"].as_array().unwrap().iter().map(|message| &message["data"]).collect()
}

#[test]
fn after_sigkill_a_ticket_brings_back_every_durable_room_in_one_frame() {
    let mut server = Server::start_durable(&["--set", &secret(), "--set", NO_NOBODY]);
    let mut ann = Client::open_as(&server, "ann");
    let session = ann.hello["session"].clone();
    assert!(session.is_string(), "{}", ann.hello);
    let rooms: Vec<String> = (0..100).map(|n| format!("chat:r{n}")).collect();
    let resume: Vec<_> = rooms.iter().map(|room| entry(room, &ann.subscribe(room))).collect();
    let mut bob = Client::open_as(&server, "bob");
    for room in &rooms {
        bob.publish(room, "before");
    }
    server.kill();
    server.restart();
    let mut bob = Client::open_as(&server, "bob");
    bob.publish("chat:r7", "after");
    let mut socket = come_back(server.addr(), &session, None, &resume);
    let hello = socket.expect_json("hello");
    assert_eq!((&hello["id"], &hello["user_id"]), (&json!(1), &json!("ann")));
    let resumed = hello["resumed"].as_array().unwrap();
    assert_eq!(resumed.len(), 100);
    for (entry, room) in resumed.iter().zip(&rooms) {
        let expected: &[&str] = if room == "chat:r7" { &["before", "after"] } else { &["before"] };
        assert_eq!(data_of(entry), expected, "{room}");
        assert_eq!((&entry["recovered"], &entry["more"]), (&json!(true), &json!(false)));
    }
    bob.publish("chat:r99", "live");
    assert_eq!(socket.expect_json("message")["data"], "live");
}

/// What came back of one room.
#[derive(Default)]
struct Held {
    offset: u64,
    /// Pages are to come.
    more: bool,
    n_pages: usize,
    is_live: bool,
}

impl Held {
    fn take(&mut self, message: &Value) {
        self.offset += 1;
        assert_eq!(message["offset"], self.offset, "{}", message["room"]);
    }

    /// Takes the messages of an entry of `hello` or of a page; gives how many bytes they have.
    fn take_all(&mut self, told: &Value) -> usize {
        let messages = told["messages"].as_array().unwrap();
        messages.iter().for_each(|message| self.take(message));
        assert_eq!(told["offset"], self.offset, "{}", told["room"]);
        self.more = told["more"].as_bool().unwrap();
        messages.iter().map(|message| message.to_string().len()).sum()
    }

    fn take_page(&mut self, page: &Value) {
        assert!(self.more && !self.is_live, "no page was to come: {}", page["room"]);
        self.n_pages += 1;
        let bytes = self.take_all(page);
        assert!(bytes <= FRAME_BYTES_MAX, "a page of {bytes}");
    }

    fn take_live(&mut self, message: &Value) {
        assert!(!self.more, "live before its pages: {}", message["room"]);
        self.take(message);
        self.is_live = true;
    }
}

#[test]
fn what_one_hello_can_not_hold_follows_page_by_page_and_all_of_it_comes_once_in_order() {
    const ROOMS: usize = 12;
    const MISSED: usize = 6;
    let server = Server::start(&["--set", &secret(), "--set", NO_NOBODY]);
    let mut bob = Client::open_as(&server, "bob");
    let rooms: Vec<String> = (0..ROOMS).map(|n| format!("chat:large/{n}")).collect();
    let mut publish_to_all = |data: &str| {
        for room in &rooms {
            bob.publish(room, data);
        }
    };
    publish_to_all("before");
    let mut ann = Client::open_as(&server, "ann");
    let session = ann.hello["session"].clone();
    let resume: Vec<_> = rooms.iter().map(|room| entry(room, &ann.subscribe(room))).collect();
    drop(ann);
    for _ in 0..MISSED {
        publish_to_all(&"x".repeat(40_000));
    }

    let mut socket = come_back(server.addr(), &session, None, &resume);
    let hello = socket.expect_json("hello");
    // Nothing of it has been read yet but the `hello`.
    publish_to_all("live");
    let mut held = BTreeMap::new();
    let mut bytes = 0;
    for told in hello["resumed"].as_array().unwrap() {
        let mut room = Held { offset: 1, ..Held::default() };
        assert_eq!((&told["recovered"], &told["gap"]), (&json!(true), &Value::Null));
        bytes += room.take_all(told);
        held.insert(told["room"].as_str().unwrap().to_owned(), room);
    }
    assert!(held.keys().eq(rooms.iter().collect::<BTreeSet<_>>()));
    assert!(bytes <= FRAME_BYTES_MAX, "a hello with {bytes}");
    assert!(bytes > FRAME_BYTES_MAX / 2, "the hello has room for more than {bytes}");
    let n_more = held.values().filter(|room| room.more).count();
    assert!((ROOMS / 2..ROOMS).contains(&n_more), "{n_more} rooms come in pages");

    while !held.values().all(|room| room.is_live) {
        let told = socket.next_json();
        let room = held.get_mut(told["room"].as_str().unwrap_or_default());
        match (told["type"].as_str().unwrap(), room) {
            ("page", Some(room)) => room.take_page(&told),
            ("message", Some(room)) => room.take_live(&told),
            (kind, _) => panic!("{kind} instead of what was missed"),
        }
    }
    let n_pages: usize = held.values().map(|room| room.n_pages).sum();
    assert!(n_pages >= n_more, "{n_pages} pages");
    // All that was missed, and one message before and one behind it.
    assert!(held.values().all(|room| room.offset == MISSED as u64 + 2));
    // Nothing comes twice: the answer to a question is the next frame.
    socket.send_json(&json!({"type": "ping", "id": 2}));
    assert_eq!(socket.next_json()["type"], "pong");
}

#[test]
fn a_ticket_is_good_on_every_server_with_the_secret_and_on_no_other() {
    let settings = ["--set", &secret(), "--set", NO_NOBODY, "--set", TICKETS];
    let (one, other) = (Server::start(&settings), Server::start(&settings));
    let strange = Server::start(&["--set", &secret(), "--set", NO_NOBODY]);
    let session = Client::open_as(&one, "ann").hello["session"].clone();
    let mut socket = come_back(other.addr(), &session, None, &[]);
    assert_eq!(socket.expect_json("hello")["user_id"], "ann");
    assert_eq!(come_back(strange.addr(), &session, None, &[]).read_close_code(), 3500);
    // With the token beside it, it does not matter.
    let token = hs256(SECRET, &claims("ann", "chat:*"));
    let mut socket = come_back(strange.addr(), &session, Some(&token), &[]);
    assert_eq!(socket.expect_json("hello")["user_id"], "ann");
}

#[test]
fn a_ticket_grants_what_its_token_granted_and_ends_with_it() {
    let server =
        Server::start(&["--set", &secret(), "--set", NO_NOBODY, "--set", "auth.leeway_ms=0"]);
    let ends = with_claim(claims("ann", "chat:mine/*"), "exp", json!(now() + 5));
    let path = format!("{PATH}?token={}", hs256(SECRET, &ends));
    let session = Client::open_at(server.addr(), &path).hello["session"].clone();
    let unknown = json!({"epoch": "0000000000000001", "offset": 0});
    let resume = [entry("chat:mine/1", &unknown), entry("chat:theirs", &unknown)];
    let mut socket = come_back(server.addr(), &session, None, &resume);
    let hello = socket.expect_json("hello");
    assert_eq!(hello["resumed"][0]["gap"]["reason"], "epoch_changed");
    assert_eq!(hello["resumed"][1]["error"]["code"], 103);
    // The connection that it opened lives as long as the token would have.
    assert_eq!(socket.read_close_code(), 3004);
    assert_eq!(come_back(server.addr(), &session, None, &[]).read_close_code(), 3500);
}

#[test]
fn a_ticket_is_no_token_and_a_token_is_no_ticket() {
    // The same secret for both, as somebody might configure it.
    let tickets = format!("auth.ticket_secret={SECRET}");
    let server = Server::start(&["--set", &secret(), "--set", NO_NOBODY, "--set", &tickets]);
    let token = hs256(SECRET, &claims("ann", "chat:*"));
    let session = Client::open_as(&server, "ann").hello["session"].as_str().unwrap().to_owned();
    let mut by_query = RawSocket::open(server.addr(), &format!("{PATH}?token={session}"));
    assert_eq!(by_query.read_close_code(), 3500);
    let mut as_token = RawSocket::open(server.addr(), PATH);
    as_token.send_json(&json!({"type": "connect", "id": 1, "token": session}));
    assert_eq!(as_token.read_close_code(), 3500);
    assert_eq!(come_back(server.addr(), &json!(token), None, &[]).read_close_code(), 3500);
}

#[test]
fn no_ticket_stands_in_the_log_and_none_is_given_where_none_is_wanted() {
    let settings = ["--set", &secret(), "--set", "log.filter=trace"];
    let server = Server::start(&settings);
    let session = Client::open_as(&server, "ann").hello["session"].as_str().unwrap().to_owned();
    come_back(server.addr(), &json!(session), None, &[]).expect_json("hello");
    let forged = format!("{session}x");
    assert_eq!(come_back(server.addr(), &json!(forged), None, &[]).read_close_code(), 3500);
    assert!(!server.log().contains(&session[..40]), "a ticket is in the log");
    let without = ["--set", &secret(), "--set", "auth.ticket_lifetime_ms=0"];
    let server = Server::start(&without);
    assert!(Client::open_as(&server, "ann").hello["session"].is_null());
    assert!(Client::open(&server).hello["session"].is_null());
}

#[test]
fn a_client_of_node_comes_back_with_its_ticket() {
    if require(Tool::Node) {
        foreign(|arguments| node("resume.mjs", arguments));
    }
}

#[test]
fn a_client_of_python_comes_back_with_its_ticket() {
    if require(Tool::Python) {
        foreign(|arguments| python("resume.py", arguments));
    }
}

/// Runs a script that joins, leaves, lets another publish, and comes back with its ticket.
fn foreign(script: impl Fn(&[&str]) -> String) {
    let server = Server::start(&["--set", &secret(), "--set", NO_NOBODY]);
    let token = hs256(SECRET, &claims("ann", "chat:*"));
    let printed = script(&["--url", &server.ws(PATH), "--token", &token]);
    let resumed: Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    let of = |room: &str| {
        let entries = resumed.as_array().unwrap();
        let entry = entries.iter().find(|entry| entry["room"] == room).unwrap();
        assert_eq!(entry["recovered"], true, "{entry}");
        data_of(entry).into_iter().cloned().collect::<Vec<_>>()
    };
    assert_eq!(of("chat:one"), [json!(1), json!(2)]);
    assert_eq!(of("chat:two"), [json!("missed meanwhile")]);
}
