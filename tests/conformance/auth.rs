//! Tokens that prove nothing, tokens in strange places, and clients that bring none.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tests::frame::Frame;
use tests::raw::RawSocket;
use tests::token::{
    SECRET, claims, hs256, now, signed, unsigned, with_claim, with_signature, without_claim,
};

use crate::arena::{Arena, CONNECT, assert_closes, new_room, subscribe};

const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "roomkeeper";

/// A server that lets nobody in without a token, as in production.
fn arena(more: &[&str]) -> Arena {
    let secret = format!("auth.hmac_secret={SECRET}");
    let issuer = format!("auth.issuer={ISSUER}");
    let audience = format!("auth.audience={AUDIENCE}");
    let mut arguments = vec!["--set", "auth.allow_anonymous=false"];
    for setting in [&secret, &issuer, &audience] {
        arguments.extend(["--set", setting]);
    }
    arguments.extend(more);
    let path = format!("{CONNECT}?token={}", hs256(SECRET, &good("canary")));
    Arena::own_with(&arguments, Duration::from_millis(10), &path)
}

/// Claims that are accepted.
fn good(user: &str) -> Value {
    let claims = with_claim(claims(user, "public:*"), "iss", json!(ISSUER));
    with_claim(claims, "aud", json!(AUDIENCE))
}

fn good_token(user: &str) -> String {
    hs256(SECRET, &good(user))
}

/// A good token's header and payload under another header.
fn under(header: &Value) -> String {
    signed(SECRET, header, &good("ann"))
}

/// Tokens that must all be refused, each with its name.
fn bad_tokens() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, token: String| all.push((name.to_owned(), token));
    for alg in ["none", "None", "NONE", "nOnE"] {
        let token = with_signature(&json!({"alg": alg}), &good("ann"), b"");
        add("A30 unsigned, without the last dot", token.trim_end_matches('.').to_owned());
        add("A30 unsigned", token);
        add("A30 signed all the same", under(&json!({"alg": alg})));
    }
    add("A30 made by hand", unsigned(&good("ann")));
    add("A31 another key", hs256("another-secret-of-the-tests-that-is-long-enough", &good("ann")));
    add("A31 no key", hs256("", &good("ann")));
    for alg in [json!("hs256"), json!("HS256 "), json!(256), json!(["HS256"]), Value::Null] {
        add("A32 alg", under(&json!({"alg": alg})));
    }
    add("A32 no alg", under(&json!({"typ": "JWT"})));
    for alg in ["HS384", "RS256", "ES256", "EdDSA"] {
        add("A33 another algorithm", under(&json!({"alg": alg})));
    }
    for kid in [json!("../../dev/null"), json!("' OR 1=1--"), json!("\0"), json!(1)] {
        add("A34 kid", under(&json!({"alg": "HS256", "kid": kid})));
    }
    add("A36 crit", under(&json!({"alg": "HS256", "crit": ["x"], "x": 1})));
    add("A40 no aud", hs256(SECRET, &without_claim(good("ann"), "aud")));
    for aud in [json!("other"), json!(["other"]), json!([]), json!(1), json!("roomkeeper ")] {
        add("A40 aud", hs256(SECRET, &with_claim(good("ann"), "aud", aud)));
    }
    for iss in [json!("https://evil.example"), json!("https://issuer.example/"), Value::Null] {
        add("A41 iss", hs256(SECRET, &with_claim(good("ann"), "iss", iss)));
    }
    let token = good_token("ann");
    let parts = token.split('.').collect::<Vec<_>>();
    let [header, payload, signature] = parts[..] else { panic!("three parts") };
    add("A43 two parts", format!("{header}.{payload}"));
    add("A43 four parts", format!("{token}.{signature}"));
    add("A43 five parts", format!("{header}..{payload}.{signature}.x"));
    add("A43 nested", URL_SAFE_NO_PAD.encode(&token));
    add("A44 padding", format!("{token}="));
    add("A44 a space", format!("{header}.{payload}.%20{signature}"));
    add("A44 trailing bits", other_trailing_bits(&token));
    let twice = format!(
        "{{\"sub\":\"ann\",\"sub\":\"eve\",\"aud\":\"{AUDIENCE}\",\"iss\":\"{ISSUER}\",\"exp\":{}}}",
        now() + 600
    );
    add("A45 sub twice", signed_text(&twice));
    for sub in [json!(""), json!("a\u{1b}[31m"), json!("a\n"), Value::Null, json!(1)] {
        add("A46 sub", hs256(SECRET, &with_claim(good("ann"), "sub", sub)));
    }
    let other = good_token("eve").split('.').nth(1).map(str::to_owned).unwrap_or_default();
    add("A48 another payload", format!("{header}.{other}.{signature}"));
    for at in [0, header.len() + 3, token.len() - 5] {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        add("A48 one character", String::from_utf8(bytes).unwrap());
    }
    for nothing in ["", "x", "...", "null", "undefined"] {
        add("nothing", nothing.to_owned());
    }
    all
}

