//! The two numbered tables: everything about failure that crosses the wire.
//!
//! A new failure gets a row here or it does not reach a client. `docs/protocol.md` prints both
//! tables and a test compares them.

/// One table: an enum with its numbers and words, and the sentences of its documentation as texts,
/// so that what describes the protocol elsewhere says the same.
macro_rules! codes {
    (
        $(#[$about:meta])*
        pub enum $table:ident with
        #[doc = $word_doc:literal]
        $word:ident {
            $($(#[doc = $meaning:literal])+ $variant:ident = $number:literal, $text:literal;)*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[repr(u16)]
        pub enum $table {
            $($(#[doc = $meaning])+ $variant = $number,)*
        }

        impl $table {
            /// Every row, in the order of the numbers.
            pub const ALL: [Self; [$($number),*].len()] = [$(Self::$variant),*];

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u16 {
                self as u16
            }

            #[doc = $word_doc]
            #[must_use]
            pub const fn $word(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            /// What it means, in a sentence or two.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($meaning),+).trim_ascii_start(),)*
                }
            }
        }
    };
}

codes! {
    /// What the answer to one command may say. The connection stays.
    pub enum ErrorCode with
    /// The word in `error`.
    word {
        /// The frame is not a JSON object of the protocol; counts as a strike.
        BadRequest = 100, "bad_request";
        /// `type` names nothing that this server handles.
        UnknownType = 101, "unknown_type";
        /// A field is missing, has the wrong type, the wrong range, or is not known; `field` names
        /// it.
        InvalidField = 102, "invalid_field";
        /// The token does not allow this in this room, or the room is private and may not exist.
        PermissionDenied = 103, "permission_denied";
        /// The room's namespace is not one that this server has.
        UnknownRoom = 104, "unknown_room";
        /// The connection is not a member of the room that the command needs it to be in.
        NotSubscribed = 105, "not_subscribed";
        /// The connection is already a member of the room, or has a join on its way.
        AlreadySubscribed = 106, "already_subscribed";
        /// The connection is in as many rooms as it may be in.
        TooManyRooms = 107, "too_many_rooms";
        /// Commands come faster than allowed; come back after `retry_after_ms`.
        RateLimited = 108, "rate_limited";
        /// A value is larger than its limit; `field` names it.
        TooLarge = 109, "too_large";
        /// The position lies outside the room's log.
        InvalidPosition = 110, "invalid_position";
        /// The command needs `connect` first, or came after it may only come before.
        NotConnected = 111, "not_connected";
        /// `connect` came twice, or as somebody else.
        AlreadyConnected = 112, "already_connected";
        /// The token is not valid; get a new one.
        InvalidToken = 113, "invalid_token";
        /// What the command needs is away for the moment; come back after `retry_after_ms`.
        Unavailable = 114, "unavailable";
        /// This server or this room does not offer that.
        NotAvailable = 115, "not_available";
        /// A fault of the server; the details are in its log under `request_id`.
        Internal = 116, "internal";
        /// The room has as many members or different filters as it may have, or the node as many
        /// patterns.
        RoomFull = 117, "room_full";
    }
}

impl ErrorCode {
    /// Whether the same command may succeed later without being changed.
    #[must_use]
    pub const fn is_temporary(self) -> bool {
        matches!(self, Self::RateLimited | Self::Unavailable | Self::Internal | Self::RoomFull)
    }
}

codes! {
    /// Why a connection ends. The range of the number tells the client what to do: of the standard
    /// codes 1001, 1006, 1011, 1012 and 1013 come back; 3000–3499 come back; all others stop.
    pub enum CloseCode with
    /// The reason text in the close frame and in `disconnect`.
    reason {
        /// RFC 6455 section 7.4.1: the purpose is fulfilled.
        Normal = 1000, "normal";
        /// RFC 6455 section 7.4.1: the endpoint leaves.
        GoingAway = 1001, "going_away";
        /// RFC 6455 section 7.4.1: a frame breaks the protocol.
        ProtocolError = 1002, "protocol_error";
        /// RFC 6455 section 7.4.1: binary where text is required.
        UnsupportedData = 1003, "unsupported_data";
        /// RFC 6455 section 7.4.1: text that is not UTF-8.
        InvalidPayload = 1007, "invalid_payload";
        /// RFC 6455 section 7.4.1: a policy is broken, like too many fragments.
        PolicyViolation = 1008, "policy_violation";
        /// RFC 6455 section 7.4.1: a message is larger than the limit.
        MessageTooBig = 1009, "message_too_big";
        /// A fault of the server ended this connection; come back.
        InternalError = 1011, "internal_error";
        /// The server restarts; come back after `reconnect_after_ms`.
        ServiceRestart = 1012, "restart";
        /// The server takes no new connections now; come back later.
        TryAgainLater = 1013, "try_again_later";
        /// The client read too slowly and its queue was full; come back and recover.
        SlowConsumer = 3001, "slow_consumer";
        /// Nothing came for two heartbeat intervals; come back.
        NoPong = 3002, "no_pong";
        /// A hole was found that could not be told in band; come back and recover.
        InsufficientState = 3003, "insufficient_state";
        /// The token ran out; come back with a fresh one.
        TokenExpired = 3004, "token_expired";
        /// Commands kept coming too fast; come back later and slower.
        RateLimited = 3005, "rate_limited";
        /// Nothing was asked for too long; come back when there is something to do.
        Idle = 3006, "idle";
        /// The token is missing or not valid.
        Unauthenticated = 3500, "unauthenticated";
        /// The token does not allow this endpoint.
        Forbidden = 3501, "forbidden";
        /// The protocol version is not served.
        UnsupportedVersion = 3502, "unsupported_version";
        /// Too many frames could not be parsed.
        MalformedMessages = 3503, "malformed_messages";
        /// No valid `connect` came in time.
        AuthenticationTimeout = 3504, "authentication_timeout";
        /// Another connection took this session over.
        SessionReplaced = 3505, "session_replaced";
        /// The user has as many connections as allowed.
        ConnectionLimit = 3506, "connection_limit";
        /// The token, user or connection was revoked.
        Revoked = 3507, "revoked";
        /// Of `/ws/client`: another `version` than the one that is spoken there.
        UnsupportedClientVersion = 4400, "unsupported_protocol_version";
        /// Of `/ws/client`: a `role` that there is not.
        InvalidClientRole = 4401, "invalid_client_role";
        /// Of `/ws/client`: the handshake failed by a fault of the server; come back.
        HandshakeError = 4500, "server_handshake_error";
    }
}

impl CloseCode {
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
                3000..=3499 | 4500 => true,
                _ => false,
            };
            assert_eq!(code.reconnect(), expected, "{n}");
        }
    }
}
