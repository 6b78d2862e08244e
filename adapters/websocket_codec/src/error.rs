//! Every way a peer can break RFC 6455, each with the close code it earns.
//!
//! It must never carry payload bytes: errors are logged, payloads may be secrets.

use crate::close::CloseCode;

/// What the peer did wrong. The connection must be failed with [`ProtocolError::close_code`]
/// (RFC 6455 section 7.1.7); there is no way to resume after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A client sent an unmasked frame (section 5.1).
    #[error("a client frame is not masked")]
    MaskMissing,
    /// A server sent a masked frame (section 5.1).
    #[error("a server frame is masked")]
    MaskForbidden,
    /// A reserved bit is set which no negotiated extension defines (section 5.2).
    #[error("a reserved bit is set without an extension that defines it")]
    ReservedBit,
    /// An opcode of 3-7 or 11-15 (section 5.2).
    #[error("opcode {0} is reserved")]
    ReservedOpcode(u8),
    /// A control frame without FIN (section 5.5).
    #[error("a control frame is fragmented")]
    ControlFragmented,
    /// A control frame which declares more than 125 bytes (section 5.5).
    #[error("a control frame is longer than 125 bytes")]
    ControlTooLong,
    /// A continuation frame while no message is open (section 5.4).
    #[error("a continuation frame continues no message")]
    ContinuationUnexpected,
    /// A new text or binary frame while a message is open (section 5.4).
    #[error("a new message starts inside a fragmented message")]
    ContinuationExpected,
    /// A length in more bytes than it needs (section 5.2).
    #[error("a frame length is not minimally encoded")]
    LengthNotMinimal,
    /// A 64-bit length with its most significant bit set (section 5.2).
    #[error("a 64-bit frame length has its top bit set")]
    LengthTopBit,
    /// A frame's declared length takes its message over the limit (section 10.4).
    #[error("a message is longer than the limit")]
    MessageTooLong,
    /// A message is cut into more frames than the limit; empty ones count (section 10.4).
    #[error("a message has more fragments than the limit")]
    FragmentsTooMany,
    /// A text message holds a byte that cannot be UTF-8, or ends inside a code point
    /// (section 8.1).
    #[error("a text message is not valid UTF-8")]
    TextInvalid,
    /// A close frame of one byte: too short for a code (section 5.5.1).
    #[error("a close frame of one byte has no room for its code")]
    CloseTooShort,
    /// A close code that may not be sent in a frame (section 7.4).
    #[error("close code {0} may not be sent")]
    CloseCodeInvalid(u16),
    /// A close reason that is not UTF-8 (section 5.5.1).
    #[error("a close reason is not valid UTF-8")]
    CloseReasonInvalid,
}

impl ProtocolError {
    /// The code to put into the close frame that answers this error (section 7.4.1).
    #[must_use]
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::MaskMissing
            | Self::MaskForbidden
            | Self::ReservedBit
            | Self::ReservedOpcode(_)
            | Self::ControlFragmented
            | Self::ControlTooLong
            | Self::ContinuationUnexpected
            | Self::ContinuationExpected
            | Self::LengthNotMinimal
            | Self::LengthTopBit
            | Self::CloseTooShort
            | Self::CloseCodeInvalid(_) => CloseCode::PROTOCOL_ERROR,
            Self::TextInvalid | Self::CloseReasonInvalid => CloseCode::INVALID_PAYLOAD,
            Self::FragmentsTooMany => CloseCode::POLICY_VIOLATION,
            Self::MessageTooLong => CloseCode::MESSAGE_TOO_BIG,
        }
    }
}
