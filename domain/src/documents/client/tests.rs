//! The handshake of `/ws/client` and its frames, as the document prints them.

use super::*;
use crate::codes::ErrorCode;
use crate::id::ConnectionId;

fn at(text: &str) -> Wall {
    assert_eq!(text, "2025-08-15T10:00:00Z");
    Wall::from_millis(1_755_252_000_000)
}

fn encoded(frame: &ServerFrame<'_>, now: Wall) -> Option<String> {
    let client = ClientId::parse("abc-123").unwrap();
    let mut out = Vec::new();
    let said = encode(frame, (&client, Role::Admin), now, &mut out);
    said.then(|| String::from_utf8(out).unwrap())
}

#[test]
fn the_query_names_a_client_and_leaves_out_what_has_a_default() {
    let abc = || ClientId::parse("abc-123").unwrap();
    for (query, role) in [
        ("client_id=abc-123", Role::Frontend),
        ("client_id=abc-123&version=1&role=frontend", Role::Frontend),
        ("role=admin&version=1&client_id=abc-123", Role::Admin),
        ("client_id=abc-123&role=test&utm=1&", Role::Test),
    ] {
        assert_eq!(read_query(query), Ok((abc(), role)), "{query}");
    }
    let uuid = "client_id=550e8400-e29b-41d4-a716-446655440000";
    assert!(read_query(uuid).is_ok());
}

#[test]
fn version_comes_before_role_and_role_before_the_id() {
    let (version, role, id) = (
        CloseCode::UnsupportedClientVersion,
        CloseCode::InvalidClientRole,
        CloseCode::PolicyViolation,
    );
    for (query, code) in [
        ("client_id=a&version=2", version),
        ("client_id=a&version=", version),
        ("client_id=a&version=01", version),
        ("client_id=a&version=1&version=1", version),
        ("version=0&role=king", version),
        ("client_id=a&role=king", role),
        ("client_id=a&role=", role),
        ("client_id=a&role=Admin", role),
        ("client_id=a&role=admin&role=test", role),
        ("role=king", role),
        ("", id),
        ("client_id=", id),
        ("client_id=a%20b", id),
        ("client_id=a&client_id=a", id),
        ("Client_id=a", id),
    ] {
        assert_eq!(read_query(query), Err(code), "{query}");
    }
    assert_eq!(read_query(&format!("client_id={}", "x".repeat(129))), Err(id));
}

#[test]
fn hello_has_exactly_the_documented_fields_in_their_order() {
    let client = ClientId::parse("somebody").unwrap();
    let hello = ServerFrame::Hello {
        id: None,
        features: &["recovery"],
        request_id: "req-uuid",
        client_id: &client,
        connection_id: ConnectionId::from_bits(1),
        user_id: None,
        rooms: &[],
        session: Some("a ticket"),
        resumed: &[],
        heartbeat_interval_ms: 25_000,
    };
    let printed = r#"{"type":"hello","server_time":"2025-08-15T10:00:00Z","accepted_version":1,"features":["heartbeat","structured_messages","error_codes","graceful_reconnect"],"request_id":"req-uuid","client_id":"abc-123","heartbeat_interval_ms":25000}"#;
    assert_eq!(encoded(&hello, at("2025-08-15T10:00:00Z")).as_deref(), Some(printed));
}

#[test]
fn every_other_message_has_a_type_and_a_timestamp() {
    let now = at("2025-08-15T10:00:00Z");
    let error = ServerFrame::Error {
        id: Some(7),
        code: ErrorCode::UnknownType,
        message: "no such type",
        field: Some("type"),
        retry_after_ms: None,
    };
    for (frame, printed) in [
        (ServerFrame::Ping, r#"{"type":"ping","timestamp":"2025-08-15T10:00:00Z"}"#),
        (ServerFrame::Pong { id: None }, r#"{"type":"pong","timestamp":"2025-08-15T10:00:00Z"}"#),
        (
            ServerFrame::Pong { id: Some(3) },
            r#"{"type":"pong","id":3,"timestamp":"2025-08-15T10:00:00Z"}"#,
        ),
        (
            error,
            r#"{"type":"error","id":7,"code":101,"error":"unknown_type","message":"no such type","field":"type","retry_after_ms":null,"timestamp":"2025-08-15T10:00:00Z"}"#,
        ),
    ] {
        assert_eq!(encoded(&frame, now).as_deref(), Some(printed));
    }
}

#[test]
fn status_tells_who_is_connected_as_what_and_since_when() {
    let now = at("2025-08-15T10:00:00Z");
    let status = ServerFrame::Status {
        id: None,
        connection_id: ConnectionId::from_bits(1),
        user_id: None,
        rooms: &[],
        connected_since: Wall::from_millis(now.as_millis() - 61_500),
        queue_bytes: 0,
        request_id: "r-1",
    };
    let printed = r#"{"type":"status","status":"connected","client_id":"abc-123","role":"admin","accepted_version":1,"connected_since":"2025-08-15T09:58:58Z","uptime_ms":61500,"request_id":"r-1","timestamp":"2025-08-15T10:00:00Z"}"#;
    assert_eq!(encoded(&status, now).as_deref(), Some(printed));
}

#[test]
fn of_rooms_and_tokens_nothing_is_said() {
    let code = CloseCode::ServiceRestart;
    for frame in [
        ServerFrame::Disconnect { code, reconnect_after_ms: None },
        ServerFrame::TokenExpiring { expires_at: Wall::from_millis(0) },
    ] {
        assert_eq!(encoded(&frame, Wall::from_millis(0)), None);
    }
}
