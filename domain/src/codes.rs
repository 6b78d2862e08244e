//! The two numbered tables: everything about failure that crosses the wire.
//!
//! A new failure gets a row here or it does not reach a client. `docs/protocol.md` prints both
//! tables and a test compares them.

/// What the answer to one command may say. The connection stays.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u16)]
pub enum ErrorCode {
    /// The frame is not a JSON object of the protocol; counts as a strike.
    BadRequest = 100,
    /// `type` names nothing that this server handles.
    UnknownType = 101,
    /// A field is missing, has the wrong type, the wrong range, or is not known; `field` names it.
    InvalidField = 102,
    /// The token does not allow this in this room, or the room is private and may not exist.
    PermissionDenied = 103,
    /// The room's namespace is not one that this server has.
    UnknownRoom = 104,
    /// The connection is not a member of the room that the command needs it to be in.
    NotSubscribed = 105,
    /// The connection is already a member of the room, or has a join on its way.
    AlreadySubscribed = 106,
    /// The connection is in as many rooms as it may be in.
    TooManyRooms = 107,
    /// Commands come faster than allowed; come back after `retry_after_ms`.
    RateLimited = 108,
    /// A value is larger than its limit; `field` names it.
    TooLarge = 109,
    /// The position lies outside the room's log.
    InvalidPosition = 110,
    /// The command needs `connect` first, or came after it may only come before.
    NotConnected = 111,
    /// `connect` came twice, or as somebody else.
    AlreadyConnected = 112,
    /// The token is not valid; get a new one.
    InvalidToken = 113,
    /// What the command needs is away for the moment; come back after `retry_after_ms`.
    Unavailable = 114,
    /// This server or this room does not offer that.
    NotAvailable = 115,
    /// A fault of the server; the details are in its log under `request_id`.
    Internal = 116,
    /// The room has as many members or different filters as it may have, or the node as many
    /// patterns.
    RoomFull = 117,
}

impl ErrorCode {
    /// Every row, in the order of the numbers.
    pub const ALL: [Self; 18] = [
        Self::BadRequest,
        Self::UnknownType,
        Self::InvalidField,
        Self::PermissionDenied,
        Self::UnknownRoom,
        Self::NotSubscribed,
        Self::AlreadySubscribed,
        Self::TooManyRooms,
        Self::RateLimited,
        Self::TooLarge,
        Self::InvalidPosition,
        Self::NotConnected,
        Self::AlreadyConnected,
        Self::InvalidToken,
        Self::Unavailable,
        Self::NotAvailable,
        Self::Internal,
        Self::RoomFull,
    ];

    /// The number in `code`.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The word in `error`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::UnknownType => "unknown_type",
            Self::InvalidField => "invalid_field",
            Self::PermissionDenied => "permission_denied",
            Self::UnknownRoom => "unknown_room",
            Self::NotSubscribed => "not_subscribed",
            Self::AlreadySubscribed => "already_subscribed",
            Self::TooManyRooms => "too_many_rooms",
            Self::RateLimited => "rate_limited",
            Self::TooLarge => "too_large",
            Self::InvalidPosition => "invalid_position",
            Self::NotConnected => "not_connected",
            Self::AlreadyConnected => "already_connected",
            Self::InvalidToken => "invalid_token",
            Self::Unavailable => "unavailable",
            Self::NotAvailable => "not_available",
            Self::Internal => "internal",
            Self::RoomFull => "room_full",
        }
    }

    /// Whether the same command may succeed later without being changed.
    #[must_use]
    pub const fn is_temporary(self) -> bool {
        matches!(self, Self::RateLimited | Self::Unavailable | Self::Internal | Self::RoomFull)
    }
}

