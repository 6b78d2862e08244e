//! RFC 6455 from the client's side, by hand: the upgrade request, masked frames out, plain frames
//! in. It must never copy a payload that came in.

pub(crate) const TEXT: u8 = 1;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// The same for all frames: what is published here is no secret, and the bytes of a run don't
/// change from one to the next.
const MASK: [u8; 4] = [0x5a, 0xc3, 0x17, 0xe8];

pub(crate) fn upgrade(host: &str, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: cm9vbWtlZXBlci1sb2FkLQ==\r\n\r\n"
    )
}

/// Appends a whole masked frame.
#[allow(clippy::cast_possible_truncation, reason = "each arm has checked that it fits")]
pub(crate) fn append(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match payload.len() {
        short @ ..126 => out.push(0x80 | short as u8),
        middle @ 126..65_536 => {
            out.push(0x80 | 126);
            out.extend((middle as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend((long as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// The frame at the front of `bytes`: opcode, payload, and how long it is with its header.
#[inline]
pub(crate) fn front(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let [first, second, rest @ ..] = bytes else { return None };
    let (length, head) = match *second & 0x7f {
        126 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
        127 => (usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?, 10),
        short => (usize::from(short), 2),
    };
    let end = head + length;
    Some((first & 0x0f, bytes.get(head..end)?, end))
}
