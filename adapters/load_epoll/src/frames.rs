//! What is said on the wire, and what is understood of what comes.
//!
//! It must never build a tree of a message: those are found by their first bytes, and a number in
//! their data tells which one it is.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::address::Target;

/// What published data begins with; behind it stand the run and the message's number.
const MARK: &str = "rk";
/// Hexadecimal digits of each of the two.
const DIGITS: usize = 8;
/// The shortest data that has all that.
pub(crate) const DATA_BYTES_MIN: usize = MARK.len() + 2 * DIGITS;

const MESSAGE: &str = r#"{"type":"message","room":""#;
const DATA: &str = r#""data":""#;
const OFFSET: &str = r#""offset":"#;
pub(crate) const PONG: &str = r#"{"type":"pong"}"#;
/// The `id` of `connect`.
pub(crate) const CONNECT_ID: u64 = 1;

pub(crate) fn upgrade(target: &Target, key: &str, token: Option<&str>) -> String {
    let (path, host) = (&target.path, &target.host);
    let mut head = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: roomkeeper-bench\r\n\
         Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {key}\r\n"
    );
    if let Some(token) = token {
        // A header, since addresses end up in logs.
        let _ = write!(head, "Authorization: Bearer {token}\r\n");
    }
    head.push_str("\r\n");
    head
}

