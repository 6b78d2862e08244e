//! `/api/v1/websocket/health` and `/api/v1/websocket/metrics`: how the server is and what it does, for
//! whoever may know, and what the connection monitor closed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::raw::RawSocket;
use tests::server::Server;
use tests::token::{SECRET, claims, hs256};

use crate::client::{self, Client, PATH, until};
use crate::document_000_matches as matches;
use crate::http::{ask, get};
use crate::speaker::{Speaker, bearer};

const HEALTH: &str = "/api/v1/websocket/health";
const METRICS: &str = "/api/v1/websocket/metrics";

fn start(more: &[&str]) -> Server {
    let secret = client::secret();
    let mut arguments = vec!["--set", &*secret];
    arguments.extend(more);
    Server::start(&arguments)
}

fn metrics(addr: SocketAddr) -> Value {
    let answer = get(addr, METRICS);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Asks until the answer has this value in this place.
fn until_it_is(addr: SocketAddr, pointer: &str, wanted: &Value) -> Value {
    until(pointer, || {
        let told = metrics(addr);
        (told.pointer(pointer) == Some(wanted)).then_some(told)
    })
}

/// Somebody who may be in the rooms of matches, in one of them.
fn in_match(server: &Server, user: &str, room: &str) -> Client {
    let token = hs256(SECRET, &claims(user, "match:*"));
    let mut member = Client::open_at(server.addr(), &format!("{PATH}?token={token}"));
    member.subscribe(room);
    member
}

#[test]
fn health_tells_status_version_uptime_workers_and_how_many_are_there() {
    let server = start(&["--set", "server.workers=2"]);
    let _ann = in_match(&server, "ann", "match:m-1");
    let answer = get(server.addr(), HEALTH);
    assert_eq!(answer.status, 200, "{answer:?}");
    let health = answer.json();
    assert_eq!(health["status"], "healthy");
    assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(health["workers"], json!({"running": 2, "lost": []}));
    assert_eq!((&health["connections"], &health["users"]), (&json!(1), &json!(1)));
    assert!(health["uptime_seconds"].is_u64() && health["rooms"].is_u64(), "{health}");
}

#[test]
fn a_server_that_stops_says_draining_to_the_end() {
    let mut server = start(&["--set", "server.drain_window_ms=60000"]);
    let mut client = RawSocket::open(server.addr(), PATH);
    client.expect_json("hello");
    server.terminate();
    client.expect_json("disconnect");
    let answer = get(server.addr(), HEALTH);
    assert_eq!((answer.status, &answer.json()["status"]), (503, &json!("draining")));
    drop(client);
    assert_eq!(server.wait().code, Some(0));
}

#[test]
fn connections_are_counted_by_the_endpoint_that_they_came_by_and_no_more_when_they_are_gone() {
    let server = start(&[]);
    let v2 = [Client::open(&server), Client::open(&server)];
    let mut lobby = Speaker::open(&server, "/ws", "ann");
    lobby.expect("user_list");
    let mut chat = Speaker::open(&server, "/ws/chat", "ann");
    let game = Speaker::greeted(RawSocket::open(server.addr(), "/ws/game"));
    let world = Speaker::greeted(RawSocket::open(server.addr(), "/ws/world"));
    let combat = Speaker::open(&server, "/ws/combat", "bob");
    let path = "/ws/client?client_id=c-1&version=1&role=frontend";
    let mut client = RawSocket::open(server.addr(), path);
    client.next_json();
    let told = metrics(server.addr());
    let of = |endpoint: &str| told["channels"][endpoint]["connections"].as_u64().unwrap();
    for endpoint in ["lobby", "chat", "game", "world", "combat", "client"] {
        assert_eq!(of(endpoint), 1, "{endpoint}: {told}");
    }
    assert_eq!((of("v2"), of("match"), of("refused")), (2, 0, 0));
    assert_eq!(told["global"]["connections"], 8);
    assert_eq!(told["global"]["users"], 2);
    // What is said counts where it is said.
    chat.refused(r#"{"type":"nothing"}"#);
    lobby.hears_nothing();
    let told = metrics(server.addr());
    let of_channel = |endpoint: &str| {
        let channel = &told["channels"][endpoint];
        (channel["messages_in_total"].clone(), channel["errors_total"].clone())
    };
    assert_eq!(of_channel("chat"), (json!(1), json!(1)));
    assert_eq!(of_channel("lobby"), (json!(1), json!(0)));
    assert_eq!(of_channel("game"), (json!(0), json!(0)));
    let text = get(server.addr(), "/metrics").body;
    for series in [
        r#"roomkeeper_endpoint_connections{endpoint="v2"} 2"#,
        r#"roomkeeper_endpoint_connections{endpoint="lobby"} 1"#,
        r#"roomkeeper_endpoint_connections{endpoint="match"} 0"#,
        r#"roomkeeper_endpoint_messages_total{endpoint="chat"} 1"#,
        r#"roomkeeper_endpoint_errors_total{endpoint="chat"} 1"#,
    ] {
        assert!(text.lines().any(|line| line.starts_with(series)), "no {series} in {text}");
    }
    drop((v2, lobby, chat, game, world, combat, client));
    let told = until_it_is(server.addr(), "/global/connections", &json!(0));
    let channels = told["channels"].as_object().unwrap();
    assert!(channels.values().all(|channel| channel["connections"] == 0), "{told}");
    assert_eq!(channels.len(), 9);
}

#[test]
fn messages_bytes_and_errors_are_counted_with_their_rates_over_the_last_minute() {
    let server = start(&[]);
    let (mut ann, mut bob) = (Client::open(&server), Client::open(&server));
    for client in [&mut ann, &mut bob] {
        client.subscribe("public:counted");
    }
    // The first sample, before anything is said.
    until("a sample", || {
        let told = metrics(server.addr());
        (told["throughput"]["window_seconds"].as_f64() > Some(0.0)).then_some(())
    });
    for n in 0..20 {
        ann.publish("public:counted", n);
    }
    ann.call_for("error", json!({"type": "subscribe", "room": "nowhere:x"}));
    bob.messages(20);
    let told = until("deliveries are counted", || {
        let told = metrics(server.addr());
        (told["throughput"]["deliveries_per_second"].as_f64() > Some(0.1)).then_some(told)
    });
    let global = &told["global"];
    assert_eq!(global["messages_in_total"], 23);
    assert!(global["messages_out_total"].as_u64() >= Some(40), "{told}");
    assert!(global["bytes_out_total"].as_u64() > global["bytes_in_total"].as_u64(), "{told}");
    assert_eq!(global["errors_total"], 1);
    assert!(told["throughput"]["messages_per_second"].as_f64() > Some(0.1), "{told}");
    let errors = &told["errors"];
    let rate = errors["error_rate"].as_f64().unwrap();
    assert_eq!(errors["errors"], 1);
    assert!(rate > 0.0 && rate < 0.2, "{told}");
}

#[test]
fn each_match_has_its_connections_and_messages_and_nothing_that_was_said_is_shown() {
    let server = start(&[]);
    let mut ann = in_match(&server, "user-ann", "match:m-1");
    let _bob = in_match(&server, "user-bob", "match:m-1");
    let _eve = in_match(&server, "eve", "match:m-2");
    for _ in 0..3 {
        ann.publish("match:m-1", "a-payload-of-ann");
    }
    ann.messages(3);
    let answer = get(server.addr(), METRICS);
    let told = answer.json();
    assert_eq!(
        told["matches"],
        json!({"total": 2, "listed": [
            {"match_id": "m-1", "connections": 2, "messages": 3},
            {"match_id": "m-2", "connections": 1, "messages": 0},
        ]})
    );
    for said in ["a-payload-of-ann", "user-ann", "user-bob"] {
        assert!(!answer.body.contains(said), "{said} in {}", answer.body);
    }
    assert_eq!(tests::leaks::find(&answer.body), None);
}

#[test]
fn a_match_that_is_played_over_its_endpoint_is_counted_with_what_is_said_in_it() {
    let server = matches::start(&[]);
    matches::make(&server, "m1", &["ann", "bob"], &json!({}));
    let mut ann = matches::enter(&server, "m1", "ann");
    let bob = matches::enter(&server, "m1", "bob");
    ann.expect("user_connected");
    ann.say(r#"{"type":"game_action","data":{"move":"e4"},"id":1}"#);
    ann.expect("ack");
    let told = metrics(server.addr());
    assert_eq!(told["channels"]["match"]["connections"], 2);
    let wanted = json!([{"match_id": "m1", "connections": 2, "messages": 1}]);
    assert_eq!(told["matches"], json!({"total": 1, "listed": wanted}));
    // One with wrong parameters is closed at once, and counts nowhere.
    assert_eq!(RawSocket::open(server.addr(), "/ws/games/a..b").read_close_code(), 1008);
    drop((ann, bob));
    let told = until_it_is(server.addr(), "/matches/total", &json!(0));
    assert_eq!(told["channels"]["refused"]["connections"], 0);
}

#[test]
fn a_hundred_matches_are_listed_and_all_are_counted() {
    let server = start(&["--set", "limits.rooms_per_connection_max=200"]);
    let mut ann = in_match(&server, "ann", "match:m-000");
    for n in 1..120 {
        ann.subscribe(&format!("match:m-{n:03}"));
    }
    let matches = &metrics(server.addr())["matches"];
    assert_eq!(matches["total"], 120);
    let listed = matches["listed"].as_array().unwrap();
    assert_eq!((listed.len(), &listed[99]["match_id"]), (100, &json!("m-099")));
}

#[test]
fn the_connection_monitor_counts_pings_and_those_that_it_closed_for_silence() {
    let server = start(&[
        "--set",
        "heartbeat.interval_ms=300",
        "--set",
        "auth.allow_anonymous=false",
        "--set",
        "auth.authentication_timeout_ms=300",
    ]);
    let token = bearer("ann", &json!({}));
    let mut silent = RawSocket::open(server.addr(), &format!("{PATH}?token={token}"));
    assert_eq!(silent.read_close_code(), 3002);
    let mut nobody = RawSocket::open(server.addr(), PATH);
    assert_eq!(nobody.read_close_code(), 3504);
    let monitor = &metrics(server.addr())["connection_monitor"];
    assert!(monitor["pings_total"].as_u64() >= Some(1), "{monitor}");
    for (name, wanted) in [
        ("closed_for_silence_total", 1),
        ("closed_before_authentication_total", 1),
        ("closed_idle_total", 0),
        ("closed_for_expired_token_total", 0),
        ("closed_as_slow_total", 0),
        ("heartbeat_interval_ms", 300),
        ("silence_max_ms", 600),
        ("channel_heartbeat_interval_ms", 30_000),
        ("channel_silence_max_ms", 120_000),
    ] {
        assert_eq!(monitor[name], wanted, "{name}: {monitor}");
    }
}

#[test]
fn the_connection_monitor_closes_who_is_idle_where_that_has_a_limit() {
    let limits = ["--set", "heartbeat.interval_ms=1000", "--set", "heartbeat.idle_timeout_ms=2500"];
    let server = start(&limits);
    let mut idle = Client::open(&server);
    let mut idle_in_the_lobby = Speaker::open(&server, "/ws", "ann");
    let mut busy = Client::open(&server);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let closed = scope.spawn(move || {
            // It answers every ping, and hears what is said; that is no reason to stay.
            let told = idle.expect("disconnect");
            (told["code"].clone(), told["reconnect"].clone(), idle.until_closed().1)
        });
        let left = scope.spawn(move || while idle_in_the_lobby.hear_or_close().is_some() {});
        while !(closed.is_finished() && left.is_finished()) {
            assert_eq!(busy.call(json!({"type": "status"}))["type"], "status");
        }
        assert_eq!(closed.join().unwrap(), (json!(3006), json!(true), 3006));
    });
    assert!(begun.elapsed() >= Duration::from_millis(2_500), "{:?}", begun.elapsed());
    assert_eq!(busy.call(json!({"type": "status"}))["type"], "status");
    let monitor = &metrics(server.addr())["connection_monitor"];
    assert_eq!(monitor["closed_idle_total"], 2, "{monitor}");
}

const KEY: &str = "k7Qp2vXz9LmN4rTs8WbYc3Df6GhJ5KaE";

fn production(more: &[&str]) -> Server {
    let secret =
        "auth.hmac_secret=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let key = format!("api.keys.ops.key={KEY}");
    let mut arguments = vec!["--profile", "production", "--set", secret, "--set", &key];
    arguments.extend(["--set", "auth.issuer=login", "--set", "auth.audience=rooms"]);
    arguments.extend(more);
    Server::start_durable(&arguments)
}

#[test]
fn in_production_both_need_a_key_and_are_not_public_beside_an_internal_address() {
    let authorization = format!("Bearer {KEY}");
    let right = [("Authorization", authorization.as_str())];
    let server = production(&[]);
    for path in [HEALTH, METRICS] {
        assert_eq!(get(server.addr(), path).status, 401, "{path}");
        assert_eq!(ask(server.addr(), "GET", path, &right, "").status, 200, "{path}");
        assert_eq!(ask(server.addr(), "POST", path, &right, "{}").status, 405, "{path}");
    }
    let server = production(&["--set", "server.internal_listen=127.0.0.1:0"]);
    let internal = crate::observe::internal_address(&server);
    for path in [HEALTH, METRICS] {
        assert_eq!(ask(server.addr(), "GET", path, &right, "").status, 404, "{path}");
        assert_eq!(get(internal, path).status, 200, "{path}");
    }
}
