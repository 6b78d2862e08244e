//! Tokens that count once: shown again, at the same time, elsewhere, after a restart.

use std::net::SocketAddr;
use std::sync::{Arc, Barrier};
use std::thread;

use serde_json::{Value, json};
use tests::frame;
use tests::raw::RawSocket;
use tests::server::{Server, exit_of};
use tests::token::{SECRET, claims, hs256, now, without_claim};

use crate::client::{Client, PATH, secret, until, values_of};

const NO_NOBODY: &str = "auth.allow_anonymous=false";

/// Where a client may put its token.
const PLACES: [Place; 4] = [Place::Query, Place::Authorization, Place::SubProtocol, Place::Connect];

#[derive(Clone, Copy, Debug)]
enum Place {
    Query,
    Authorization,
    SubProtocol,
    Connect,
}

/// The claims of a token that counts once.
fn once(user: &str, id: &str) -> Value {
    let mut claims = claims(user, "chat:*");
    claims["jti"] = json!(id);
    claims["once"] = json!(true);
    claims
}

fn token(user: &str, id: &str) -> String {
    hs256(SECRET, &once(user, id))
}

fn show(addr: SocketAddr, token: &str, place: Place) -> RawSocket {
    let mut socket = RawSocket::connect(addr);
    let head = match place {
        Place::Query => socket.upgrade(&format!("{PATH}?token={token}"), &[]),
        Place::Authorization => {
            socket.upgrade(PATH, &[("Authorization", &format!("Bearer {token}"))])
        }
        Place::SubProtocol => {
            let offered = format!("roomkeeper.v2, bearer.{token}");
            socket.upgrade(PATH, &[("Sec-WebSocket-Protocol", &offered)])
        }
        Place::Connect => socket.upgrade(PATH, &[]),
    };
    assert!(head.starts_with("HTTP/1.1 101"), "{place:?}: {head}");
    if matches!(place, Place::Connect) {
        socket.send_json(&json!({"type": "connect", "id": 1, "token": token}));
    }
    socket
}

/// The user of the `hello`, or the code with which the connection is closed instead.
fn outcome(socket: &mut RawSocket) -> Result<Value, u16> {
    loop {
        match socket.read_frame() {
            (frame::TEXT, text) => {
                let hello = values_of(&text).into_iter().find(|value| value["type"] == "hello");
                if let Some(hello) = hello {
                    return Ok(hello["user_id"].clone());
                }
            }
            (frame::CLOSE, payload) => return Err(u16::from_be_bytes([payload[0], payload[1]])),
            _ => {}
        }
    }
}

fn server(more: &[&str]) -> Server {
    Server::start(&[&["--set", &secret(), "--set", NO_NOBODY], more].concat())
}

/// A20: on the same node, in each place.
#[test]
fn a_token_that_counts_once_is_good_once_wherever_it_is_put() {
    let server = server(&[]);
    let addr = server.addr();
    for first in PLACES {
        let token = token("ann", &format!("t-{first:?}"));
        let mut ann = show(addr, &token, first);
        assert_eq!(outcome(&mut ann), Ok(json!("ann")), "{first:?}");
        for again in PLACES {
            let refused = show(addr, &token, again).read_close();
            assert_eq!(refused, (3500, "unauthenticated".to_owned()), "{first:?}, {again:?}");
        }
        // Whoever came first notices nothing.
        ann.send_json(&json!({"type": "status", "id": 2}));
        assert_eq!(ann.next_json()["id"], 2);
        // Nor is it good for somebody who is gone.
        drop(ann);
        assert_eq!(outcome(&mut show(addr, &token, first)), Err(3500), "{first:?}");
    }
    // An ordinary token of a name is as good as before, as often as one likes.
    let mut often = once("bob", "t-often");
    often["once"] = json!(false);
    let often = hs256(SECRET, &often);
    for place in PLACES {
        assert_eq!(outcome(&mut show(addr, &often, place)), Ok(json!("bob")), "{place:?}");
    }
}

/// A20: at the same time.
#[test]
fn of_many_that_show_it_at_the_same_time_exactly_one_is_let_in() {
    const N: usize = 8;
    let memory = server(&["--set", "server.workers=4"]);
    let disk = Server::start_durable(&[
        "--set",
        &secret(),
        "--set",
        NO_NOBODY,
        "--set",
        "server.workers=4",
    ]);
    for server in [&memory, &disk] {
        for round in 0..5 {
            let token = token("ann", &format!("t-{round}"));
            let barrier = Arc::new(Barrier::new(N));
            let callers: Vec<_> = (0..N)
                .map(|n| {
                    let (addr, token, barrier) =
                        (server.addr(), token.clone(), Arc::clone(&barrier));
                    thread::spawn(move || {
                        barrier.wait();
                        outcome(&mut show(addr, &token, PLACES[n % PLACES.len()]))
                    })
                })
                .collect();
            let outcomes: Vec<_> = callers.into_iter().map(|one| one.join().unwrap()).collect();
            let let_in = outcomes.iter().filter(|one| **one == Ok(json!("ann"))).count();
            let refused = outcomes.iter().filter(|one| **one == Err(3500)).count();
            assert_eq!((let_in, refused), (1, N - 1), "{outcomes:?}");
        }
    }
}