/// Tokens whose times are wrong or missing.
fn bad_times() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, token: String| all.push((name.to_owned(), token));
    add("A37 no exp", hs256(SECRET, &without_claim(good("ann"), "exp")));
    add("A37 expired", hs256(SECRET, &with_claim(good("ann"), "exp", json!(now() - 10))));
    let times = [json!("99999999999"), json!(-1), Value::Null, json!({}), json!(true), json!([])];
    for value in times {
        for name in ["exp", "nbf", "iat"] {
            // An optional time that is null is one that isn't there.
            if name == "exp" || value != Value::Null {
                let token = hs256(SECRET, &with_claim(good("ann"), name, value.clone()));
                // A token from before 1970 is odd, not wrong, where it only says since when.
                if !(value == -1 && name != "exp") {
                    add(&format!("A38 {name} = {value}"), token);
                }
            }
        }
    }
    add("A39 not yet", hs256(SECRET, &with_claim(good("ann"), "nbf", json!(now() + 600))));
    all
}

/// The same bytes with other bits behind the last that counts.
fn other_trailing_bits(token: &str) -> String {
    let mut token = token.to_owned();
    let last = token.pop().expect("a token has a signature");
    // 32 bytes end in a character of which two bits count for nothing.
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let at = alphabet.find(last).expect("a character of base64url");
    token.push(alphabet.as_bytes()[at ^ 1].into());
    token
}

