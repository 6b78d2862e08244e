//! Frame headers (RFC 6455 section 5.2), read strictly.
//!
//! It must never wait for a byte that it does not need for a verdict: a wrong header is refused at
//! the first wrong field, whatever else of it has arrived. Checks therefore stand in wire order,
//! and how the network cut the bytes cannot change which error a peer gets.

use crate::decoder::Limits;
use crate::error::ProtocolError;

/// The longest payload of a control frame (section 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// The longest header: two bytes, a 64-bit length and a mask key.
pub(crate) const HEADER_BYTES_MAX: usize = 14;

pub(crate) const FIN_BIT: u8 = 0x80;
pub(crate) const MASK_BIT: u8 = 0x80;
const RESERVED_BITS: u8 = 0x70;

/// Which end of the connection this is; it decides who must mask (section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads what a client sent: every frame must be masked.
    Server,
    /// Reads what a server sent: no frame may be masked.
    Client,
}

/// What a frame is (section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further piece of the message that is open.
    Continuation = 0,
    /// A text message, or its first piece.
    Text = 1,
    /// A binary message, or its first piece.
    Binary = 2,
    /// The sender will send nothing more.
    Close = 8,
    /// Asks for a pong.
    Ping = 9,
    /// Answers a ping, or is a one-way sign of life.
    Pong = 10,
}

impl Opcode {
    /// Whether this is a control frame: short, whole, and allowed between fragments (section 5.5).
    #[must_use]
    pub const fn is_control(self) -> bool {
        match self {
            Self::Close | Self::Ping | Self::Pong => true,
            Self::Continuation | Self::Text | Self::Binary => false,
        }
    }

    fn parse(nibble: u8) -> Result<Self, ProtocolError> {
        match nibble {
            0 => Ok(Self::Continuation),
            1 => Ok(Self::Text),
            2 => Ok(Self::Binary),
            8 => Ok(Self::Close),
            9 => Ok(Self::Ping),
            10 => Ok(Self::Pong),
            reserved => Err(ProtocolError::ReservedOpcode(reserved)),
        }
    }
}

/// A header that passed every check.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameHeader {
    pub(crate) payload_len: usize,
    pub(crate) mask_key: Option<[u8; 4]>,
    pub(crate) opcode: Opcode,
    pub(crate) fin: bool,
}

/// What a header is judged against besides its own bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) role: Role,
    pub(crate) limits: &'a Limits,
    /// Whether a message is open, waiting for its continuation.
    pub(crate) is_message_open: bool,
    /// How many frames the open message has.
    pub(crate) n_fragments: u32,
    /// How many bytes the open message has.
    pub(crate) message_bytes: usize,
}

/// Reads the header at the start of `bytes`; returns it with its length on the wire, or nothing
/// when the bytes so far are faultless but too few.
///
/// Inlined by force: as a call it spends more on passing its result than on the checks.
#[inline(always)]
pub(crate) fn parse(
    bytes: &[u8],
    context: Context<'_>,
) -> Result<Option<(FrameHeader, usize)>, ProtocolError> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let opcode = check_first_byte(first, context)?;
    let fin = first & FIN_BIT != 0;

    let Some((&second, rest)) = rest.split_first() else { return Ok(None) };
    check_second_byte(second, opcode, context.role)?;

    let Some((declared, rest)) = read_payload_len(second & !MASK_BIT, rest)? else {
        return Ok(None);
    };
    let payload_len = if opcode.is_control() {
        // At most 125, as the second byte has shown.
        declared as usize
    } else {
        check_message_len(declared, context)?
    };

    let (mask_key, rest) = match context.role {
        Role::Client => (None, rest),
        Role::Server => match rest.split_first_chunk::<4>() {
            Some((key, rest)) => (Some(*key), rest),
            None => return Ok(None),
        },
    };
    let header = FrameHeader { payload_len, mask_key, opcode, fin };
    Ok(Some((header, bytes.len() - rest.len())))
}

fn check_first_byte(first: u8, context: Context<'_>) -> Result<Opcode, ProtocolError> {
    check_reserved_bits(first)?;
    let opcode = Opcode::parse(first & 0x0f)?;
    let fin = first & FIN_BIT != 0;
    match opcode {
        Opcode::Close | Opcode::Ping | Opcode::Pong if !fin => {
            Err(ProtocolError::ControlFragmented)
        }
        Opcode::Text | Opcode::Binary if context.is_message_open => {
            Err(ProtocolError::ContinuationExpected)
        }
        Opcode::Continuation if !context.is_message_open => {
            Err(ProtocolError::ContinuationUnexpected)
        }
        Opcode::Continuation if context.n_fragments >= context.limits.fragments_max => {
            Err(ProtocolError::FragmentsTooMany)
        }
        Opcode::Continuation
        | Opcode::Text
        | Opcode::Binary
        | Opcode::Close
        | Opcode::Ping
        | Opcode::Pong => Ok(opcode),
    }
}

/// No extension is negotiated, so no bit is defined (section 5.2).
///
/// This is the seam for permessage-deflate (RFC 7692 section 6): once negotiated, it joins
/// [`Context`] as a field beside the role, and RSV1 is then allowed here on a `Text` or `Binary`
/// frame, and still refused on a continuation or a control frame. Such a message is inflated where
/// the decoder finishes it, before its UTF-8 is checked and with the limit on the inflated size.
fn check_reserved_bits(first: u8) -> Result<(), ProtocolError> {
    if first & RESERVED_BITS == 0 { Ok(()) } else { Err(ProtocolError::ReservedBit) }
}

fn check_second_byte(second: u8, opcode: Opcode, role: Role) -> Result<(), ProtocolError> {
    let is_masked = second & MASK_BIT != 0;
    match role {
        Role::Server if !is_masked => return Err(ProtocolError::MaskMissing),
        Role::Client if is_masked => return Err(ProtocolError::MaskForbidden),
        Role::Server | Role::Client => {}
    }
    if opcode.is_control() && usize::from(second & !MASK_BIT) > CONTROL_BYTES_MAX {
        return Err(ProtocolError::ControlTooLong);
    }
    Ok(())
}

/// The declared length and what follows it.
fn read_payload_len(len7: u8, rest: &[u8]) -> Result<Option<(u64, &[u8])>, ProtocolError> {
    match len7 {
        127 => {
            let Some((len64, rest)) = rest.split_first_chunk::<8>() else { return Ok(None) };
            let len = u64::from_be_bytes(*len64);
            if len > i64::MAX as u64 {
                return Err(ProtocolError::LengthTopBit);
            }
            if len <= u64::from(u16::MAX) {
                return Err(ProtocolError::LengthNotMinimal);
            }
            Ok(Some((len, rest)))
        }
        126 => {
            let Some((len16, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
            let len = u16::from_be_bytes(*len16);
            if len < 126 {
                return Err(ProtocolError::LengthNotMinimal);
            }
            Ok(Some((u64::from(len), rest)))
        }
        len => Ok(Some((u64::from(len), rest))),
    }
}

/// The length of a data frame, if the message still fits with it.
fn check_message_len(declared: u64, context: Context<'_>) -> Result<usize, ProtocolError> {
    let room = context.limits.message_bytes_max.saturating_sub(context.message_bytes);
    match usize::try_from(declared) {
        Ok(payload_len) if payload_len <= room => Ok(payload_len),
        Ok(_) | Err(_) => Err(ProtocolError::MessageTooLong),
    }
}
