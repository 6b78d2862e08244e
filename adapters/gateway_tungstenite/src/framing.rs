//! Frames, as tungstenite writes them: once per message, however many get it.
//!
//! It must never know who gets a frame.

use bytes::Bytes;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};

/// One text message in one frame.
pub(crate) fn text(message: &[u8]) -> Bytes {
    let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
    let length = message.len() as u64;
    let mut bytes = Vec::with_capacity(header.len(length) + message.len());
    // Only a writer can fail, and a vector never does.
    let _ = header.format(length, &mut bytes);
    bytes.extend_from_slice(message);
    bytes.into()
}

/// A close frame. The reason must be 123 bytes at most.
pub(crate) fn close(code: u16, reason: &str) -> Bytes {
    let frame = Frame::close(Some(CloseFrame { code: code.into(), reason: reason.into() }));
    let mut bytes = Vec::with_capacity(frame.len());
    let _ = frame.format(&mut bytes);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_whole_and_not_masked() {
        assert_eq!(&text(b"hi")[..], b"\x81\x02hi");
        let long = text(&[b'x'; 300]);
        assert_eq!((&long[..4], long.len()), (&b"\x81\x7e\x01\x2c"[..], 304));
        assert_eq!(&close(1001, "so")[..], b"\x88\x04\x03\xe9so");
    }
}
