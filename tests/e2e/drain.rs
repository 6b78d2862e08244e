//! Stopping in order: everybody is told when to come back, nothing that was taken goes
//! unanswered, and nobody can hold the server up.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::frame::Frame;
use tests::hosts::{Part, has};
use tests::raw::RawSocket;
use tests::server::Server;

use crate::client::{Client, PATH, until};

/// Both ways to part with clients.
const MODES: [&str; 2] = ["server.drain_mode=early", "server.drain_mode=paced"];

/// N02: of a server alone.
#[test]
fn at_a_sigterm_every_client_is_told_when_to_come_back_and_no_acknowledgement_is_lost() {
    let durable =
        ["--set", "namespaces.public.durable=true", "--set", "server.drain_window_ms=3000"];
    let mut server = Server::start_durable(&durable);
    let mut clients = (0..20).map(|_| Client::open(&server)).collect::<Vec<_>>();
    for client in &mut clients {
        client.subscribe("public:end");
    }
    for (n, client) in clients.iter_mut().enumerate() {
        for k in 0..20 {
            client.ask(json!({"type": "publish", "room": "public:end", "data": n * 100 + k}));
        }
    }
    server.terminate();
    let mut acked = BTreeMap::new();
    let mut waits = Vec::new();
    for (n, client) in clients.iter_mut().enumerate() {
        let (values, code) = client.until_closed();
        assert_eq!(code, 1012);
        let told = values.iter().filter(|value| value["type"] == "disconnect").collect::<Vec<_>>();
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!((&told[0]["code"], &told[0]["reason"]), (&json!(1012), &json!("restart")));
        assert_eq!(told[0]["reconnect"], true);
        waits.push(told[0]["reconnect_after_ms"].as_u64().expect("when to come back"));
        for ack in values.iter().filter(|value| value["type"] == "ack") {
            // The first command of each was the subscribe.
            let k = ack["id"].as_u64().unwrap() - 2;
            acked.insert(ack["offset"].as_u64().unwrap(), json!(n as u64 * 100 + k));
        }
    }
    let exit = server.wait();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert_eq!(exit.stdout, format!("listening on http://{}\n", server.addr()));
    assert!(waits.iter().all(|wait| *wait < 3_000), "{waits:?}");
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() >= 10, "they would all come back at once: {waits:?}");
    // What was taken was answered, and what was answered is there.
    server.restart();
    let log = Client::open(&server).log("public:end", 1_000);
    let stored = log.iter().map(|entry| (entry["offset"].as_u64().unwrap(), entry["data"].clone()));
    assert_eq!(stored.collect::<BTreeMap<u64, Value>>(), acked);
}

#[test]
fn an_http_publish_that_was_taken_is_answered_although_the_server_stops() {
    if !has(Part::ServerApi) {
        return;
    }
    const KEY: &str = "k7Qp2vXz9LmN4rTs8WbYc3Df6GhJ5KaE";
    let key = format!("api.keys.backend.key={KEY}");
    let mut server =
        Server::start_durable(&["--set", "namespaces.public.durable=true", "--set", &key]);
    let addr = server.addr();
    let answered = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(status) = http_publish(addr, KEY).filter(|status| *status != 503) {
                    assert_eq!(status, 200);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        until("publishes are under way", || (answered.load(Ordering::Relaxed) > 50).then_some(()));
        server.terminate();
    });
    assert_eq!(server.wait().code, Some(0));
    server.restart();
    let stored = Client::open(&server).log("public:end", 1_000).len() as u64;
    assert_eq!(stored, answered.load(Ordering::Relaxed));
}

