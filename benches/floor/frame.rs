//! As much of RFC 6455 as a relay needs: where a client's frame begins and ends, and the header of
//! the frame that goes out. It must never look into a payload.

/// The kinds of frames that are told apart; the rest of the opcodes is passed over.
pub(crate) const TEXT: u8 = 1;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// A longer payload is a mistake of whoever measures; the read buffer holds more than that.
const PAYLOAD_BYTES_MAX: u64 = 128 * 1024;
const MASK_BYTES: usize = 4;

/// The next frame of a client: its opcode and where its payload lies, already unmasked.
pub(crate) struct Inbound {
    pub(crate) opcode: u8,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// What the bytes at the front of a buffer are.
pub(crate) enum Front {
    Whole(Inbound),
    Partial,
    Wrong,
}

/// Finds the frame at the front of `bytes` and unmasks its payload in place.
pub(crate) fn front(bytes: &mut [u8]) -> Front {
    let [first, second, ..] = *bytes else { return Front::Partial };
    if second & 0x80 == 0 {
        return Front::Wrong;
    }
    let (length, head) = match (second & 0x7f, bytes.len()) {
        (126, 4..) => (u64::from(u16::from_be_bytes([bytes[2], bytes[3]])), 4),
        (127, 10..) => (u64::from_be_bytes(bytes[2..10].try_into().expect("eight bytes")), 10),
        (126 | 127, _) => return Front::Partial,
        (short, _) => (u64::from(short), 2),
    };
    if length > PAYLOAD_BYTES_MAX {
        return Front::Wrong;
    }
    let start = head + MASK_BYTES;
    let end = start + usize::try_from(length).expect("it is below the limit");
    if bytes.len() < end {
        return Front::Partial;
    }
    let key: [u8; MASK_BYTES] = bytes[head..start].try_into().expect("four bytes");
    unmask(&mut bytes[start..end], key);
    Front::Whole(Inbound { opcode: first & 0x0f, start, end })
}

fn unmask(payload: &mut [u8], key: [u8; MASK_BYTES]) {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key) {
        *byte ^= key;
    }
    for (byte, key) in rest.iter_mut().skip(MASK_BYTES).zip(key) {
        *byte ^= key;
    }
}

/// Appends a whole unmasked frame.
#[allow(clippy::cast_possible_truncation, reason = "each arm has checked that it fits")]
pub(crate) fn append(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match payload.len() {
        short @ ..126 => out.push(short as u8),
        middle @ 126..65_536 => {
            out.push(126);
            out.extend((middle as u16).to_be_bytes());
        }
        long => {
            out.push(127);
            out.extend((long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}
