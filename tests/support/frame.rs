//! RFC 6455 frames, right ones and wrong ones, as bytes.
//!
//! Written again for the tests: a mistake in the server's codec must not be shared by its judge.

/// Opcode of a continuation.
pub const CONTINUATION: u8 = 0x0;
/// Opcode of text.
pub const TEXT: u8 = 0x1;
/// Opcode of binary.
pub const BINARY: u8 = 0x2;
/// Opcode of a close.
pub const CLOSE: u8 = 0x8;
/// Opcode of a ping.
pub const PING: u8 = 0x9;
/// Opcode of a pong.
pub const PONG: u8 = 0xA;

/// A frame to send. Every field may be wrong.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Whether the message ends here.
    pub fin: bool,
    /// The three reserved bits, as a number from 0 to 7.
    pub rsv: u8,
    /// Any of the sixteen.
    pub opcode: u8,
    /// The key of a masked frame; clients have to mask.
    pub mask: Option<[u8; 4]>,
    /// The length that the head claims, if it isn't that of the payload.
    pub claimed: Option<u64>,
    /// Before masking.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A lawful frame of a client.
    #[must_use]
    pub fn new(opcode: u8, payload: &[u8]) -> Self {
        let mask = Some([0x37, 0xfa, 0x21, 0x3d]);
        Self { fin: true, rsv: 0, opcode, mask, claimed: None, payload: payload.to_vec() }
    }

    /// A lawful text frame of a client.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::new(TEXT, text.as_bytes())
    }

    /// A lawful close frame of a client.
    #[must_use]
    pub fn close(code: u16, reason: &str) -> Self {
        Self::new(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat())
    }

    /// What goes over the wire.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.fin) << 7 | (self.rsv & 7) << 4 | (self.opcode & 15)];
        let masked = u8::from(self.mask.is_some()) << 7;
        let length = self.claimed.unwrap_or(self.payload.len() as u64);
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short), _) if short < 126 => bytes.push(masked | short),
            (_, Ok(medium)) => {
                bytes.push(masked | 126);
                bytes.extend(medium.to_be_bytes());
            }
            _ => {
                bytes.push(masked | 127);
                bytes.extend(length.to_be_bytes());
            }
        }
        let key = self.mask.unwrap_or_default();
        bytes.extend(self.mask.iter().flatten());
        bytes.extend(self.payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes
    }
}

/// A frame that came.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Received {
    /// Whether the message ends here.
    pub fin: bool,
    /// The three reserved bits.
    pub rsv: u8,
    /// Its opcode.
    pub opcode: u8,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// Takes the first frame of a server out of `buffer`; none while it isn't all there.
///
/// # Panics
///
/// When the frame is masked, which no server may do.
pub fn take(buffer: &mut Vec<u8>) -> Option<Received> {
    let second = *buffer.get(1)?;
    assert!(second & 0x80 == 0, "the server masked a frame (RFC 6455, 5.1)");
    take_either(buffer)
}

/// Takes the first frame of a client out of `buffer`; none while it isn't all there.
///
/// # Panics
///
/// When the frame is not masked, which every client has to do.
pub fn take_masked(buffer: &mut Vec<u8>) -> Option<Received> {
    let second = *buffer.get(1)?;
    assert!(second & 0x80 != 0, "the client did not mask a frame (RFC 6455, 5.1)");
    take_either(buffer)
}

fn take_either(buffer: &mut Vec<u8>) -> Option<Received> {
    let [first, second, ..] = *buffer.as_slice() else { return None };
    let (head, length) = match second & 0x7f {
        126 => (4, u64::from(u16::from_be_bytes(buffer.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(buffer.get(2..10)?.try_into().ok()?)),
        short => (2, u64::from(short)),
    };
    let body = head + usize::from(second >> 7) * 4;
    let end = body + usize::try_from(length).expect("a frame fits into memory");
    let mut payload = buffer.get(body..end)?.to_vec();
    if let Some(key) = buffer.get(head..body).filter(|key| !key.is_empty()) {
        payload.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    }
    buffer.drain(..end);
    Some(Received { fin: first & 0x80 != 0, rsv: first >> 4 & 7, opcode: first & 15, payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_the_examples_of_rfc_6455_section_5_7() {
        let hello = Frame::text("Hello");
        let masked = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(hello.bytes(), masked);
        let bare = Frame { mask: None, ..hello }.bytes();
        assert_eq!(bare, [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
    }

    #[test]
    fn what_a_client_masked_is_taken_as_it_was() {
        let mut buffer = [Frame::text("Hello").bytes(), vec![0x8a]].concat();
        let received = take_masked(&mut buffer).unwrap();
        assert_eq!((received.opcode, received.payload.as_slice()), (TEXT, &b"Hello"[..]));
        assert_eq!(buffer, [0x8a]);
        let mut cut = Frame::text("Hello").bytes()[..10].to_vec();
        assert_eq!(take_masked(&mut cut), None);
    }

    #[test]
    fn a_frame_of_any_length_is_taken_whole_or_not_at_all() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let payload = vec![7; length];
            let frame = Frame { mask: None, ..Frame::new(BINARY, &payload) };
            let bytes = frame.bytes();
            let mut cut = bytes[..bytes.len() - 1].to_vec();
            assert_eq!(take(&mut cut), None);
            let mut buffer = [bytes, vec![0x8a]].concat();
            let received = take(&mut buffer).unwrap();
            assert_eq!((received.fin, received.rsv, received.opcode), (true, 0, BINARY));
            assert_eq!(received.payload, payload);
            assert_eq!(buffer, [0x8a]);
        }
    }
}
