//! The decoder of one connection: pieces of a byte stream in, [`Event`]s out.
//!
//! It must never copy a whole unfragmented frame that lies in the caller's read buffer, never
//! reserve memory by a length that was only declared, and never keep memory after the message that
//! needed it: most connections are idle, and there are very many of them.

use std::borrow::Cow;
use std::mem;

use crate::close::{self, CloseFrame};
use crate::error::ProtocolError;
use crate::frame_header::{self, Context, FrameHeader, HEADER_BYTES_MAX, Opcode, Role};
use crate::mask;
use crate::utf8::Utf8Check;

/// What a peer may make this end hold (RFC 6455 section 10.4). Control frames have their own limit,
/// of 125 bytes, which the protocol sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest message, over all its fragments. A header that declares more is refused with
    /// 1009 before any of its payload is read.
    pub message_bytes_max: usize,
    /// The most frames in one message, empty ones included; one more is refused with 1008.
    pub fragments_max: u32,
}

/// What a peer said. A payload is borrowed from the caller's read buffer when its frame lay there
/// whole, and owned when it arrived in several reads or fragments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole text message (section 5.6).
    Text(Cow<'a, str>),
    /// A whole binary message (section 5.6).
    Binary(Cow<'a, [u8]>),
    /// A ping, to be answered with a pong of the same payload (section 5.5.2).
    Ping(Cow<'a, [u8]>),
    /// A pong, asked for or not (section 5.5.3).
    Pong(Cow<'a, [u8]>),
    /// The peer closes, perhaps with a reason (section 5.5.1). It is the last event.
    Close(Option<CloseFrame<'a>>),
}

/// What one call of [`Decoder::decode`] did.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// How many bytes of the input are dealt with. The bytes behind them are untouched; the caller
    /// hands them in again, first, whenever it likes.
    pub used: usize,
    /// The event those bytes completed; none only when the whole input is used.
    pub event: Option<Event<'a>>,
}

/// The state of one connection's inbound stream: small, and without heap memory between messages.
///
/// The caller reads into a buffer that many connections share, and calls [`decode`](Self::decode)
/// until the buffer is used up. It may stop after any event and keep the rest for later, which is
/// how back-pressure reaches the peer.
#[derive(Debug)]
pub struct Decoder {
    /// The pieces of the open message, and behind them those of an unfinished control frame.
    buffer: Vec<u8>,
    phase: Phase,
    n_fragments: u32,
    message: Option<MessageKind>,
    utf8: Utf8Check,
    role: Role,
}

/// One per connection, a hundred thousand of them: a field too many must not slip in unseen.
const _: () = assert!(size_of::<Decoder>() <= 64);

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Waiting for a header, of which the first `n_bytes` have arrived.
    Header { bytes: [u8; HEADER_BYTES_MAX], n_bytes: u8 },
    /// Inside a payload, of which `received` bytes have arrived.
    Payload { header: FrameHeader, received: usize },
    /// After a close frame or an error. The rest of the stream is discarded (section 1.4).
    Ended,
}

impl Phase {
    const NEXT_HEADER: Self = Self::Header { bytes: [0; HEADER_BYTES_MAX], n_bytes: 0 };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MessageKind {
    Text,
    Binary,
}

/// The part of a payload that one input holds, unmasked.
#[derive(Clone, Copy)]
struct Piece<'a> {
    bytes: &'a [u8],
    /// Whether nothing of the frame's payload came before.
    is_first: bool,
    /// Whether nothing of the frame's payload is still to come.
    is_last: bool,
}

impl Decoder {
    /// The decoder of a new connection, before its first frame. The role is this end's: a server
    /// demands masked frames, a client forbids them (section 5.1).
    #[must_use]
    pub const fn new(role: Role) -> Self {
        Self {
            buffer: Vec::new(),
            phase: Phase::NEXT_HEADER,
            n_fragments: 0,
            message: None,
            utf8: Utf8Check::new(),
            role,
        }
    }

    /// Reads `input` up to the next event, unmasking in place what it reads.
    ///
    /// After [`Event::Close`] or an error the stream is over: all further input is discarded.
    ///
    /// # Errors
    ///
    /// The first breach of the protocol, as soon as the byte that proves it has arrived. Which one
    /// it is does not depend on how the stream was cut into inputs. Each variant of
    /// [`ProtocolError`] can occur; the connection is to be closed with its
    /// [`close_code`](ProtocolError::close_code).
    pub fn decode<'a>(
        &mut self,
        input: &'a mut [u8],
        limits: &Limits,
    ) -> Result<Decoded<'a>, ProtocolError> {
        let decoded = match self.peek_whole_message(input, limits) {
            Ok(Some((header, header_bytes))) => {
                decode_whole_message(header, &mut input[header_bytes..][..header.payload_len])
                    .map(|event| Decoded { used: header_bytes + header.payload_len, event })
            }
            Ok(None) => self.advance(input, limits),
            Err(error) => Err(error),
        };
        if decoded.is_err() {
            self.end();
        }
        decoded
    }

    /// How much heap memory this decoder holds: nothing between messages, and at no time more than
    /// a small multiple of the payload bytes that arrived.
    #[must_use]
    pub const fn buffer_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Whether a message or a frame has begun and not ended. A caller that limits how long a
    /// message may take starts its timer by this.
    #[must_use]
    pub const fn is_mid_message(&self) -> bool {
        match self.phase {
            Phase::Header { n_bytes, .. } => n_bytes > 0 || self.message.is_some(),
            Phase::Payload { .. } => true,
            Phase::Ended => false,
        }
    }

    /// Whether the stream is over, by a close frame or an error.
    #[must_use]
    pub const fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// The header of an unfragmented message that lies whole at the start of `input`, with its
    /// length on the wire. Nearly every message is one, and it needs none of this decoder's state.
    #[inline]
    fn peek_whole_message(
        &self,
        input: &[u8],
        limits: &Limits,
    ) -> Result<Option<(FrameHeader, usize)>, ProtocolError> {
        if self.is_mid_message() || self.is_ended() {
            return Ok(None);
        }
        let parsed = frame_header::parse(input, self.context(limits))?;
        Ok(parsed.filter(|(header, header_bytes)| {
            header.fin
                && matches!(header.opcode, Opcode::Text | Opcode::Binary)
                && header.payload_len <= input.len() - header_bytes
        }))
    }

    #[inline(never)]
    fn advance<'a>(
        &mut self,
        input: &'a mut [u8],
        limits: &Limits,
    ) -> Result<Decoded<'a>, ProtocolError> {
        let input_len = input.len();
        let mut rest = input;
        // Every round uses at least one byte: a payload of length zero ends in the round of its
        // header.
        while !rest.is_empty() {
            let (header, received) = match self.phase {
                Phase::Payload { header, received } => (header, received),
                Phase::Ended => break,
                Phase::Header { n_bytes, .. } => {
                    let parsed = if n_bytes == 0 {
                        frame_header::parse(rest, self.context(limits))?
                    } else {
                        None
                    };
                    let parsed = match parsed {
                        Some(parsed) => Some(parsed),
                        None => self.take_split_header(rest, limits)?,
                    };
                    let Some((header, n_used)) = parsed else { break };
                    rest = &mut rest[n_used..];
                    self.begin_frame(header.opcode);
                    (header, 0)
                }
            };

            let wanted = header.payload_len - received;
            let (payload, after) = rest.split_at_mut(wanted.min(rest.len()));
            rest = after;
            if let Some(key) = header.mask_key {
                mask::apply(payload, key, received);
            }
            let is_last = payload.len() == wanted;
            self.phase = if is_last {
                Phase::NEXT_HEADER
            } else {
                Phase::Payload { header, received: received + payload.len() }
            };

            let piece = Piece { bytes: payload, is_first: received == 0, is_last };
            let event = if header.opcode.is_control() {
                self.take_control(header, piece)?
            } else {
                self.take_data(header.fin, piece)?
            };
            if event.is_some() {
                return Ok(Decoded { used: input_len - rest.len(), event });
            }
        }
        Ok(Decoded { used: input_len, event: None })
    }

    fn context<'a>(&self, limits: &'a Limits) -> Context<'a> {
        Context {
            role: self.role,
            limits,
            is_message_open: self.message.is_some(),
            n_fragments: self.n_fragments,
            message_bytes: self.buffer.len(),
        }
    }

    /// Reads a header from what was kept of it and `input`; returns it with how much of `input` it
    /// took, or keeps the whole input when the header is still not complete. Out of line, for most
    /// headers arrive whole.
    #[cold]
    fn take_split_header(
        &mut self,
        input: &[u8],
        limits: &Limits,
    ) -> Result<Option<(FrameHeader, usize)>, ProtocolError> {
        let Phase::Header { mut bytes, n_bytes: n_kept } = self.phase else { return Ok(None) };
        let n_kept = usize::from(n_kept);
        let n_bytes = HEADER_BYTES_MAX.min(n_kept + input.len());
        bytes[n_kept..n_bytes].copy_from_slice(&input[..n_bytes - n_kept]);
        let parsed = frame_header::parse(&bytes[..n_bytes], self.context(limits))?;
        if let Some((header, header_bytes)) = parsed {
            return Ok(Some((header, header_bytes - n_kept)));
        }
        self.phase = Phase::Header { bytes, n_bytes: n_bytes as u8 };
        Ok(None)
    }

    fn begin_frame(&mut self, opcode: Opcode) {
        match opcode {
            Opcode::Text => self.begin_message(MessageKind::Text),
            Opcode::Binary => self.begin_message(MessageKind::Binary),
            Opcode::Continuation => self.n_fragments += 1,
            Opcode::Close | Opcode::Ping | Opcode::Pong => {}
        }
    }

    fn begin_message(&mut self, kind: MessageKind) {
        self.message = Some(kind);
        self.n_fragments = 1;
        self.utf8 = Utf8Check::new();
    }

    fn take_data(
        &mut self,
        fin: bool,
        piece: Piece<'_>,
    ) -> Result<Option<Event<'static>>, ProtocolError> {
        let Some(kind) = self.message else { return Ok(None) };
        if kind == MessageKind::Text {
            self.utf8.feed(piece.bytes).map_err(|_| ProtocolError::TextInvalid)?;
        }
        self.buffer.extend_from_slice(piece.bytes);
        if piece.is_last && fin { self.finish_message(kind).map(Some) } else { Ok(None) }
    }

    fn finish_message(&mut self, kind: MessageKind) -> Result<Event<'static>, ProtocolError> {
        self.message = None;
        let bytes = mem::take(&mut self.buffer);
        match kind {
            MessageKind::Binary => Ok(Event::Binary(Cow::Owned(bytes))),
            // The pieces were checked as they came, but only a second look at the whole makes a
            // `String` without `unsafe`. It also finds the text that ends inside a code point.
            MessageKind::Text => String::from_utf8(bytes)
                .map(|text| Event::Text(Cow::Owned(text)))
                .map_err(|_| ProtocolError::TextInvalid),
        }
    }

    fn take_control<'a>(
        &mut self,
        header: FrameHeader,
        piece: Piece<'a>,
    ) -> Result<Option<Event<'a>>, ProtocolError> {
        let payload = if piece.is_first && piece.is_last {
            Cow::Borrowed(piece.bytes)
        } else {
            self.buffer.extend_from_slice(piece.bytes);
            if !piece.is_last {
                return Ok(None);
            }
            Cow::Owned(self.split_off_control(header.payload_len))
        };
        match header.opcode {
            Opcode::Ping => Ok(Some(Event::Ping(payload))),
            Opcode::Pong => Ok(Some(Event::Pong(payload))),
            Opcode::Close => {
                let frame = close::parse(payload)?;
                self.end();
                Ok(Some(Event::Close(frame)))
            }
            Opcode::Continuation | Opcode::Text | Opcode::Binary => Ok(None),
        }
    }

    /// Takes a finished control payload from behind the open message.
    fn split_off_control(&mut self, payload_len: usize) -> Vec<u8> {
        let message_bytes = self.buffer.len() - payload_len;
        if message_bytes == 0 {
            return mem::take(&mut self.buffer);
        }
        self.buffer.split_off(message_bytes)
    }

    fn end(&mut self) {
        self.buffer = Vec::new();
        self.message = None;
        self.phase = Phase::Ended;
    }
}

/// Reads an unfragmented message in place.
#[inline]
fn decode_whole_message(
    header: FrameHeader,
    payload: &mut [u8],
) -> Result<Option<Event<'_>>, ProtocolError> {
    if let Some(key) = header.mask_key {
        mask::apply(payload, key, 0);
    }
    if header.opcode == Opcode::Binary {
        return Ok(Some(Event::Binary(Cow::Borrowed(payload))));
    }
    match simdutf8::basic::from_utf8(payload) {
        Ok(text) => Ok(Some(Event::Text(Cow::Borrowed(text)))),
        Err(_) => Err(ProtocolError::TextInvalid),
    }
}
