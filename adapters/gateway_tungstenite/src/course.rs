//! How far a connection's frames are, by their heads alone: tungstenite tells of whole messages only,
//! while a message must end in time and within a number of fragments.
//!
//! It must never look at a payload; what is in it is tungstenite's to judge.

use std::io::Cursor;

use domain::codes::CloseCode;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::OpCode;

/// The longest payload that RFC 6455 can spell.
const LENGTH_MAX: u64 = i64::MAX as u64;

/// Follows the bytes of one connection.
#[derive(Debug, Default)]
pub(crate) struct Course {
    /// The head of a frame as far as it came; 14 bytes at most.
    head: Vec<u8>,
    /// How much of the payload behind it is missing.
    missing: u64,
    /// How many frames of an unfinished message have begun.
    n_fragments: u32,
    /// The most that any message had.
    n_most: u32,
    /// How much an unfinished message is so far, by what its heads declare.
    declared_bytes: u64,
    /// The most that any message was.
    declared_most: u64,
    /// A length was spelled as it must not be.
    is_misspelled: bool,
}

impl Course {
    /// These bytes came.
    pub(crate) fn follow(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.missing > 0 {
                let n = usize::try_from(self.missing).unwrap_or(usize::MAX).min(bytes.len());
                self.missing -= n as u64;
                bytes = &bytes[n..];
                continue;
            }
            self.head.push(*first);
            bytes = rest;
            match FrameHeader::parse(&mut Cursor::new(&self.head)) {
                Ok(None) => {}
                Ok(Some((header, length))) => self.begin(&header, length),
                // tungstenite finds the same, and then nothing is read any more.
                Err(_) => return self.head.clear(),
            }
        }
    }

    fn begin(&mut self, header: &FrameHeader, length: u64) {
        self.is_misspelled |= self.head.len() != header.len(length) || length > LENGTH_MAX;
        self.head.clear();
        self.missing = length;
        if matches!(header.opcode, OpCode::Data(_)) {
            self.n_fragments = self.n_fragments.saturating_add(1);
            self.n_most = self.n_most.max(self.n_fragments);
            self.declared_bytes = self.declared_bytes.saturating_add(length);
            self.declared_most = self.declared_most.max(self.declared_bytes);
            if header.is_final {
                (self.n_fragments, self.declared_bytes) = (0, 0);
            }
        }
    }

    /// Whether something has begun and not ended.
    pub(crate) const fn is_mid_message(&self) -> bool {
        !self.head.is_empty() || self.missing > 0 || self.n_fragments > 0
    }

    /// Why what came so far must not be taken, if so. A fault behind a message that came in the same
    /// read takes that message with it.
    pub(crate) const fn fault(&self, bytes_max: usize, fragments_max: u32) -> Option<CloseCode> {
        if self.is_misspelled() {
            Some(CloseCode::ProtocolError)
        } else if self.has_more_bytes_than(bytes_max) {
            Some(CloseCode::MessageTooBig)
        } else if self.has_more_fragments_than(fragments_max) {
            Some(CloseCode::PolicyViolation)
        } else {
            None
        }
    }

    /// Whether a message had more frames than this.
    pub(crate) const fn has_more_fragments_than(&self, most: u32) -> bool {
        self.n_most > most
    }

    /// Whether a message is longer than this by what its heads declare, however little of it came.
    pub(crate) const fn has_more_bytes_than(&self, most: usize) -> bool {
        self.declared_most > most as u64
    }

    /// Whether a length was not spelled in the shortest way, or cannot be.
    pub(crate) const fn is_misspelled(&self) -> bool {
        self.is_misspelled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Masked with zeros.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[first, 0x80 | length, 0, 0, 0, 0], payload].concat()
    }

    #[test]
    fn a_message_begins_with_its_first_byte_and_ends_with_its_last_however_they_are_cut() {
        let bytes = [frame(0x01, b"ab"), frame(0x89, b"ping"), frame(0x00, b""), frame(0x80, b"c")];
        let bytes = bytes.concat();
        for size in 1..bytes.len() {
            let mut course = Course::default();
            let (last, all_but_last) = bytes.split_last().unwrap();
            for piece in all_but_last.chunks(size) {
                course.follow(piece);
                assert!(course.is_mid_message());
            }
            course.follow(&[*last]);
            assert!(!course.is_mid_message());
            assert!(!course.has_more_fragments_than(3) && course.has_more_fragments_than(2));
            assert!(!course.is_misspelled());
        }
    }

    #[test]
    fn a_message_is_as_long_as_all_its_heads_declare_and_a_ping_within_is_no_part_of_it() {
        let mut course = Course::default();
        let before = [frame(0x81, b"abcd"), frame(0x01, b"ab"), frame(0x89, b"a longer ping")];
        course.follow(&before.concat());
        assert!(course.has_more_bytes_than(3) && !course.has_more_bytes_than(4));
        // Of the last one only the head came.
        course.follow(&frame(0x80, b"abcde")[..6]);
        assert!(course.has_more_bytes_than(6) && !course.has_more_bytes_than(7));
    }

    #[test]
    fn a_length_has_one_spelling() {
        for (head, wrong) in [
            (&[0x81, 0xfe, 0, 125, 0, 0, 0, 0][..], true),
            (&[0x81, 0xfe, 0, 126, 0, 0, 0, 0], false),
            (&[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0], true),
            (&[0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], false),
            (&[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], true),
        ] {
            let mut course = Course::default();
            course.follow(head);
            assert_eq!(course.is_misspelled(), wrong, "{head:?}");
        }
    }
}
