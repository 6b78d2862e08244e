//! Which pages may open a WebSocket. What looks like an allowed origin isn't one.

use tests::server::exit_of;

use crate::arena::{Arena, CONNECT};

const ALLOWED: &[&str] =
    &["--set", "server.allowed_origins=https://app.example.com,https://xn--bcher-kva.example"];

fn status(arena: &Arena, origins: &[&str]) -> String {
    let headers = origins.iter().map(|origin| ("Origin", *origin)).collect::<Vec<_>>();
    let head = arena.connect().upgrade(CONNECT, &headers);
    head.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// A02. A03. A04.
#[test]
fn only_an_allowed_origin_comes_past_the_upgrade() {
    let arena = Arena::shared(ALLOWED);
    for origin in [
        "https://app.example.com",
        "https://APP.Example.COM",
        "https://app.example.com:443",
        "https://xn--bcher-kva.example",
        "http://localhost",
        "http://127.0.0.1:5173",
        "http://[::1]:8080",
    ] {
        assert_eq!(status(&arena, &[origin]), "101", "{origin}");
    }
    let long = format!("https://app.example.com/{}", "a".repeat(8 << 10));
    for origin in [
        "https://app.example.com.evil.io",
        "https://evilapp.example.com",
        "https://evil.io?https://app.example.com",
        "https://evil.io/https://app.example.com",
        "https://evil.io#app.example.com",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com.",
        "https://app.example.com@evil.io",
        "https://user@app.example.com",
        "https://user:pass@app.example.com",
        "https://app.example.com/",
        "https://example.com",
        "https://app.example.com https://evil.io",
        "https://app.example.com,https://evil.io",
        "app.example.com",
        "wss://app.example.com",
        "null",
        "file://",
        "*",
        "https://localhost.evil.io",
        "https://127.0.0.1.evil.io",
        "https://app.ex\u{e4}mple.com",
        "https://b\u{fc}cher.example",
        "https://xn--app.example.com",
        "https://xn--app-.example.com",
        "https://app.xn--example-.com",
        "https://app.example.com%00",
        "https://app%2eexample.com",
        &long,
    ] {
        let status = status(&arena, &[origin]);
        let shown = &origin[..origin.floor_char_boundary(60)];
        assert!(matches!(status.as_str(), "403" | "400"), "{shown}: {status}");
    }
    let empty = "Origin: \r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket";
    let mut socket = arena.connect();
    socket.send(format!("GET {CONNECT} HTTP/1.1\r\n{empty}\r\n\r\n").as_bytes());
    assert!(socket.read_head().starts_with("HTTP/1.1 403"), "an empty origin");
    let huge = "a".repeat(64 << 10);
    assert_eq!(status(&arena, &[&huge]), "431");
    let two = ["https://app.example.com", "https://app.example.com"];
    assert_eq!(status(&arena, &two), "400");
    assert_eq!(status(&arena, &["https://app.example.com", "https://evil.io"]), "400");
    arena.finish();
}

/// A01.
#[test]
fn a_client_without_an_origin_is_refused_only_where_one_is_required() {
    let arena = Arena::shared(ALLOWED);
    assert_eq!(status(&arena, &[]), "101");
    arena.finish();
    // A canary has no origin, so this server has none.
    let server =
        tests::server::Server::start(&[ALLOWED, &["--set", "server.require_origin=true"]].concat());
    let ask = |headers: &[(&str, &str)]| {
        let mut socket = tests::raw::RawSocket::connect(server.addr());
        socket.upgrade(CONNECT, headers)
    };
    assert!(ask(&[]).starts_with("HTTP/1.1 403"));
    assert!(ask(&[("Origin", "https://app.example.com")]).starts_with("HTTP/1.1 101"));
    assert!(ask(&[("Origin", "https://evil.io")]).starts_with("HTTP/1.1 403"));
}

/// A02. Production knows no loopback pages, and what is refused says where to change that.
#[test]
fn a_refusal_names_the_setting_and_nothing_else() {
    let arena = Arena::shared(ALLOWED);
    let mut socket = arena.connect();
    let head = socket.upgrade(CONNECT, &[("Origin", "https://evil.io")]);
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    socket.finish();
    let body = String::from_utf8(socket.read_until_closed()).unwrap();
    assert!(body.contains("\"permission_denied\"") && body.contains("allowed_origins"), "{body}");
    assert!(!body.contains("app.example.com"), "who is allowed is nobody's business: {body}");
    arena.finish();
}

/// A06.
#[test]
fn any_origin_is_refused_in_production_at_the_start() {
    let (code, _, errors) = exit_of(&[
        "serve",
        "--profile",
        "production",
        "--listen",
        "127.0.0.1:0",
        "--set",
        "server.allowed_origins=*",
    ]);
    assert!(code.is_some_and(|code| code != 0), "it ended with {code:?}");
    assert!(errors.contains("server.allowed_origins"), "{errors}");
}
