//! Coming back with a ticket: to the same server, to one that was killed, and to another one.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tests::foreign::{Tool, node, python, require};
use tests::raw::RawSocket;
use tests::server::Server;
use tests::token::{SECRET, claims, hs256, now, with_claim};

use crate::client::{Client, PATH, secret};

const NO_NOBODY: &str = "auth.allow_anonymous=false";
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
    assert_eq!(of("chat:two"), [json!("missed")]);
}
