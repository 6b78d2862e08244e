//! Heads of requests, good ones and bad ones. What a whole gateway does with them is told by the
//! tests that start one.

use super::*;
use crate::origin::Origin;

type Field<'a> = (&'a str, &'a [u8]);

const USUAL: [Field<'static>; 5] = [
    ("host", b"localhost"),
    ("connection", b"keep-alive, Upgrade"),
    ("upgrade", b"websocket"),
    ("sec-websocket-version", b"13"),
    ("sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
];

/// The usual fields but for those that `changes` names.
fn fields<'a>(changes: &[Field<'a>]) -> Vec<Field<'a>> {
    let kept = USUAL.iter().filter(|(name, _)| !changes.iter().any(|(other, _)| other == name));
    kept.chain(changes).copied().collect()
}

fn read_with(query: &str, changes: &[Field<'_>]) -> Result<Upgrade, UpgradeRefusal> {
    let fields = fields(changes);
    let head = Head { method: "GET", is_http_1_1: true, is_path: true, query, fields: &fields };
    read(&head, &OriginPolicy::default(), Endpoint::V2)
}

fn status(changes: &[Field<'_>]) -> u16 {
    read_with("", changes).map_or_else(|refusal| refusal.status, |_| 101)
}

#[test]
fn a_good_request_says_what_it_wants() {
    let upgrade = read_with(
        "client_id=tab-1&token=abc",
        &[("sec-websocket-protocol", b"x, roomkeeper.v2, bearer.abc")],
    );
    let wanted = Upgrade {
        key: "dGhlIHNhbXBsZSBub25jZQ==".to_owned(),
        offers_subprotocol: true,
        client: Some(ClientId::parse("tab-1").unwrap()),
        token: Some("abc".to_owned()),
        conflicting_tokens: false,
        view: View::V2,
        place: None,
    };
    assert_eq!(upgrade, Ok(wanted));
}

#[test]
fn a_token_comes_from_three_places_and_two_different_ones_are_told() {
    let bearer: Field<'_> = ("authorization", b"bEARER two");
    let two = read_with("", &[bearer]).unwrap();
    assert_eq!((two.token.as_deref(), two.conflicting_tokens), (Some("two"), false));
    let both = read_with("token=one", &[bearer]).unwrap();
    assert_eq!((both.token.as_deref(), both.conflicting_tokens), (Some("one"), true));
}

#[test]
fn a_header_that_may_come_once_comes_once() {
    for (name, value) in USUAL.into_iter().filter(|(name, _)| *name != "connection") {
        // A list may be spread over lines.
        let expected = if name == "upgrade" { 101 } else { 400 };
        assert_eq!(status(&[(name, value), (name, value)]), expected, "{name}");
    }
    assert_eq!(status(&[("origin", b"http://a"), ("origin", b"http://a")]), 400);
}

#[test]
fn what_is_no_upgrade_is_told_why_with_the_header_that_belongs_to_it() {
    let refused = read_with("", &[("upgrade", b"h2c")]).unwrap_err();
    assert_eq!((refused.status, refused.header), (426, Some(("upgrade", "websocket"))));
    let refused = read_with("", &[("sec-websocket-version", b"8")]).unwrap_err();
    assert_eq!((refused.status, refused.header), (426, Some(("sec-websocket-version", "13"))));
    let fields = fields(&[]);
    let head =
        Head { method: "POST", is_http_1_1: true, is_path: true, query: "", fields: &fields };
    let refused = read(&head, &OriginPolicy::default(), Endpoint::V2).unwrap_err();
    assert_eq!((refused.status, refused.header), (405, Some(("allow", "GET"))));
    for head in [
        Head { is_http_1_1: false, method: "GET", ..head },
        Head { is_path: false, method: "GET", ..head },
    ] {
        assert_eq!(read(&head, &OriginPolicy::default(), Endpoint::V2).unwrap_err().status, 400);
    }
    for name in ["content-length", "transfer-encoding"] {
        assert_eq!(status(&[(name, b"0")]), 400, "{name}");
    }
    for host in [&b""[..], b"a,b", b"user@host", b"\xe9"] {
        assert_eq!(status(&[("host", host)]), 400);
    }
}

#[test]
fn a_page_that_may_not_connect_is_told_before_anything_else() {
    let origins = OriginPolicy {
        allowed: vec![Origin::parse("https://app.example.com").unwrap()],
        ..OriginPolicy::default()
    };
    for (origin, status) in [(&b"https://app.example.com"[..], 101), (b"https://evil.io", 403)] {
        let fields = fields(&[("origin", origin), ("upgrade", b"websocket")]);
        let head =
            Head { method: "GET", is_http_1_1: true, is_path: true, query: "", fields: &fields };
        let given =
            read(&head, &origins, Endpoint::V2).map_or_else(|refusal| refusal.status, |_| 101);
        assert_eq!(given, status);
    }
}

#[test]
fn a_key_is_the_one_spelling_of_sixteen_bytes() {
    for good in ["dGhlIHNhbXBsZSBub25jZQ==", "AAAAAAAAAAAAAAAAAAAAAA==", "+/+/+/+/+/+/+/+/+/+/+w=="]
    {
        assert!(is_key(good), "{good}");
    }
    for bad in [
        "",
        "AAAAAAAAAAAAAAAAAAAA",        // 15 bytes
        "AAAAAAAAAAAAAAAAAAAAAAA=",    // 17 bytes
        "AAAAAAAAAAAAAAAAAAAAAAAA",    // 18 bytes
        "AAAAAAAAAAAAAAAAAAAAAA",      // without padding
        "AAAAAAAAAAAAAAAAAAAAAB==",    // trailing bits
        "dGhlIHNhbXBsZSBub25-ZQ==",    // the URL alphabet
        " dGhlIHNhbXBsZSBub25jZQ=",    // a space
        "\u{e4}GhlIHNhbXBsZSBub25j==", // not ASCII
    ] {
        assert!(!is_key(bad), "{bad:?}");
    }
}

#[test]
fn who_gives_itself_no_label_gets_one() {
    let connection = ConnectionId::from_bits(7);
    let opening = Upgrade::default().into_opening(connection);
    assert_eq!(opening.client.as_str(), format!("c-{connection}"));
}
