//! Numbers by a row of a closed set: what a label may be.
//!
//! A set is an enum, so that nobody outside of this code can add to it.

use std::marker::PhantomData;

use domain::codes::{CloseCode, ErrorCode};
use domain::delivery::Class;
use domain::documents::told::Endpoint;
use domain::protocol::ClientFrame;
use domain::recovery::GapReason;

use super::cells::{Count, Tally};
use crate::ports::{AuthorizerError, RevokeError, TokenError, Verdict};
use crate::view::View;

/// A row of a closed set.
pub trait Row: Copy + Eq + 'static {
    /// Every row, in the order in which they are shown.
    const ROWS: &'static [Self];

    /// The value of the label.
    fn label(self) -> &'static str;

    /// Its place.
    fn place(self) -> usize {
        Self::ROWS.iter().position(|row| *row == self).unwrap_or(0)
    }
}

/// Defines a closed set with its words.
macro_rules! rows {
    ($(#[$about:meta])* $name:ident { $($(#[$of:meta])* $row:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum $name {
            $($(#[$of])* $row,)+
        }

        impl $crate::metrics::Row for $name {
            const ROWS: &'static [Self] = &[$(Self::$row),+];

            fn label(self) -> &'static str {
                match self {
                    $(Self::$row => $word,)+
                }
            }
        }
    };
}
pub(crate) use rows;

rows! {
    /// What came of a publish.
    PublishOutcome {
        /// It has a place of its own.
        Accepted = "accepted",
        /// It was known by its `msg_id`.
        Duplicate = "duplicate",
        /// It was not taken; the refusals say why.
        Refused = "refused",
    }
}

rows! {
    /// What came of a join.
    JoinOutcome {
        /// Without a position: from now on.
        Fresh = "fresh",
        /// Everything that was missed came, or is coming.
        Recovered = "recovered",
        /// Something is lost, and was named.
        Gap = "gap",
        /// Refused; the refusals say why.
        Refused = "refused",
    }
}

rows! {
    /// How a hole came about.
    HoleCause {
        /// The mailbox was full.
        Mailbox = "mailbox",
        /// A publication was not the next one.
        Order = "order",
    }
}

rows! {
    /// Why a socket or an upgrade was turned away.
    EdgeRefusal {
        /// As many connections as there may be.
        ConnectionLimit = "connection_limit",
        /// No descriptor was left.
        Descriptors = "descriptors",
        /// Pages of that origin may not connect.
        Origin = "origin",
        /// The server stops.
        Stopping = "stopping",
        /// The request is no upgrade that can be answered.
        Handshake = "handshake",
        /// As many connections of one address as there may be.
        AddressLimit = "address_limit",
        /// No TLS session came about.
        Tls = "tls",
        /// Memory is short.
        Memory = "memory",
        /// The broker on another machine is away.
        Broker = "broker",
        /// No id could be drawn.
        Entropy = "entropy",
    }
}

rows! {
    /// What came of checking a token.
    TokenOutcome {
        /// It says who its bearer is.
        Accepted = "accepted",
        /// Not a token.
        Malformed = "malformed",
        /// No key and algorithm fit it.
        UnknownKey = "unknown_key",
        /// Its signature is wrong.
        Signature = "signature",
        /// Its time is over.
        Expired = "expired",
        /// Its time has not come.
        NotYetValid = "not_yet_valid",
        /// A claim is missing or wrong.
        Claim = "claim",
        /// No key is configured.
        NoKeys = "no_keys",
        /// Its key has to be fetched and can't be now.
        KeysUnavailable = "keys_unavailable",
        /// It was good, and has been taken back.
        Revoked = "revoked",
        /// It counts once, and was used before.
        Spent = "spent",
        /// It counts once, and whether it was used before can't be found out.
        NotSpendable = "not_spendable",
    }
}

impl From<&TokenError> for TokenOutcome {
    fn from(error: &TokenError) -> Self {
        match error {
            TokenError::Malformed => Self::Malformed,
            TokenError::UnknownKey => Self::UnknownKey,
            TokenError::Signature => Self::Signature,
            TokenError::Expired => Self::Expired,
            TokenError::NotYetValid => Self::NotYetValid,
            TokenError::Claim(_) => Self::Claim,
            TokenError::NoKeys => Self::NoKeys,
            TokenError::KeysUnavailable => Self::KeysUnavailable,
        }
    }
}

rows! {
    /// What came of an order to take something back.
    RevokeOutcome {
        /// It counts and is kept.
        Kept = "kept",
        /// It counts until the node ends: it could not be stored.
        NotStored = "not_stored",
        /// As many as there may be are remembered; nothing was done.
        Full = "full",
    }
}

impl From<&Result<(), RevokeError>> for RevokeOutcome {
    fn from(revoked: &Result<(), RevokeError>) -> Self {
        match revoked {
            Ok(()) => Self::Kept,
            Err(RevokeError::Storage(_)) => Self::NotStored,
            Err(RevokeError::Full) => Self::Full,
        }
    }
}

rows! {
    /// What a host's authorizer answered.
    AuthorizerOutcome {
        /// Yes.
        Allowed = "allowed",
        /// No.
        Denied = "denied",
        /// Nothing in time.
        Timeout = "timeout",
        /// Nothing, as too many wait.
        Busy = "busy",
        /// Nothing: it panicked.
        Panicked = "panicked",
        /// That it can't tell.
        Unavailable = "unavailable",
    }
}

impl From<&Result<Verdict, AuthorizerError>> for AuthorizerOutcome {
    fn from(answer: &Result<Verdict, AuthorizerError>) -> Self {
        match answer {
            Ok(Verdict::Allowed) => Self::Allowed,
            Ok(Verdict::Denied(_)) => Self::Denied,
            Err(AuthorizerError::Timeout) => Self::Timeout,
            Err(AuthorizerError::Busy) => Self::Busy,
            Err(AuthorizerError::Panicked) => Self::Panicked,
            Err(AuthorizerError::Unavailable(_)) => Self::Unavailable,
        }
    }
}

rows! {
    /// The endpoint that a connection came by.
    EndpointKind {
        /// `/ws/v2/connect`.
        V2 = "v2",
        /// `/ws/client`.
        Client = "client",
        /// `/ws`.
        Lobby = "lobby",
        /// `/ws/game`.
        Game = "game",
        /// `/ws/chat`.
        Chat = "chat",
        /// `/ws/combat`.
        Combat = "combat",
        /// `/ws/world`.
        World = "world",
        /// `/ws/games/{match_id}`.
        Match = "match",
        /// Any of them, with wrong parameters: closed as soon as it is open.
        Refused = "refused",
    }
}

impl EndpointKind {
    /// That of a view.
    #[must_use]
    pub const fn of(view: View) -> Self {
        match view {
            View::V2 => Self::V2,
            View::Client(_) => Self::Client,
            View::Document(Endpoint::Lobby) => Self::Lobby,
            View::Document(Endpoint::Game) => Self::Game,
            View::Document(Endpoint::Chat) => Self::Chat,
            View::Document(Endpoint::Combat) => Self::Combat,
            View::Document(Endpoint::World) => Self::World,
            View::Document(Endpoint::Match) => Self::Match,
            View::Refused(_) => Self::Refused,
        }
    }
}

rows! {
    /// The type of a command.
    CommandKind {
        /// `connect`.
        Connect = "connect",
        /// `subscribe`.
        Subscribe = "subscribe",
        /// `unsubscribe`.
        Unsubscribe = "unsubscribe",
        /// `subscribe` to a pattern.
        SubscribePattern = "subscribe_pattern",
        /// `unsubscribe` from a pattern.
        UnsubscribePattern = "unsubscribe_pattern",
        /// `publish`.
        Publish = "publish",
        /// `presence`.
        Presence = "presence",
        /// `presence_update`.
        PresenceUpdate = "presence_update",
        /// `history`.
        History = "history",
        /// `refresh`.
        Refresh = "refresh",
        /// `status`.
        Status = "status",
        /// `ping`.
        Ping = "ping",
        /// `pong`.
        Pong = "pong",
        /// A type of the host's own.
        Other = "other",
        /// What could not be read.
        Rejected = "rejected",
    }
}

impl CommandKind {
    /// The type of a frame.
    #[must_use]
    pub const fn of(frame: &ClientFrame<'_>) -> Self {
        match frame {
            ClientFrame::Connect { .. } => Self::Connect,
            ClientFrame::Subscribe { .. } => Self::Subscribe,
            ClientFrame::Unsubscribe { .. } => Self::Unsubscribe,
            ClientFrame::SubscribePattern { .. } => Self::SubscribePattern,
            ClientFrame::UnsubscribePattern { .. } => Self::UnsubscribePattern,
            ClientFrame::Publish { .. } => Self::Publish,
            ClientFrame::Presence { .. } => Self::Presence,
            ClientFrame::PresenceUpdate { .. } => Self::PresenceUpdate,
            ClientFrame::History { .. } => Self::History,
            ClientFrame::Refresh { .. } => Self::Refresh,
            ClientFrame::Status { .. } => Self::Status,
            ClientFrame::Ping { .. } => Self::Ping,
            ClientFrame::Pong => Self::Pong,
            ClientFrame::Other { .. } => Self::Other,
        }
    }
}

impl Row for CloseCode {
    const ROWS: &'static [Self] = &Self::ALL;

    fn label(self) -> &'static str {
        self.reason()
    }
}

