//! The messages of a run: how one is said, and how it is known again.
//!
//! It must never build a tree of a message: where deliveries are counted those are found by their first bytes, and a
//! number in their data tells which one it is.

use domain::protocol::client_event;
use domain::protocol::{ClientFrame, encode_client};
use domain::room::RoomId;
use domain::tags::Tags;

/// What published data begins with; behind it stand the run and the message's number.
const MARK: &str = "rk";
/// Hexadecimal digits of each of the two.
const DIGITS: usize = 8;
/// The shortest data that has all that.
pub(crate) const DATA_BYTES_MIN: usize = MARK.len() + 2 * DIGITS;

const MESSAGE: &str = r#"{"type":"message","room":""#;
const TOMBSTONE: &str = r#"{"type":"tombstone","#;
const DATA: &str = r#""data":""#;
const OFFSET: &str = r#""offset":"#;

/// The command that publishes without being acknowledged: the least that a publish can cost.
pub(crate) fn publish(room: &RoomId, text: &str) -> String {
    encode_client(&ClientFrame::Publish {
        id: None,
        room: room.clone(),
        data: &data(text),
        msg_id: None,
        echo: true,
        class: None,
        key: None,
        ttl: None,
        tags: Tags::default(),
        trace: None,
    })
}

/// A text as the data of a message. It has nothing that JSON escapes.
pub(crate) fn data(text: &str) -> String {
    format!("\"{text}\"")
}

/// The text of a message: mark, run, number, and letters up to the size.
pub(crate) fn text(run: u32, number: u32, padding: &str) -> String {
    format!("{MARK}{run:08x}{number:08x}{padding}")
}

/// The number in a text, if it is this run's.
pub(crate) fn number(text: &str, run: u32) -> Option<u32> {
    let rest = text.strip_prefix(MARK)?;
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

impl<'a> Message<'a> {
    /// One that the client's machine has handed over.
    pub(crate) fn of(message: &'a client_event::Message, run: u32) -> Self {
        let text = message.data.strip_prefix('"');
        Self {
            room: message.room.as_str(),
            offset: message.offset.map(domain::position::Offset::get),
            number: text.and_then(|text| number(text, run)),
        }
    }
}

/// What one frame is, by its first bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Frame<'a> {
    Message(Message<'a>),
    /// The place of a message that is gone.
    Tombstone,
    /// No place of a log.
    Other,
}

/// Looks at a frame as far as counting needs it.
pub(crate) fn scan(frame: &str, run: u32) -> Frame<'_> {
    if let Some(message) = message(frame, run) {
        return Frame::Message(message);
    }
    if frame.starts_with(TOMBSTONE) { Frame::Tombstone } else { Frame::Other }
}

fn message(frame: &str, run: u32) -> Option<Message<'_>> {
    let rest = frame.strip_prefix(MESSAGE)?;
    let (room, rest) = rest.split_once('"')?;
    let offset = rest.find(OFFSET).and_then(|at| {
        let digits = &rest[at + OFFSET.len()..];
        let end = digits.bytes().position(|byte| !byte.is_ascii_digit())?;
        digits[..end].parse().ok()
    });
    let text = rest.find(DATA).map(|at| &rest[at + DATA.len()..]);
    Some(Message { room, offset, number: text.and_then(|text| number(text, run)) })
}

#[cfg(test)]
mod tests {
    use domain::client::RoomPhase;
    use domain::protocol::client_event::Event;

    use super::*;

    const FRAME: &str = r#"{"type":"message","room":"public:r/1","epoch":"000000000000004e","offset":12,"sender":{"user_id":null,"connection_id":"00000000000000d8"},"data":"rk0000002a0000000fabc","timestamp":"x"}"#;

    #[test]
    fn a_message_is_found_with_its_room_offset_and_number() {
        let found = Message { room: "public:r/1", offset: Some(12), number: Some(15) };
        assert_eq!(scan(FRAME, 42), Frame::Message(found));
        let of_another_run = Message { number: None, ..found };
        assert_eq!(scan(FRAME, 43), Frame::Message(of_another_run));
        let other = FRAME.replace("rk0000002a", "hello").replace("12", "null");
        assert_eq!(scan(&other, 42), Frame::Message(Message { offset: None, ..of_another_run }));
        assert_eq!(scan(r#"{"type":"ping"}"#, 42), Frame::Other);
        assert_eq!(scan(&FRAME.replace("message", "tombstone"), 42), Frame::Tombstone);
    }

    #[test]
    fn what_is_scanned_is_what_the_clients_machine_would_have_handed_over() {
        let mut machine = crate::client::tests::joined("public:r/1");
        assert_eq!(machine.room_phase(&room()), Some(RoomPhase::Joined));
        machine.text(FRAME, crate::client::tests::now());
        let Some(Event::Message(handed)) = machine.events.pop_front() else { panic!("no message") };
        assert_eq!(Frame::Message(Message::of(&handed, 42)), scan(FRAME, 42));
    }

    #[test]
    fn a_text_carries_run_and_number() {
        assert_eq!(text(1, 2, "xy"), "rk0000000100000002xy");
        assert_eq!(number(&text(7, u32::MAX, ""), 7), Some(u32::MAX));
        for wrong in ["", "rk", "rk00000007", "rk000000070000000", "xx0000000700000001"] {
            assert_eq!(number(wrong, 7), None, "{wrong}");
        }
        let command = publish(&room(), &text(1, 2, "xy"));
        let expected = r#"{"type":"publish","room":"public:r/1","data":"rk0000000100000002xy"}"#;
        assert_eq!(command, expected);
    }

    fn room() -> RoomId {
        RoomId::parse("public:r/1").unwrap()
    }
}
