//! Frames for the wire: a header and its payload in one allocation.
//!
//! It must never be called once per member of a room: a frame is encoded once, and its
//! [`Bytes`] are shared.

use bytes::{BufMut, Bytes};

use crate::close::{CLOSE_REASON_BYTES_MAX, CloseCode};
use crate::frame_header::{CONTROL_BYTES_MAX, FIN_BIT, MASK_BIT, Opcode};
use crate::mask;

/// A whole text message, unmasked, as a server sends it (RFC 6455 section 5.6). The caller vouches
/// that `payload` is UTF-8.
#[must_use]
pub fn encode_text(payload: &[u8]) -> Bytes {
    encode_frame(Opcode::Text, true, payload)
}

/// Appends a whole unmasked text message to a buffer that grows, so that several small messages
/// share one write.
pub fn append_text<B: BufMut>(out: &mut B, payload: &[u8]) {
    put_header(out, first_byte(Opcode::Text, true), 0, payload.len());
    out.put_slice(payload);
}

/// One unmasked frame, exactly as told: a control frame longer than [`CONTROL_BYTES_MAX`] or
/// without `fin` is the caller's mistake, and the peer will say so (section 5.5).
#[must_use]
pub fn encode_frame(opcode: Opcode, fin: bool, payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(header_len(payload.len()) + payload.len());
    put_header(&mut out, first_byte(opcode, fin), 0, payload.len());
    out.extend_from_slice(payload);
    Bytes::from(out)
}

/// One masked frame, as a client sends it (section 5.3). The key is the caller's: it must be
/// unpredictable when the payload is not the caller's own.
#[must_use]
pub fn encode_masked(opcode: Opcode, fin: bool, payload: &[u8], mask_key: [u8; 4]) -> Bytes {
    let header_bytes = header_len(payload.len()) + mask_key.len();
    let mut out = Vec::with_capacity(header_bytes + payload.len());
    put_header(&mut out, first_byte(opcode, fin), MASK_BIT, payload.len());
    out.extend_from_slice(&mask_key);
    out.extend_from_slice(payload);
    mask::apply(out.get_mut(header_bytes..).unwrap_or_default(), mask_key, 0);
    Bytes::from(out)
}

/// A close frame (section 5.5.1). A reason over [`CLOSE_REASON_BYTES_MAX`] bytes is cut between two
/// characters: it is only for logs, and a longer frame would be illegal.
#[must_use]
pub fn encode_close(code: CloseCode, reason: &str) -> Bytes {
    let reason = &reason[..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)];
    let payload_len = 2 + reason.len();
    let mut out = Vec::with_capacity(header_len(payload_len) + payload_len);
    put_header(&mut out, first_byte(Opcode::Close, true), 0, payload_len);
    out.put_u16(code.get());
    out.extend_from_slice(reason.as_bytes());
    Bytes::from(out)
}

/// A ping (section 5.5.2). Only the first [`CONTROL_BYTES_MAX`] bytes are sent.
#[must_use]
pub fn encode_ping(payload: &[u8]) -> Bytes {
    encode_control(Opcode::Ping, payload)
}

/// The answer to a ping, with the ping's payload (section 5.5.3), which no decoder delivers longer
/// than [`CONTROL_BYTES_MAX`]; a longer one is cut.
#[must_use]
pub fn encode_pong(payload: &[u8]) -> Bytes {
    encode_control(Opcode::Pong, payload)
}

/// The length of an unmasked header before a payload of this length (section 5.2): 2, 4 or 10.
#[must_use]
pub const fn header_len(payload_len: usize) -> usize {
    match payload_len {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

fn encode_control(opcode: Opcode, payload: &[u8]) -> Bytes {
    let cut = payload.len().min(CONTROL_BYTES_MAX);
    encode_frame(opcode, true, &payload[..cut])
}

const fn first_byte(opcode: Opcode, fin: bool) -> u8 {
    if fin { FIN_BIT | opcode as u8 } else { opcode as u8 }
}

fn put_header<B: BufMut>(out: &mut B, first: u8, mask_bit: u8, payload_len: usize) {
    out.put_u8(first);
    match payload_len {
        0..=125 => out.put_u8(mask_bit | payload_len as u8),
        126..=0xffff => {
            out.put_u8(mask_bit | 126);
            out.put_u16(payload_len as u16);
        }
        _ => {
            out.put_u8(mask_bit | 127);
            out.put_u64(payload_len as u64);
        }
    }
}
