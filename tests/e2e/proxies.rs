//! Behind proxies: whose word counts about who a client is, and how many connections one address
//! may have.

use serde_json::Value;
use tests::raw::RawSocket;
use tests::server::Server;
use tests::token::{SECRET, claims, hs256};

use crate::client::{PATH, secret, until};

const TWO: [&str; 2] = ["--set", "limits.connections_per_address_max=2"];

fn behind(proxies: &str) -> Server {
    let proxies = format!("server.trusted_proxies={proxies}");
    Server::start(&[&TWO[..], &["--set", &proxies]].concat())
}

/// The head of the answer to an upgrade with these headers, and the socket.
fn come(server: &Server, headers: &[(&str, &str)]) -> (String, RawSocket) {
    let mut socket = RawSocket::connect(server.addr());
    let head = socket.upgrade(PATH, headers);
    (head, socket)
}

fn is_in(head: &str) -> bool {
    head.starts_with("HTTP/1.1 101 ")
}

/// R06.
#[test]
fn an_address_has_as_many_connections_as_allowed_and_the_next_is_told_to_come_later() {
    let server = Server::start(&TWO);
    let first = come(&server, &[]);
    let second = come(&server, &[]);
    assert!(is_in(&first.0) && is_in(&second.0));
    let mut third = RawSocket::connect(server.addr());
    let head = third.read_head();
    assert!(head.starts_with("HTTP/1.1 429 ") && head.contains("Retry-After: 5"), "{head}");
    drop(first);
    until("there is room again", || {
        let mut socket = RawSocket::connect(server.addr());
        socket.try_send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
        socket.try_read_head().filter(|head| head.starts_with("HTTP/1.1 200 "))
    });
    let refused = r#"roomkeeper_connections_refused_total{reason="address_limit"}"#;
    let metrics = || crate::http::get(server.addr(), "/metrics").body;
    until("it is counted", || metrics().contains(refused).then_some(()));
}

/// R06, R09.
#[test]
fn through_a_trusted_proxy_each_client_has_its_own_address_whatever_it_says_itself() {
    let server = behind("127.0.0.1");
    let forwarded = |by: &str| [("X-Forwarded-For", by.to_owned())];
    let arrive = |by: &str| {
        let headers = forwarded(by);
        come(&server, &headers.iter().map(|(n, v)| (*n, v.as_str())).collect::<Vec<_>>())
    };
    let first = arrive("198.51.100.7");
    // What it wrote itself stands to the left of what the proxy saw.
    let second = arrive("6.6.6.6, 198.51.100.7");
    assert!(is_in(&first.0) && is_in(&second.0));
    let (head, mut third) = arrive("1.2.3.4, 5.6.7.8, 198.51.100.7");
    assert!(head.starts_with("HTTP/1.1 429 "), "{head}");
    assert!(head.to_lowercase().contains("retry-after: 5"), "{head}");
    third.finish();
    let body: Value = serde_json::from_slice(&third.read_until_closed()).unwrap();
    assert_eq!(body["error"], "rate_limited");
    assert_eq!(body["retry_after_ms"], 5_000);
    let spoofed = vec!["6.6.6.6"; 1_000].join(",");
    let (head, _) = arrive(&format!("{spoofed}, 198.51.100.7"));
    assert!(head.starts_with("HTTP/1.1 429 "), "{head}");
    let others: Vec<_> = ["198.51.100.8", "2001:db8::1", "[2001:db8::2]:4711"].map(arrive).into();
    assert!(others.iter().all(|(head, _)| is_in(head)));
    // The two were of one network.
    let (head, _) = arrive("2001:db8::3");
    assert!(head.starts_with("HTTP/1.1 429 "), "{head}");
    until("the log has the client's address, not the proxy's", || {
        server.log().contains("address=198.51.100.7").then_some(())
    });
    drop(first);
    until("there is room again", || is_in(&arrive("198.51.100.7").0).then_some(()));
}

/// R09.
#[test]
fn who_is_no_trusted_proxy_is_not_believed() {
    let server = behind("10.0.0.0/8");
    let first = come(&server, &[("X-Forwarded-For", "198.51.100.1")]);
    let second = come(&server, &[("Forwarded", "for=198.51.100.2")]);
    assert!(is_in(&first.0) && is_in(&second.0));
    // All three are this machine.
    let mut third = RawSocket::connect(server.addr());
    assert!(third.read_head().starts_with("HTTP/1.1 429 "));
}

/// R09; RFC 7239.
#[test]
fn only_the_header_that_the_proxies_keep_is_read() {
    let proxies =
        ["--set", "server.trusted_proxies=127.0.0.1", "--set", "server.proxy_header=forwarded"];
    let server = Server::start(&[&TWO[..], &proxies].concat());
    let arrive = |forwarded: &str, x: &str| {
        come(&server, &[("Forwarded", forwarded), ("X-Forwarded-For", x)])
    };
    let first = arrive("for=198.51.100.7;proto=https", "6.6.6.1");
    let second = arrive("for=6.6.6.6, for=\"198.51.100.7:80\"", "6.6.6.2");
    assert!(is_in(&first.0) && is_in(&second.0));
    assert!(arrive("for=198.51.100.7", "6.6.6.3").0.starts_with("HTTP/1.1 429 "));
}

/// R08.
#[test]
fn an_address_that_guesses_at_tokens_is_turned_away_for_a_while_and_no_other() {
    let server = Server::start(&[
        "--set",
        "server.trusted_proxies=127.0.0.1",
        "--set",
        "limits.bad_tokens_per_address_per_minute=3",
        "--set",
        &secret(),
    ]);
    let good = hs256(SECRET, &claims("ann", "chat:*"));
    let bad = hs256("another secret of at least 32 bytes!", &claims("ann", "chat:*"));
    let show = |address: &str, token: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("X-Forwarded-For", address), ("Authorization", &*bearer)];
        let first = come(&server, &headers).1.next_json();
        (first["code"].as_u64(), first["reconnect_after_ms"].as_u64())
    };
    for _ in 0..3 {
        assert_eq!(show("203.0.113.7", &bad).0, Some(3500));
    }
    let (code, wait) = show("203.0.113.7", &good);
    assert_eq!(code, Some(3005));
    assert!((1..=20_000).contains(&wait.unwrap()), "{wait:?}");
    assert_eq!(show("203.0.113.8", &good).0, None, "a hello");
    until("guards are told", || {
        let log = server.log();
        let line = log.lines().find(|line| line.contains("bad_tokens_of_address"))?;
        line.contains("203.0.113.7").then_some(())
    });
}

/// A20: a client with a mistake is told so each time, and not suspected of guessing.
#[test]
fn an_address_that_shows_a_used_token_again_and_again_is_not_taken_for_one_that_guesses() {
    let server = Server::start(&[
        "--set",
        "server.trusted_proxies=127.0.0.1",
        "--set",
        "limits.bad_tokens_per_address_per_minute=1",
        "--set",
        &secret(),
    ]);
    let token = |id: &str| {
        let mut claims = claims("ann", "chat:*");
        claims["jti"] = id.into();
        claims["once"] = true.into();
        hs256(SECRET, &claims)
    };
    let show = |token: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("X-Forwarded-For", "203.0.113.7"), ("Authorization", &*bearer)];
        come(&server, &headers).1.next_json()["code"].as_u64()
    };
    let used = token("used");
    assert_eq!(show(&used), None, "a hello");
    for _ in 0..5 {
        assert_eq!(show(&used), Some(3500));
    }
    assert_eq!(show(&token("fresh")), None, "a hello");
}
