//! Stopping in order: everybody is told when to come back, nothing that was taken goes
//! unanswered, and nobody can hold the server up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::raw::RawSocket;
use tests::server::Server;

use crate::client::{Client, PATH, until};

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
fn a_stopping_server_is_not_ready_and_takes_nobody_new() {
    let mut server = Server::start(&["--set", "server.drain_window_ms=5000"]);
    let _stuck = stuck(&server);
    server.terminate();
    until("the server takes nobody new", || {
        let Ok(mut stream) = std::net::TcpStream::connect(server.addr()) else { return Some(()) };
        let request = b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        std::io::Write::write_all(&mut stream, request).ok()?;
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).ok()?;
        answer.starts_with("HTTP/1.1 503").then_some(())
    });
    server.kill();
}

/// A member with megabytes on the way to it that reads nothing.
fn stuck(server: &Server) -> RawSocket {
    let mut stuck = RawSocket::open(server.addr(), PATH);
    stuck.expect_json("hello");
    stuck.send_json(&json!({"type": "subscribe", "id": 1, "room": "public:flood"}));
    stuck.expect_json("subscribed");
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

#[test]
fn a_client_that_does_not_read_does_not_hold_up_the_end() {
    let outbound = "limits.outbound_queue_bytes_max=67108864";
    let mut server = Server::start(&["--set", "server.drain_window_ms=2000", "--set", outbound]);
    let _stuck = stuck(&server);
    let begun = Instant::now();
    server.terminate();
    let exit = server.wait();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let outbound = "limits.outbound_queue_bytes_max=67108864";
    let mut server = Server::start(&["--set", "server.drain_window_ms=60000", "--set", outbound]);
    let _stuck = stuck(&server);
    server.terminate();
    until("it says that it stops", || server.log().contains("stopping").then_some(()));
    server.terminate();
    let exit = server.wait();
    assert_eq!(exit.code, Some(1), "{}", exit.stderr);
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