/// Why a connection ends. The range of the number tells the client what to do: of the standard
/// codes 1001, 1006, 1011, 1012 and 1013 come back; 3000–3499 come back; all others stop.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u16)]
pub enum CloseCode {
    /// RFC 6455 section 7.4.1: the purpose is fulfilled.
    Normal = 1000,
    /// RFC 6455 section 7.4.1: the endpoint leaves.
    GoingAway = 1001,
    /// RFC 6455 section 7.4.1: a frame breaks the protocol.
    ProtocolError = 1002,
    /// RFC 6455 section 7.4.1: binary where text is required.
    UnsupportedData = 1003,
    /// RFC 6455 section 7.4.1: text that is not UTF-8.
    InvalidPayload = 1007,
    /// RFC 6455 section 7.4.1: a policy is broken, like too many fragments.
    PolicyViolation = 1008,
    /// RFC 6455 section 7.4.1: a message is larger than the limit.
    MessageTooBig = 1009,
    /// A fault of the server ended this connection; come back.
    InternalError = 1011,
    /// The server restarts; come back after `reconnect_after_ms`.
    ServiceRestart = 1012,
    /// The server takes no new connections now; come back later.
    TryAgainLater = 1013,
    /// The client read too slowly and its queue was full; come back and recover.
    SlowConsumer = 3001,
    /// Nothing came for two heartbeat intervals; come back.
    NoPong = 3002,
    /// A hole was found that could not be told in band; come back and recover.
    InsufficientState = 3003,
    /// The token ran out; come back with a fresh one.
    TokenExpired = 3004,
    /// Commands kept coming too fast; come back later and slower.
    RateLimited = 3005,
    /// Nothing was asked for too long; come back when there is something to do.
    Idle = 3006,
    /// The token is missing or not valid.
    Unauthenticated = 3500,
    /// The token does not allow this endpoint.
    Forbidden = 3501,
    /// The protocol version is not served.
    UnsupportedVersion = 3502,
    /// Too many frames could not be parsed.
    MalformedMessages = 3503,
    /// No valid `connect` came in time.
    AuthenticationTimeout = 3504,
    /// Another connection took this session over.
    SessionReplaced = 3505,
    /// The user has as many connections as allowed.
    ConnectionLimit = 3506,
    /// The token, user or connection was revoked.
    Revoked = 3507,
}

impl CloseCode {
    /// Every row, in the order of the numbers.
    pub const ALL: [Self; 24] = [
        Self::Normal,
        Self::GoingAway,
        Self::ProtocolError,
        Self::UnsupportedData,
        Self::InvalidPayload,
        Self::PolicyViolation,
        Self::MessageTooBig,
        Self::InternalError,
        Self::ServiceRestart,
        Self::TryAgainLater,
        Self::SlowConsumer,
        Self::NoPong,
        Self::InsufficientState,
        Self::TokenExpired,
        Self::RateLimited,
        Self::Idle,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::UnsupportedVersion,
        Self::MalformedMessages,
        Self::AuthenticationTimeout,
        Self::SessionReplaced,
        Self::ConnectionLimit,
        Self::Revoked,
    ];

    /// The number in the close frame.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The reason text in the close frame and in `disconnect`.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::GoingAway => "going_away",
            Self::ProtocolError => "protocol_error",
            Self::UnsupportedData => "unsupported_data",
            Self::InvalidPayload => "invalid_payload",
            Self::PolicyViolation => "policy_violation",
            Self::MessageTooBig => "message_too_big",
            Self::InternalError => "internal_error",
            Self::ServiceRestart => "restart",
            Self::TryAgainLater => "try_again_later",
            Self::SlowConsumer => "slow_consumer",
            Self::NoPong => "no_pong",
            Self::InsufficientState => "insufficient_state",
            Self::TokenExpired => "token_expired",
            Self::RateLimited => "rate_limited",
            Self::Idle => "idle",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::UnsupportedVersion => "unsupported_version",
            Self::MalformedMessages => "malformed_messages",
            Self::AuthenticationTimeout => "authentication_timeout",
            Self::SessionReplaced => "session_replaced",
            Self::ConnectionLimit => "connection_limit",
            Self::Revoked => "revoked",
        }
    }

    /// Whether a client should come back after this code.
    #[must_use]
    pub const fn reconnect(self) -> bool {
        should_reconnect(self.number())
    }
}

/// The one rule by which any client decides whether to come back after a close code.
#[must_use]
pub const fn should_reconnect(number: u16) -> bool {
    matches!(number, 1001 | 1006 | 1011 | 1012 | 1013 | 3000..=3499 | 4500)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_words_are_unique_and_in_order() {
        for pair in ErrorCode::ALL.windows(2) {
            assert!(pair[0].number() < pair[1].number());
            assert_ne!(pair[0].word(), pair[1].word());
        }
        for pair in CloseCode::ALL.windows(2) {
            assert!(pair[0].number() < pair[1].number());
        }
    }

    #[test]
    fn the_range_of_a_close_code_decides_whether_to_come_back() {
        for code in CloseCode::ALL {
            let n = code.number();
            let expected = match n {
                1001 | 1006 | 1011..=1013 => true,
                1000..=1999 => false,
                3000..=3499 => true,
                _ => false,
            };
            assert_eq!(code.reconnect(), expected, "{n}");
        }
    }
}
