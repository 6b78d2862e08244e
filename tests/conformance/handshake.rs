//! Requests that are no upgrade, or almost one. None of them may become a WebSocket, hold a
//! socket for long, or cost much.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::json;
use tests::frame::{Frame, TEXT};
use tests::raw::RawSocket;

use crate::arena::{Arena, CONNECT, assert_closes, assert_works};

/// A head: the request line, and the usual headers but for `changes`. A changed header takes the
/// place of the usual one, twice if it is there twice; an empty value leaves it out.
fn head(line: &str, changes: &[(&str, &str)]) -> Vec<u8> {
    let usual = [
        ("Host", "localhost"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let kept = usual.iter().filter(|(name, _)| !changes.iter().any(|(other, _)| other == name));
    let all = kept.chain(changes.iter().filter(|(_, value)| !value.is_empty()));
    let lines = all.map(|(name, value)| format!("{name}: {value}\r\n")).collect::<String>();
    format!("{line}\r\n{lines}\r\n").into_bytes()
}

fn get(changes: &[(&str, &str)]) -> Vec<u8> {
    head(&format!("GET {CONNECT} HTTP/1.1"), changes)
}

/// The status and the head of the answer; 0 when the connection ended without one.
fn answer(socket: &mut RawSocket, request: &[u8]) -> (u16, String) {
    socket.try_send(request);
    let Some(head) = socket.try_read_head() else { return (0, String::new()) };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no answer of HTTP: {head}")), head)
}

fn status(arena: &Arena, request: &[u8]) -> u16 {
    answer(&mut arena.connect(), request).0
}

/// P01.
#[test]
fn what_is_not_an_upgrade_is_told_so_before_the_upgrade() {
    let arena = Arena::shared(&[]);
    let line = |method: &str, version: &str| format!("{method} {CONNECT} {version}");
    let table: &[(&str, Vec<u8>, u16, &str)] = &[
        ("no key", get(&[("Sec-WebSocket-Key", "")]), 400, ""),
        ("a short key", get(&[("Sec-WebSocket-Key", "dGhlIHNhbXBsZQ==")]), 400, ""),
        ("a long key", get(&[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZWRk")]), 400, ""),
        ("no base64", get(&[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZ!==")]), 400, ""),
        ("trailing bits", get(&[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZR==")]), 400, ""),
        ("no version", get(&[("Sec-WebSocket-Version", "")]), 426, "sec-websocket-version: 13"),
        ("version 8", get(&[("Sec-WebSocket-Version", "8")]), 426, "sec-websocket-version: 13"),
        ("version 14", get(&[("Sec-WebSocket-Version", "14")]), 426, "sec-websocket-version: 13"),
        ("version 013", get(&[("Sec-WebSocket-Version", "013")]), 426, "version: 13"),
        ("no upgrade", get(&[("Upgrade", "")]), 426, "upgrade: websocket"),
        ("upgrade to h2c", get(&[("Upgrade", "h2c")]), 426, "upgrade: websocket"),
        ("no connection", get(&[("Connection", "")]), 426, "upgrade: websocket"),
        ("connection: close", get(&[("Connection", "close")]), 426, "upgrade: websocket"),
        ("connection: upgraded", get(&[("Connection", "upgraded")]), 426, "upgrade: websocket"),
        ("POST", head(&line("POST", "HTTP/1.1"), &[]), 405, "allow: GET"),
        ("HEAD", head(&line("HEAD", "HTTP/1.1"), &[]), 405, "allow: GET"),
        ("an unknown method", head(&line("BREW", "HTTP/1.1"), &[]), 405, "allow: GET"),
        ("HTTP/1.0", head(&line("GET", "HTTP/1.0"), &[]), 400, ""),
        ("HTTP/1.2", head(&line("GET", "HTTP/1.2"), &[]), 400, ""),
        ("no host", get(&[("Host", "")]), 400, ""),
        ("another path", head("GET /ws/v3/connect HTTP/1.1", &[]), 404, ""),
    ];
    for (name, request, expected, header) in table {
        let (status, head) = answer(&mut arena.connect(), request);
        assert_eq!(status, *expected, "{name}: {head}");
        let head = head.to_ascii_lowercase();
        assert!(head.contains(&header.to_ascii_lowercase()), "{name}: no {header} in {head}");
    }
    arena.finish();
}

/// P02.
#[test]
fn a_head_without_end_is_refused_before_it_costs_anything() {
    let arena = Arena::own_with(&[], Duration::from_millis(100), CONNECT);
    let long = "a".repeat(1 << 20);
    let request = get(&[("X-Long", &long)]);
    let before = arena.server().cpu_time();
    for _ in 0..10 {
        let status = status(&arena, &request);
        assert!(matches!(status, 0 | 431), "{status}");
    }
    let in_one = arena.server().cpu_time() - before;
    assert!(in_one < Duration::from_millis(500), "{in_one:?} for ten heads of a mebibyte");

    let before = arena.server().cpu_time();
    let mut socket = arena.connect();
    let sent = request.iter().take_while(|byte| socket.try_send(&[**byte])).count();
    let head = socket.try_read_head();
    assert!(head.is_none_or(|head| head.starts_with("HTTP/1.1 431")));
    assert!(sent < 128 << 10, "the server took {sent} bytes of a head");
    let in_pieces = arena.server().cpu_time() - before;
    // A read for each byte is the sender's price; parsing each time anew would take seconds.
    assert!(in_pieces < Duration::from_millis(1_500), "{in_pieces:?} for a head in pieces");
    arena.finish();
}

/// P03.
#[test]
fn too_many_headers_and_headers_that_came_twice_are_refused() {
    let arena = Arena::shared(&[]);
    let names = (0..2_000).map(|n| format!("X-{n}")).collect::<Vec<_>>();
    let many = names.iter().map(|name| (name.as_str(), "1")).collect::<Vec<_>>();
    assert_eq!(status(&arena, &get(&many)), 431);
    let cookie = "c=1; ".repeat(64 << 10 >> 2);
    assert_eq!(status(&arena, &get(&[("Cookie", &cookie)])), 431);
    for (name, value) in [
        ("Host", "localhost"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
        ("Origin", "http://localhost"),
        ("Authorization", "Basic eDp5"),
    ] {
        assert_eq!(status(&arena, &get(&[(name, value), (name, value)])), 400, "{name} twice");
    }
    arena.finish();
}

/// P04.
#[test]
fn an_upgrade_as_browsers_and_proxies_write_it_is_one() {
    let arena = Arena::shared(&[]);
    for changes in [
        &[("Upgrade", "h2c, WebSocket")][..],
        &[("Upgrade", "h2c"), ("Upgrade", "websocket")],
        &[("Connection", "keep-alive, Upgrade")],
        &[("Connection", "keep-alive"), ("Connection", "uPGRADE")],
        &[("Upgrade", "WEBSOCKET"), ("Connection", "upgrade")],
        &[("Cookie", "a=b"), ("User-Agent", "\u{fc}"), ("Pragma", "no-cache")],
    ] {
        let (status, head) = answer(&mut arena.connect(), &get(changes));
        assert_eq!(status, 101, "{changes:?}: {head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{changes:?}: {head}");
    }
    arena.finish();
}

/// P05.
#[test]
fn strange_sub_protocols_are_refused_or_ignored_at_once() {
    let arena = Arena::own_with(&[], Duration::from_millis(100), CONNECT);
    let spaces = format!("b{}x", " ".repeat(60_000));
    let few_spaces = format!("b{}x", " ".repeat(8_000));
    let names = vec!["a"; 10_000].join(",");
    let few_names = vec!["a"; 4_000].join(",");
    let name = "Sec-WebSocket-Protocol";
    let begun = Instant::now();
    for (value, expected) in [
        (spaces.as_str(), &[431][..]),
        (&few_spaces, &[400]),
        (&names, &[400, 431]),
        (&few_names, &[101]),
        ("a b", &[400]),
        ("a,,b", &[400]),
        ("\u{e9}", &[400]),
        ("a(b)", &[101, 400]),
        ("roomkeeper.v1", &[101]),
        ("ROOMKEEPER.V2", &[101]),
    ] {
        let (status, head) = answer(&mut arena.connect(), &get(&[(name, value)]));
        let shown = &value[..value.floor_char_boundary(20)];
        assert!(expected.contains(&status), "{shown}: {head}");
        assert!(!head.to_ascii_lowercase().contains("sec-websocket-protocol"), "{shown}: {head}");
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let before = arena.server().cpu_time();
    for _ in 0..25 {
        for value in [&spaces, &few_spaces, &names, &few_names] {
            status(&arena, &get(&[(name, value)]));
        }
    }
    let took = arena.server().cpu_time() - before;
    assert!(took < 100 * Duration::from_millis(5), "{took:?} for a hundred of them");
    let (_, head) = answer(&mut arena.connect(), &get(&[(name, "x, roomkeeper.v2, bearer.")]));
    assert!(!head.contains("bearer") && !head.contains("x,"), "only ours is answered: {head}");
    arena.finish();
}

/// P06. P30: an offer that was declined, and a compressed frame all the same.
#[test]
fn no_extension_is_ever_agreed_to() {
    let arena = Arena::shared(&[]);
    let escapes = format!("a; b=\"{}", "\\c".repeat(5_000));
    let parameters = format!("permessage-deflate{}", "; x=1".repeat(2_000));
    let duplicates = vec!["permessage-deflate"; 500].join(", ");
    for value in [
        escapes.as_str(),
        &parameters,
        &duplicates,
        "permessage-deflate",
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=08",
        "permessage-deflate; server_max_window_bits=\"\"",
        "permessage-deflate; client_max_window_bits; client_max_window_bits",
        "x-webkit-deflate-frame, permessage-bzip2",
        ";;;,,,",
    ] {
        let mut socket = arena.connect();
        let (status, head) = answer(&mut socket, &get(&[("Sec-WebSocket-Extensions", value)]));
        assert_eq!(status, 101, "{head}");
        assert!(!head.to_ascii_lowercase().contains("extensions"), "{head}");
        socket.expect_json("hello");
        assert_works(&mut socket);
        // An empty message, deflated.
        socket.send(&Frame { rsv: 4, ..Frame::new(TEXT, &[0x02, 0x00]) }.bytes());
        assert_closes(&mut socket, 1002, value);
    }
    arena.finish();
}

/// P07.
#[test]
fn bytes_that_are_no_http_are_refused_and_forgotten() {
    let arena = Arena::shared(&[]);
    let mut noise = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = (0..64)
        .map(|_| {
            let bytes = (0..256).map(|_| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise.to_le_bytes()[3]
            });
            bytes.collect::<Vec<_>>()
        })
        .collect::<Vec<_>>();
    // The first bytes of a TLS ClientHello, and the preface of HTTP/2.
    random.push([&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0; 502]].concat());
    random.push(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec());
    random.push(b"\r\n".repeat(5_000));
    random.push(b"GET\0/ HTTP/1.1\r\n\r\n".to_vec());
    for bytes in random {
        let mut socket = arena.connect();
        socket.try_send(&bytes);
        // What could still become a request waits for its rest; this says that none comes.
        socket.finish();
        let head = socket.try_read_head();
        let refused = |head: &String| {
            ["HTTP/1.1 400", "HTTP/1.1 431", "HTTP/1.1 505"].iter().any(|s| head.starts_with(s))
        };
        assert!(head.as_ref().is_none_or(refused), "{head:?}");
        assert!(socket.ends_within(Duration::from_secs(5)), "it is still open");
    }
    let mut socket = arena.connect();
    let (status, _) = answer(&mut socket, &[get(&[]), get(&[])].concat());
    assert_eq!(status, 101);
    // `G` has a reserved bit set.
    assert_eq!(socket.read_close_code(), 1002, "a second request is no frame");
    arena.finish();
}

/// P08.
#[test]
fn a_target_that_is_not_a_path_here_opens_nothing() {
    let arena = Arena::shared(&[]);
    // Whoever followed a target would come here.
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let address = &*elsewhere.local_addr().unwrap().to_string();
    let (root, connect) = (format!("http://{address}/"), format!("http://{address}{CONNECT}"));
    for target in [
        &*root,
        &connect,
        address,
        "http://169.254.169.254/",
        "http://169.254.169.254/ws/v2/connect",
        "https://localhost/ws/v2/connect",
        "localhost:80",
        "*",
        "/ws/v2/..%2fconnect",
        "/ws/v2/%2e%2e/v2/connect",
        "/ws/v2/../v2/connect",
        "//ws/v2/connect",
        "/ws/v2/connect/",
        "/ws/v2/connect%00",
        "/ws/..%2f..%2fetc%2fpasswd",
        "/ws/a%20b",
        "ws/v2/connect",
    ] {
        let status = status(&arena, &head(&format!("GET {target} HTTP/1.1"), &[]));
        assert!(matches!(status, 400 | 404), "{target}: {status}");
    }
    for target in [address, "169.254.169.254:80"] {
        let status = status(&arena, &head(&format!("CONNECT {target} HTTP/1.1"), &[]));
        assert!(matches!(status, 400 | 404 | 405), "{target}: {status}");
    }
    for host in ["user@localhost", "local host", "localhost/", "a,b", "localhost?x", "\u{e9}"] {
        assert_eq!(status(&arena, &get(&[("Host", host)])), 400, "Host: {host}");
    }
    assert!(elsewhere.accept().is_err(), "the server connected to what a client named");
    arena.finish();
}

/// P09.
#[test]
fn an_upgrade_with_a_body_is_refused_and_the_line_is_cut() {
    let arena = Arena::shared(&[]);
    for changes in [
        &[("Content-Length", "+3")][..],
        &[("Content-Length", "3")],
        &[("Content-Length", "0")],
        &[("Content-Length", "3"), ("Content-Length", "4")],
        &[("Content-Length", "-1")],
        &[("Content-Length", "99999999999999999999999")],
        &[("Transfer-Encoding", "chunked")],
        &[("Transfer-Encoding", "chunked, identity")],
        &[("Transfer-Encoding", "chunked"), ("Content-Length", "3")],
    ] {
        let mut socket = arena.connect();
        let mut request = get(changes);
        request.extend(b"ffffffffffffffffffff\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        let (status, head) = answer(&mut socket, &request);
        assert_eq!(status, 400, "{changes:?}: {head}");
        socket.finish();
        let rest = String::from_utf8_lossy(&socket.read_until_closed()).into_owned();
        assert!(!rest.contains("HTTP/1.1 200"), "a smuggled request was answered: {rest}");
    }
    arena.finish();
}

/// P11.
#[test]
fn who_connects_and_says_nothing_is_gone_at_the_deadline() {
    let arena = Arena::own(&["--set", "server.handshake_timeout_ms=700"]);
    let baseline = arena.server().open_fds();
    let mut silent = (0..200).map(|_| (Instant::now(), arena.connect())).collect::<Vec<_>>();
    for (begun, socket) in &mut silent {
        assert!(socket.ends_within(Duration::from_secs(5)), "it is still open");
        let took = begun.elapsed();
        assert!(took > Duration::from_millis(600), "closed after {took:?} already");
    }
    let took = silent[0].0.elapsed();
    assert!(took < Duration::from_millis(2_500), "the last is gone after {took:?}");
    arena.until("the descriptors are back", |server| server.open_fds() <= baseline);
    arena.finish();
}

/// P12.
#[test]
fn a_head_that_trickles_does_not_hold_a_socket_beyond_the_deadline() {
    let arena = Arena::own(&["--set", "server.handshake_timeout_ms=700"]);
    let begun = Instant::now();
    let mut socket = arena.connect();
    for byte in get(&[]) {
        socket.try_send(&[byte]);
        if socket.ends_within(Duration::from_millis(20)) {
            break;
        }
    }
    let took = begun.elapsed();
    assert!(socket.ends_within(Duration::ZERO), "open after {took:?}");
    let range = Duration::from_millis(600)..Duration::from_millis(1_500);
    assert!(range.contains(&took), "gone after {took:?}");
    // Once upgraded, the deadline means nothing any more.
    let mut socket = arena.greeted();
    assert!(!socket.ends_within(Duration::from_millis(1_000)), "the upgraded socket was cut");
    socket.send_json(&json!({"type": "status", "id": 1}));
    socket.expect_json("status");
    arena.finish();
}
