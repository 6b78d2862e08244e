//! Close codes and close payloads (RFC 6455 sections 5.5.1 and 7.4).
//!
//! It must never let a code that is forbidden on the wire become a [`CloseCode`].

use std::borrow::Cow;
use std::fmt;

use crate::error::ProtocolError;
use crate::frame_header::CONTROL_BYTES_MAX;

/// The longest close reason: a control payload less the two bytes of the code.
pub const CLOSE_REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

/// A status code that may stand in a close frame (section 7.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// 1000: the purpose of the connection is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// 1001: the endpoint goes away, such as a server that shuts down.
    pub const GOING_AWAY: Self = Self(1001);
    /// 1002: the peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// 1003: a kind of data that this endpoint does not accept.
    pub const UNSUPPORTED_DATA: Self = Self(1003);
    /// 1007: data inconsistent with its kind, such as a text that is not UTF-8.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// 1008: against this endpoint's policy.
    pub const POLICY_VIOLATION: Self = Self(1008);
    /// 1009: a message too big to process.
    pub const MESSAGE_TOO_BIG: Self = Self(1009);
    /// 1011: the server met a condition it cannot handle.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// 1012: the service restarts (IANA registry).
    pub const SERVICE_RESTART: Self = Self(1012);
    /// 1013: the service is overloaded (IANA registry).
    pub const TRY_AGAIN_LATER: Self = Self(1013);

    /// The code, or nothing when it may not be sent in a frame.
    #[must_use]
    pub const fn new(code: u16) -> Option<Self> {
        if Self::is_valid_on_wire(code) { Some(Self(code)) } else { None }
    }

    /// Whether `code` may be sent in a close frame: those which RFC 6455 section 7.4.1 and the IANA
    /// registry define for the wire, and 3000-4999 for libraries and applications (section 7.4.2).
    #[must_use]
    pub const fn is_valid_on_wire(code: u16) -> bool {
        matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }

    /// The number as it stands on the wire.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl From<CloseCode> for u16 {
    fn from(code: CloseCode) -> Self {
        code.0
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a close frame says, when it says anything (section 5.5.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseFrame<'a> {
    /// Why the peer closes.
    pub code: CloseCode,
    /// At most [`CLOSE_REASON_BYTES_MAX`] bytes, meant for logs and not for people.
    pub reason: Cow<'a, str>,
}

/// Reads an unmasked close payload.
pub(crate) fn parse(payload: Cow<'_, [u8]>) -> Result<Option<CloseFrame<'_>>, ProtocolError> {
    let code = match payload.as_ref() {
        [] => return Ok(None),
        [_] => return Err(ProtocolError::CloseTooShort),
        [high, low, ..] => u16::from_be_bytes([*high, *low]),
    };
    let code = CloseCode::new(code).ok_or(ProtocolError::CloseCodeInvalid(code))?;
    let reason = match payload {
        Cow::Borrowed(bytes) => simdutf8::basic::from_utf8(&bytes[2..]).ok().map(Cow::Borrowed),
        Cow::Owned(mut bytes) => String::from_utf8(bytes.split_off(2)).ok().map(Cow::Owned),
    };
    let reason = reason.ok_or(ProtocolError::CloseReasonInvalid)?;
    Ok(Some(CloseFrame { code, reason }))
}