pub(crate) fn subscribe(room: &str) -> String {
    format!(r#"{{"type":"subscribe","id":2,"room":"{room}"}}"#)
}

pub(crate) fn publish(room: &str, data: &str) -> String {
    format!(r#"{{"type":"publish","room":"{room}","data":"{data}"}}"#)
}

/// A publish that is acknowledged.
pub(crate) fn publish_with_id(room: &str, data: &str) -> String {
    format!(r#"{{"type":"publish","id":3,"room":"{room}","data":"{data}","echo":false}}"#)
}

/// Coming back, with a ticket if there is one, to rooms with epoch and offset.
pub(crate) fn connect(session: Option<&str>, rooms: &[(String, String, u64)]) -> String {
    let mut text = format!(r#"{{"type":"connect","id":{CONNECT_ID}"#);
    if let Some(session) = session {
        let _ = write!(text, r#","session":"{session}""#);
    }
    text.push_str(r#","resume":["#);
    for (place, (room, epoch, offset)) in rooms.iter().enumerate() {
        let comma = if place == 0 { "" } else { "," };
        let _ = write!(text, r#"{comma}{{"room":"{room}","epoch":"{epoch}","offset":{offset}}}"#);
    }
    text.push_str("]}");
    text
}

/// The data of a message: mark, run, number, and letters up to the size.
pub(crate) fn data(run: u32, number: u32, padding: &str) -> String {
    format!("{MARK}{run:08x}{number:08x}{padding}")
}

/// The number in data, if it is this run's.
pub(crate) fn number(data: &str, run: u32) -> Option<u32> {
    let rest = data.strip_prefix(MARK)?;
    let hex = |from: usize| u32::from_str_radix(rest.get(from..from + DIGITS)?, 16).ok();
    if hex(0)? == run { hex(DIGITS) } else { None }
}

/// What is looked at of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Message<'a> {
    pub(crate) room: &'a str,
    pub(crate) offset: Option<u64>,
    /// Its number, if it is one of this run.
    pub(crate) number: Option<u32>,
}

/// The frame as a message, if it is one.
pub(crate) fn message(frame: &str, run: u32) -> Option<Message<'_>> {
    let rest = frame.strip_prefix(MESSAGE)?;
    let (room, rest) = rest.split_once('"')?;
    let offset = rest.find(OFFSET).and_then(|at| {
        let digits = &rest[at + OFFSET.len()..];
        let end = digits.bytes().position(|byte| !byte.is_ascii_digit())?;
        digits[..end].parse().ok()
    });
    let data = rest.find(DATA).map(|at| &rest[at + DATA.len()..]);
    Some(Message { room, offset, number: data.and_then(|data| number(data, run)) })
}

/// Any other frame.
#[derive(Debug, Deserialize)]
pub(crate) struct Notice<'a> {
    #[serde(rename = "type", borrow)]
    pub(crate) kind: Cow<'a, str>,
    #[serde(default)]
    pub(crate) id: Option<u64>,
    #[serde(default, borrow)]
    pub(crate) room: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    pub(crate) epoch: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(crate) offset: Option<u64>,
    #[serde(default)]
    pub(crate) code: Option<u16>,
    #[serde(default, borrow)]
    pub(crate) message: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    pub(crate) session: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    pub(crate) messages: Option<Vec<&'a RawValue>>,
    #[serde(default, borrow)]
    pub(crate) resumed: Option<Vec<Resumed<'a>>>,
}

/// What became of one room in `hello.resumed`.
#[derive(Debug, Deserialize)]
pub(crate) struct Resumed<'a> {
    #[serde(borrow)]
    pub(crate) room: Cow<'a, str>,
    #[serde(default, borrow)]
    pub(crate) gap: Option<&'a RawValue>,
    #[serde(default)]
    pub(crate) error: Option<Refusal>,
    #[serde(default, borrow)]
    pub(crate) messages: Option<Vec<&'a RawValue>>,
}

/// Why a room is not given back.
#[derive(Debug, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
}

pub(crate) fn notice(frame: &str) -> Option<Notice<'_>> {
    serde_json::from_str(frame).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_found_with_its_room_offset_and_number() {
        let frame = r#"{"type":"message","room":"public:r/1","epoch":"4e","offset":12,"sender":{"user_id":null,"connection_id":"d8"},"data":"rk0000002a0000000fabc","timestamp":"x"}"#;
        let found = message(frame, 42).unwrap();
        assert_eq!(found, Message { room: "public:r/1", offset: Some(12), number: Some(15) });
        assert_eq!(message(frame, 43).unwrap().number, None);
        let other = frame.replace("rk0000002a", "hello").replace("12", "null");
        let found = message(&other, 42).unwrap();
        assert_eq!((found.offset, found.number), (None, None));
        assert_eq!(message(r#"{"type":"ping"}"#, 42), None);
    }

    #[test]
    fn data_carries_run_and_number() {
        assert_eq!(data(1, 2, "xy"), "rk0000000100000002xy");
        assert_eq!(number(&data(7, u32::MAX, ""), 7), Some(u32::MAX));
        for wrong in ["", "rk", "rk00000007", "rk000000070000000", "xx0000000700000001"] {
            assert_eq!(number(wrong, 7), None, "{wrong}");
        }
    }

    #[test]
    fn a_hello_tells_what_became_of_each_room() {
        let text = r#"{"type":"hello","id":1,"session":"AcL","resumed":[{"room":"chat:a","epoch":"e","offset":2,"recovered":true,"gap":null,"messages":[{"type":"message","room":"chat:a"}],"more":false},{"room":"chat:b","error":{"code":103,"error":"permission_denied","message":"no","retry_after_ms":null}}],"heartbeat_interval_ms":25000}"#;
        let hello = notice(text).unwrap();
        assert_eq!(
            (&*hello.kind, hello.id, hello.session.as_deref()),
            ("hello", Some(1), Some("AcL"))
        );
        let resumed = hello.resumed.unwrap();
        assert!(resumed[0].gap.is_none() && resumed[0].messages.as_ref().unwrap().len() == 1);
        assert_eq!(resumed[1].error.as_ref().unwrap().code, 103);
    }

    #[test]
    fn coming_back_names_each_room_with_its_position() {
        let rooms =
            [("chat:a".to_owned(), "e1".to_owned(), 3), ("chat:b".to_owned(), "e2".to_owned(), 0)];
        assert_eq!(
            connect(Some("AcL"), &rooms),
            r#"{"type":"connect","id":1,"session":"AcL","resume":[{"room":"chat:a","epoch":"e1","offset":3},{"room":"chat:b","epoch":"e2","offset":0}]}"#
        );
        assert_eq!(connect(None, &[]), r#"{"type":"connect","id":1,"resume":[]}"#);
    }
}