/// A token over a payload that no JSON library would write.
fn signed_text(payload: &str) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let content = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode("{\"alg\":\"HS256\"}"),
        URL_SAFE_NO_PAD.encode(payload)
    );
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(content.as_bytes());
    format!("{content}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

/// A08. A30. A31. A32. A33. A34. A36. A37. A38. A39. A40. A41. A43. A44. A45. A46. A48.
#[test]
fn a_token_that_proves_nothing_closes_with_3500_and_no_word_of_why() {
    let arena = arena(&["--set", "log.filter=trace"]);
    let mut bad = bad_tokens();
    bad.extend(bad_times());
    // The claims are good as they stand, and so is the way in which the worst are written.
    let nearly_late = with_claim(good("ann"), "exp", json!(now() - 3));
    let one_of_many = with_claim(good("ann"), "aud", json!(["other", AUDIENCE]));
    for claims in [good("ann"), nearly_late, one_of_many] {
        let mut socket =
            arena.open(&format!("{CONNECT}?token={}", signed_text(&claims.to_string())));
        assert_eq!(socket.expect_json("hello")["user_id"], "ann");
    }
    let mut answers = std::collections::BTreeSet::new();
    for (name, token) in &bad {
        let mut by_connect = arena.open(CONNECT);
        by_connect.send_json(&json!({"type": "connect", "id": 1, "token": token}));
        let mut disconnect = by_connect.expect_json("disconnect");
        disconnect.as_object_mut().unwrap().remove("timestamp");
        assert_eq!(disconnect["code"], 3500, "{name}: {disconnect}");
        answers.insert(disconnect.to_string());
        assert_closes(&mut by_connect, 3500, name);

        if token.bytes().all(|byte| byte.is_ascii_graphic()) {
            let mut by_query = arena.open(&format!("{CONNECT}?token={token}"));
            assert_closes(&mut by_query, 3500, name);
        }
    }
    assert_eq!(answers.len(), 1, "the answer tells what was wrong: {answers:?}");
    let log = arena.server().log();
    for (name, token) in bad.iter().filter(|(_, token)| token.len() > 20) {
        assert!(!log.contains(token.as_str()), "{name}: the token is in the log");
    }
    arena.finish();
}

/// A34. A47.
#[test]
fn a_huge_token_is_refused_before_it_is_looked_at() {
    let arena = arena(&["--set", "limits.message_bytes_max=4194304"]);
    let huge = format!("{}.{}.x", "a".repeat(1 << 20), "b".repeat(1 << 20));
    let before = arena.server().cpu_time();
    let mut socket = arena.open(CONNECT);
    socket.send_json(&json!({"type": "connect", "id": 1, "token": huge}));
    assert_closes(&mut socket, 3500, "a token of two mebibytes");
    let kid = "k".repeat(1 << 20);
    let token = under(&json!({"alg": "HS256", "kid": kid}));
    let mut socket = arena.open(CONNECT);
    socket.send_json(&json!({"type": "connect", "id": 1, "token": token}));
    assert_closes(&mut socket, 3500, "a kid of a mebibyte");
    let took = arena.server().cpu_time() - before;
    assert!(took < Duration::from_secs(1), "they cost {took:?}");
    arena.finish();
}

/// A07.
#[test]
fn a_token_may_come_in_four_places_but_only_one_token() {
    let arena = arena(&[]);
    let (ann, eve) = (good_token("ann"), good_token("eve"));
    let upgraded = |query: &str, headers: &[(&str, &str)]| {
        let mut socket = arena.connect();
        let head = socket.upgrade(&format!("{CONNECT}{query}"), headers);
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert!(!head.contains("bearer."), "the token came back: {head}");
        socket
    };
    let bearer = |token: &str| format!("Bearer {token}");
    let offer = |token: &str| format!("roomkeeper.v2, bearer.{token}");
    let query = |token: &str| format!("?token={token}");
    for mut socket in [
        upgraded(&query(&ann), &[]),
        upgraded("", &[("Authorization", &bearer(&ann))]),
        upgraded("", &[("Sec-WebSocket-Protocol", &offer(&ann))]),
        upgraded(&query(&ann), &[("Authorization", &bearer(&ann))]),
    ] {
        assert_eq!(socket.expect_json("hello")["user_id"], "ann");
    }
    let mut socket = upgraded("", &[]);
    socket.send_json(&json!({"type": "connect", "id": 1, "token": ann}));
    assert_eq!(socket.expect_json("hello")["user_id"], "ann");

    let two_queries = format!("{}&token={eve}", query(&ann));
    for mut socket in [
        upgraded(&query(&ann), &[("Authorization", &bearer(&eve))]),
        upgraded(&query(&ann), &[("Sec-WebSocket-Protocol", &offer(&eve))]),
        upgraded("", &[("Authorization", &bearer(&ann)), ("Sec-WebSocket-Protocol", &offer(&eve))]),
        upgraded(&two_queries, &[]),
    ] {
        assert_closes(&mut socket, 3500, "two tokens");
    }
    arena.finish();
}

/// A05.
#[test]
fn a_cookie_lets_nobody_in() {
    let arena = arena(&["--set", "server.allowed_origins=https://app.example.com"]);
    let cookie = format!("token={0}; access_token={0}; session={0}", good_token("ann"));
    let mut foreign = arena.connect();
    let head = foreign.upgrade(CONNECT, &[("Cookie", &cookie), ("Origin", "https://evil.io")]);
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    let mut own = arena.connect();
    let origin = ("Origin", "https://app.example.com");
    assert!(own.upgrade(CONNECT, &[("Cookie", &cookie), origin]).starts_with("HTTP/1.1 101"));
    own.send_json(&json!({"type": "connect", "id": 1}));
    assert_closes(&mut own, 3500, "nothing but a cookie");
    arena.finish();
}

/// A09.
#[test]
fn who_does_not_say_who_it_is_gets_nothing_and_is_closed_in_time() {
    let arena = arena(&["--set", "auth.authentication_timeout_ms=600"]);
    let baseline = arena.server().open_fds();
    let room = new_room();
    let begun = Instant::now();
    let mut silent = (0..100).map(|_| arena.open(CONNECT)).collect::<Vec<_>>();
    let mut chatty = arena.open(CONNECT);
    for kind in ["subscribe", "publish", "presence", "presence_update", "history"] {
        let data = if kind.starts_with('p') && kind != "presence" { json!(1) } else { Value::Null };
        let mut command = json!({"type": kind, "id": 1, "room": room, "data": data});
        if data == Value::Null {
            command.as_object_mut().unwrap().remove("data");
        }
        chatty.send_json(&command);
        assert_eq!(chatty.next_json()["code"], 111, "{kind}");
    }
    for socket in silent.iter_mut().chain([&mut chatty]) {
        assert_eq!(socket.expect_json("disconnect")["code"], 3504);
        assert_closes(socket, 3504, "nobody in particular");
    }
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(550), "closed after {took:?} already");
    assert!(took < Duration::from_secs(4), "closed after {took:?} only");
    arena.until("the descriptors are back", |server| server.open_fds() <= baseline);
    arena.finish();
}