/// The status of a publish; none when the server did not take it.
fn http_publish(addr: SocketAddr, key: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(addr).ok()?;
    let body = r#"{"room":"public:end","data":1}"#;
    let request = format!(
        "POST /api/v1/publish HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\
         Authorization: Bearer {key}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

#[test]
fn connections_of_the_echo_endpoint_are_told_too_and_hold_nothing_up() {
    if !has(Part::EchoEndpoint) {
        return;
    }
    let mut server = Server::start(&["--set", "server.drain_window_ms=3000"]);
    let mut echo = RawSocket::open(server.addr(), "/ws/somebody");
    echo.send_text("hello");
    assert_eq!(echo.read_frame().1, b"hello");
    let begun = Instant::now();
    server.terminate();
    assert_eq!(echo.read_close_code(), 1012);
    echo.try_send(&Frame::close(1012, "").bytes());
    echo.finish();
    assert_eq!(server.wait().code, Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
}

/// N02.
#[test]
fn a_draining_server_is_alive_not_ready_and_takes_nobody_new() {
    let mut server = Server::start(&["--set", "server.drain_window_ms=5000"]);
    let stuck = stuck(&server);
    server.terminate();
    until("the server is not ready", || {
        let mut asking = RawSocket::connect(server.addr());
        asking.try_send(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        // What it had not begun to read when it was told to stop it does not answer.
        asking.try_read_head()?.starts_with("HTTP/1.1 503").then_some(())
    });
    assert_eq!(crate::http::get(server.addr(), "/healthz").status, 200);
    for path in [PATH, "/ws/somebody"] {
        let mut refused = RawSocket::connect(server.addr());
        let head = refused.upgrade(path, &[]).to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 503"), "{head}");
        assert!(head.contains("\r\nretry-after: 1\r\n"), "{head}");
        assert!(refused.ends_within(Duration::from_secs(5)), "it may ask for more");
    }
    let refused = http_publish(server.addr(), "whatever");
    assert_eq!(refused, Some(503), "nothing new is taken, whoever asks");
    // Who asks nothing at all does not hold it up.
    let _silent = RawSocket::connect(server.addr());
    drop(stuck);
    assert_eq!(server.wait().code, Some(0));
    assert!(TcpStream::connect(server.addr()).is_err(), "it still listens");
}

/// A member with megabytes on the way to it that reads nothing.
fn stuck(server: &Server) -> RawSocket {
    let mut stuck = RawSocket::open(server.addr(), PATH);
    stuck.expect_json("hello");
    stuck.send_json(&json!({"type": "subscribe", "id": 1, "room": "public:flood"}));
    stuck.expect_json("subscribed");
    // The kernel would else take tens of megabytes for it.
    stuck.narrow();
    let mut publisher = Client::open(server);
    let data = "x".repeat(60_000);
    // More than socket buffers take, but less than closes a slow client.
    until("something waits for the stuck client", || {
        stuck.send_json(&json!({"type": "status"}));
        for _ in 0..20 {
            publisher.publish("public:flood", data.clone());
        }
        // What waits can't be seen from outside without reading; 6 MB is more than both buffers.
        (publisher.publish("public:flood", 0)["offset"].as_u64()? > 100).then_some(())
    });
    stuck
}

/// N04: with a stuck client, however the server parts with the others.
#[test]
fn a_client_that_does_not_read_does_not_hold_up_the_end() {
    for mode in MODES {
        let outbound = "limits.outbound_queue_bytes_max=67108864";
        let window = "server.drain_window_ms=2000";
        let mut server = Server::start(&["--set", window, "--set", outbound, "--set", mode]);
        let _stuck = stuck(&server);
        let begun = Instant::now();
        server.terminate();
        let exit = server.wait();
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
        assert!(begun.elapsed() < Duration::from_secs(10), "{mode} took {:?}", begun.elapsed());
    }
}

/// N03: the second SIGTERM.
#[test]
fn a_second_signal_ends_it_at_once() {
    for mode in MODES {
        let outbound = "limits.outbound_queue_bytes_max=67108864";
        let window = "server.drain_window_ms=60000";
        let mut server = Server::start(&["--set", window, "--set", outbound, "--set", mode]);
        let _stuck = stuck(&server);
        server.terminate();
        until("it says that it stops", || server.log().contains("stopping").then_some(()));
        server.terminate();
        let exit = server.wait();
        assert_eq!(exit.code, Some(1), "{}", exit.stderr);
    }
}

#[test]
fn a_signal_right_behind_the_line_that_says_where_it_listens_ends_it_in_order() {
    for _ in 0..5 {
        let mut server = Server::start(&[]);
        server.terminate();
        assert_eq!(server.wait().code, Some(0));
    }
}

#[test]
fn a_server_without_connections_ends_at_once() {
    let mut server = Server::start(&[]);
    assert_eq!(crate::http::get(server.addr(), "/healthz").status, 200);
    let begun = Instant::now();
    server.terminate();
    assert_eq!(server.wait().code, Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
}