impl Row for ErrorCode {
    const ROWS: &'static [Self] = &Self::ALL;

    fn label(self) -> &'static str {
        self.word()
    }
}

impl Row for Class {
    const ROWS: &'static [Self] = &[Self::Reliable, Self::Latest, Self::Droppable];

    fn label(self) -> &'static str {
        self.word()
    }
}

impl Row for GapReason {
    const ROWS: &'static [Self] =
        &[Self::Retention, Self::EpochChanged, Self::UnknownPosition, Self::Overflow];

    fn label(self) -> &'static str {
        self.word()
    }
}

/// One [`Tally`] per row.
#[derive(Debug)]
pub struct Tallies<R>(Box<[Tally]>, PhantomData<R>);

/// One [`Count`] per row.
#[derive(Debug)]
pub struct Counts<R>(Box<[Count]>, PhantomData<R>);

/// The same two, but for the cell.
macro_rules! by_row {
    ($name:ident, $cell:ident) => {
        impl<R: Row> Default for $name<R> {
            fn default() -> Self {
                let cells = std::iter::repeat_with($cell::default).take(R::ROWS.len());
                Self(cells.collect(), PhantomData)
            }
        }

        impl<R: Row> $name<R> {
            /// Adds to a row.
            pub fn add(&self, row: R, n: u64) {
                if let Some(cell) = self.0.get(row.place()) {
                    cell.add(n);
                }
            }

            /// Takes away what was added to a row before.
            pub fn sub(&self, row: R, n: u64) {
                if let Some(cell) = self.0.get(row.place()) {
                    cell.sub(n);
                }
            }

            /// Reads a row.
            #[must_use]
            pub fn get(&self, row: R) -> u64 {
                self.0.get(row.place()).map_or(0, $cell::get)
            }

            /// All rows together.
            #[must_use]
            pub fn sum(&self) -> u64 {
                self.0.iter().map($cell::get).sum()
            }
        }
    };
}