/// A09.
#[test]
fn who_keeps_talking_without_a_name_is_closed_in_time_all_the_same() {
    let arena = arena(&["--set", "auth.authentication_timeout_ms=600"]);
    let begun = Instant::now();
    let mut socket = arena.open(CONNECT);
    let ping = [Frame::new(9, b"").bytes(), Frame::text("{\"type\":\"ping\"}").bytes()].concat();
    while !socket.ends_within(Duration::from_millis(50)) {
        socket.try_send(&ping);
        assert!(begun.elapsed() < Duration::from_secs(4), "it is still open");
    }
    assert_eq!(socket.read_close_code(), 3504);
    arena.finish();
}

/// A10.
#[test]
fn an_identity_is_fixed_once_it_is_known() {
    let arena = arena(&[]);
    let path = format!("{CONNECT}?token={}", good_token("ann"));
    // Without a token it brings nobody else, and may come once.
    let nobody_else = [json!({"type": "connect", "id": 0}), json!({"type": "connect", "id": 1})];
    for (first, second) in [
        (json!({"type": "connect", "id": 0, "token": good_token("eve")}), None),
        (json!({"type": "connect", "id": 0, "token": good_token("ann")}), None),
        (nobody_else[0].clone(), Some(nobody_else[1].clone())),
    ] {
        let mut socket = arena.open(&path);
        socket.expect_json("hello");
        socket.send_json(&first);
        if let Some(second) = second {
            assert_eq!(socket.expect_json("hello")["user_id"], "ann");
            socket.send_json(&second);
        }
        assert_eq!(socket.next_json()["code"], 112);
        socket.send_json(&json!({"type": "status", "id": 2}));
        assert_eq!(socket.expect_json("status")["user_id"], "ann");
    }
    let mut socket = arena.open(&path);
    socket.expect_json("hello");
    socket.send_json(&json!({"type": "refresh", "id": 1, "token": good_token("eve")}));
    assert_closes(&mut socket, 3500, "another user's token");
    arena.finish();
}

/// A08.
#[test]
fn neither_tokens_nor_payloads_stand_in_the_log() {
    let arena = arena(&["--set", "log.filter=trace"]);
    let token = good_token("ann");
    let canary = "payload-canary-3b1f";
    let room = new_room();
    let mut sockets = vec![arena.open(&format!("{CONNECT}?token={token}"))];
    for headers in [
        [("Authorization", format!("Bearer {token}"))],
        [("Sec-WebSocket-Protocol", format!("roomkeeper.v2, bearer.{token}"))],
    ] {
        let mut socket = arena.connect();
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        socket.upgrade(CONNECT, &headers);
        sockets.push(socket);
    }
    for socket in &mut sockets {
        socket.expect_json("hello");
        subscribe(socket, &room);
        socket.send_json(&json!({"type": "refresh", "id": 2, "token": token}));
        socket.expect_json("refreshed");
        socket.send_json(&json!({"type": "publish", "id": 3, "room": room, "data": canary}));
        socket.expect_json("ack");
        for wrong in [
            json!({"type": "publish", "id": 4, "room": room, "data": canary, "ttl_ms": "x"}),
            json!({"type": "connect", "id": 5, "token": token}),
            json!({"type": "refresh", "id": 6, "token": [token]}),
            json!({"type": "what", "id": 7, "token": token, "data": canary}),
        ] {
            socket.send_json(&wrong);
            assert_no_secret(&next_error(socket), &token, canary);
        }
        socket.send_text(&format!("{canary} {token}"));
        assert_no_secret(&next_error(socket), &token, canary);
        socket.send(&Frame::close(4000, canary).bytes());
        assert_closes(socket, 4000, "a reason");
    }
    let log = arena.server().log();
    assert!(!log.is_empty(), "a trace of nothing proves nothing");
    assert_no_secret(&log, &token, canary);
    arena.finish();
}

fn next_error(socket: &mut RawSocket) -> String {
    loop {
        let value = socket.next_json();
        if value["type"] == "error" {
            return value.to_string();
        }
    }
}

#[track_caller]
fn assert_no_secret(text: &str, token: &str, canary: &str) {
    let signature = token.rsplit('.').next().unwrap();
    for secret in [token, signature, canary, SECRET] {
        assert!(!text.contains(secret), "{secret} stands in {text}");
    }
}
