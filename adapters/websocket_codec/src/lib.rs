//! RFC 6455 framing and handshake arithmetic: bytes in, events out; payloads in, frames out.
//!
//! It must never do input or output, read a clock, draw a random number, spawn or wait: the caller
//! owns the socket, the timeouts and the mask keys. It must never allocate by a length the peer
//! only *declared*; it keeps nothing but bytes that arrived.
//!
//! * [`Decoder`] turns what a socket delivered into [`Event`]s, strictly and without a copy when a
//!   whole frame lies in the read buffer.
//! * [`encode_text`] and its siblings build a frame once, as [`Bytes`](bytes::Bytes) which any
//!   number of connections share.
//! * [`handshake`] computes what the HTTP upgrade needs.

mod close;
mod decoder;
mod encode;
mod error;
mod frame_header;
pub mod handshake;
mod mask;
mod utf8;

pub use close::{CLOSE_REASON_BYTES_MAX, CloseCode, CloseFrame};
pub use decoder::{Decoded, Decoder, Event, Limits};
pub use encode::{
    append_text, encode_close, encode_frame, encode_masked, encode_ping, encode_pong, encode_text,
    header_len,
};
pub use error::ProtocolError;
pub use frame_header::{CONTROL_BYTES_MAX, Opcode, Role};