/// A20: after a restart, where there is a data directory.
#[test]
fn a_token_that_was_used_before_sigkill_is_used_up_after_it() {
    let mut server = Server::start_durable(&["--set", &secret(), "--set", NO_NOBODY]);
    let (used, fresh) = (token("ann", "used"), token("ann", "fresh"));
    assert_eq!(outcome(&mut show(server.addr(), &used, Place::Query)), Ok(json!("ann")));
    for place in PLACES {
        server.kill();
        server.restart();
        assert_eq!(outcome(&mut show(server.addr(), &used, place)), Err(3500), "{place:?}");
    }
    assert_eq!(outcome(&mut show(server.addr(), &fresh, Place::Query)), Ok(json!("ann")));
    assert_eq!(outcome(&mut show(server.addr(), &fresh, Place::Query)), Err(3500));
}

#[test]
fn guards_are_told_who_shows_a_used_token_and_not_which() {
    const NAME: &str = "the-name-of-this-token";
    let server = server(&["--set", "log.format=json"]);
    let token = token("ann", NAME);
    assert_eq!(outcome(&mut show(server.addr(), &token, Place::Query)), Ok(json!("ann")));
    assert_eq!(outcome(&mut show(server.addr(), &token, Place::Query)), Err(3500));
    let told = until("a line of the security log", || {
        let log = server.log();
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["reason"] == "spent")
    });
    assert_eq!((&told["event"], &told["alg"]), (&json!("authentication_failed"), &json!("HS256")));
    assert!(!server.log().contains(NAME), "{}", server.log());
}

#[test]
fn a_ticket_brings_back_whoever_came_with_a_token_that_counts_once() {
    let mut server = Server::start_durable(&["--set", &secret(), "--set", NO_NOBODY]);
    let token = token("ann", "t-1");
    let ann = Client::greeted(show(server.addr(), &token, Place::Connect));
    let mut session = ann.hello["session"].clone();
    drop(ann);
    for restart in [false, true, false] {
        if restart {
            server.kill();
            server.restart();
        }
        // With the token beside it, as a client says it that has both.
        for token in [Value::Null, json!(token)] {
            let mut back = RawSocket::open(server.addr(), PATH);
            back.send_json(
                &json!({"type": "connect", "id": 1, "session": session, "token": token}),
            );
            let hello = back.expect_json("hello");
            assert_eq!(hello["user_id"], "ann");
            session = hello["session"].clone();
        }
    }
    // A ticket that does not count leaves it to the token, which is used up.
    let mut back = RawSocket::open(server.addr(), PATH);
    back.send_json(&json!({"type": "connect", "id": 1, "session": "rubbish", "token": token}));
    assert_eq!(back.read_close_code(), 3500);
}

/// A20: a refresh uses it up as well.
#[test]
fn a_refresh_takes_a_fresh_token_that_counts_once_and_no_used_one() {
    let server = server(&[]);
    let (first, second) = (token("ann", "t-1"), token("ann", "t-2"));
    let mut ann = Client::greeted(show(server.addr(), &first, Place::Query));
    ann.call_for("refreshed", json!({"type": "refresh", "token": second}));
    assert_eq!(outcome(&mut show(server.addr(), &second, Place::Query)), Err(3500));
    ann.ask(json!({"type": "refresh", "token": second}));
    assert_eq!(ann.until_closed().1, 3500);
    // Nor does the one that it came with count again.
    let mut ann = Client::greeted(show(server.addr(), &token("ann", "t-3"), Place::Query));
    ann.ask(json!({"type": "refresh", "token": first}));
    assert_eq!(ann.until_closed().1, 3500);
}

#[test]
fn a_token_that_counts_once_and_has_no_name_or_ends_too_late_is_refused() {
    let server = server(&[]);
    let unnamed = without_claim(once("ann", "t-1"), "jti");
    let mut late = once("ann", "t-1");
    late["exp"] = json!(now() + 2 * 86_400);
    let mut word = once("ann", "t-1");
    word["once"] = json!("yes");
    for bad in [unnamed, late, word] {
        let token = hs256(SECRET, &bad);
        assert_eq!(outcome(&mut show(server.addr(), &token, Place::Query)), Err(3500), "{bad}");
    }
    let good = token("ann", "t-1");
    assert_eq!(outcome(&mut show(server.addr(), &good, Place::Query)), Ok(json!("ann")));
}

#[test]
fn one_that_roomkeeper_made_is_not_used_up_by_looking_at_it() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path().to_str().unwrap();
    let server = Server::start(&["--profile", "development", "--data-dir", data]);
    let create = ["token", "create", "--user", "ada", "--once", "--ttl", "60s"];
    let (code, made, errors) = exit_of(&[&create[..], &["--data-dir", data]].concat());
    assert_eq!((code, &errors[..]), (Some(0), ""));
    let token = made.trim();
    let (code, shown, _) = exit_of(&["token", "inspect", token, "--data-dir", data]);
    assert!(code == Some(0) && shown.contains("it counts once"), "{shown}");
    let explain = ["explain", "--data-dir", data, "--token", token, "subscribe", "public:lobby"];
    let (code, explained, _) = exit_of(&explain);
    assert!(code == Some(0) && explained.contains("the token counts once"), "{explained}");
    assert_eq!(outcome(&mut show(server.addr(), token, Place::Query)), Ok(json!("ada")));
    assert_eq!(outcome(&mut show(server.addr(), token, Place::Query)), Err(3500));
}
