//! Every number that a client could otherwise grow without end, in one place.
//!
//! Each has an answer when it is reached, written beside it. Nothing here may be unlimited.

use std::time::Duration;

use domain::rate_limit::Rate;

use crate::ports::LetterLimits;

/// The limits of one node. The defaults are those of `docs/protocol.md`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// The largest inbound message, in bytes; above it the connection is closed with 1009.
    pub message_bytes_max: usize,
    /// The most fragments of one inbound message; above it the connection is closed with 1008.
    pub fragments_max: u32,
    /// The most rooms one connection is in; above it `too_many_rooms`.
    pub rooms_per_connection_max: usize,
    /// The most bytes that wait for one connection; above it droppable messages are dropped, and
    /// for others the connection is closed with 3001.
    pub outbound_queue_bytes_max: usize,
    /// The most messages that wait behind a command of the same connection; at it the socket is
    /// not read.
    pub inbox_messages_max: usize,
    /// The most bytes that wait behind a command of the same connection; at it the socket is not
    /// read.
    pub inbox_bytes_max: usize,
    /// The most bytes of live messages held while a client joins or a hole is filled; above it
    /// they are read from the log instead, or named in a gap where there is none.
    pub held_bytes_max: usize,
    /// The most messages in one page of recovery.
    pub page_messages_max: u32,
    /// The most bytes of data in one page of recovery or history; at least one message comes.
    pub page_bytes_max: usize,
    /// The most bytes of messages, as they are sent, in one `hello` that brings rooms back; the
    /// rest comes in pages.
    pub resume_bytes_max: usize,
    /// The most messages in one answer to `history`; a client that asks for more gets this many.
    pub history_messages_max: u32,
    /// The most bytes of presence data; above it `too_large`.
    pub metadata_bytes_max: usize,
    /// The most members in one presence list; `total` tells how many there are.
    pub presence_list_max: usize,
    /// The most connections of one user on this node; above it 3506.
    pub connections_per_user_max: u32,
    /// The most letters that wait for users who are away; above it `room_full`.
    pub letters: LetterLimits,
    /// How fast one connection may send commands; above it `rate_limited`.
    pub commands: Rate,
    /// How often one address may come with a token or ticket that is none; above it nothing that it
    /// shows is checked for a while.
    pub bad_tokens_of_address: Rate,
    /// How fast all connections of one user together may send commands; above it `rate_limited`.
    pub commands_of_user: Rate,
    /// How fast one connection may change its presence data; above it the newest of a room waits, and takes the place of
    /// what waited.
    pub presence_updates: Rate,
    /// How many refusals for speed a connection may collect; above it 3005.
    pub refused_commands: Rate,
    /// How many frames that can't be parsed a connection may send; above it 3503.
    pub unparsable: Rate,
    /// The most mail that waits for one shard; above it a room has a hole that is filled from
    /// its log.
    pub mailbox_publications_max: usize,
    /// The most bytes of data that wait for one shard, with something added for each publication
    /// and presence event; above it the same.
    pub mailbox_bytes_max: usize,
    /// The most bytes of one joined write to one member.
    pub joined_bytes_max: usize,
    /// The most different filters that the members of one room have on one shard, 255 at most;
    /// above it `room_full`.
    pub filters_per_room_max: usize,
    /// The most patterns one connection follows; above it `too_many_rooms`.
    pub patterns_per_connection_max: usize,
    /// The most different patterns that are followed on one node, counted once per shard; above it
    /// `room_full`. Each publish is compared with those of its room's namespace.
    pub patterns_max: usize,
    /// How often the positions of rooms are compared with the broker's, for brokers that may
    /// lose a notification without knowing; none for those that can't.
    pub position_check: Option<Duration>,
    /// How often what a broker on another machine did not answer is asked for again: a hole, a list, the rooms of
    /// users, whose holes are filled then, too. None where what has no answer ends.
    pub hole_retry: Option<Duration>,
}

impl Limits {
    /// What `mailbox_bytes_max` is by default.
    pub const MAILBOX_BYTES_MAX: usize = 64 << 20;
}

impl Limits {
    /// How often a shard looks after what is still to be asked for; never where nothing can be.
    #[must_use]
    pub const fn look_every(&self) -> Option<Duration> {
        if self.hole_retry.is_some() { self.hole_retry } else { self.position_check }
    }

    /// The most bytes of a page that goes to one connection: its queue has to hold it with live messages
    /// behind it, or each return would end the connection.
    #[must_use]
    pub const fn page_bytes_of_one(&self) -> usize {
        let half = self.outbound_queue_bytes_max / 2;
        if self.page_bytes_max < half { self.page_bytes_max } else { half }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 64 << 10,
            fragments_max: 1_024,
            rooms_per_connection_max: 128,
            outbound_queue_bytes_max: 1 << 20,
            inbox_messages_max: 64,
            inbox_bytes_max: 256 << 10,
            held_bytes_max: 256 << 10,
            page_messages_max: 100,
            page_bytes_max: 512 << 10,
            resume_bytes_max: 512 << 10,
            history_messages_max: 1_000,
            metadata_bytes_max: 4 << 10,
            presence_list_max: 1_000,
            letters: LetterLimits {
                of_user: 1_000,
                of_pair: 100,
                of_sender: 1_000,
                of_all: 1_000_000,
            },
            connections_per_user_max: 5,
            commands: Rate::new(200, 400),
            bad_tokens_of_address: Rate::per_minute(30),
            commands_of_user: Rate::new(400, 800),
            presence_updates: Rate::new(10, 20),
            refused_commands: Rate::new(5, 100),
            unparsable: Rate::per_minute(20),
            mailbox_publications_max: 65_536,
            mailbox_bytes_max: Self::MAILBOX_BYTES_MAX,
            joined_bytes_max: 64 << 10,
            filters_per_room_max: 64,
            patterns_per_connection_max: 8,
            patterns_max: 256,
            position_check: None,
            hole_retry: None,
        }
    }
}