by_row!(Tallies, Tally);
by_row!(Counts, Count);

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row has a place of its own and a label of its own, made of a-z, 0-9 and _.
    fn check<R: Row + std::fmt::Debug>() {
        for (place, row) in R::ROWS.iter().enumerate() {
            assert_eq!(row.place(), place, "{row:?}");
            let label = row.label();
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            assert!(label.bytes().all(plain), "{label}");
            assert_eq!(R::ROWS.iter().filter(|other| other.label() == label).count(), 1);
        }
    }

    #[test]
    fn labels_are_words_and_no_two_rows_share_one() {
        check::<PublishOutcome>();
        check::<JoinOutcome>();
        check::<HoleCause>();
        check::<EdgeRefusal>();
        check::<CommandKind>();
        check::<EndpointKind>();
        check::<TokenOutcome>();
        check::<RevokeOutcome>();
        check::<AuthorizerOutcome>();
        check::<CloseCode>();
        check::<ErrorCode>();
        check::<Class>();
        check::<GapReason>();
        check::<crate::security::SecurityEvent>();
    }

    #[test]
    fn rows_are_counted_apart_and_together() {
        let (tallies, counts) = (Tallies::default(), Counts::default());
        tallies.add(Class::Latest, 2);
        tallies.add(Class::Droppable, 1);
        counts.add(Class::Latest, 7);
        counts.sub(Class::Latest, 2);
        assert_eq!((tallies.get(Class::Latest), tallies.sum()), (2, 3));
        assert_eq!((counts.get(Class::Latest), counts.get(Class::Reliable)), (5, 0));
    }
}
