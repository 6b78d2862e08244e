//! The other nodes: asked what they have, and told what all of them must know.
//!
//! An implementation must never take silence for "nothing": a node that is there and has not answered is
//! named. It must never keep anybody waiting for longer than a few seconds.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::codes::CloseCode;
use domain::id::UserId;
use domain::moderation::Entry;

use crate::inquiry::{Of, Whom};
use crate::use_cases::list_connections::{ConnectionCursor, ConnectionsPage};
use crate::use_cases::list_rooms::{ListRooms, RoomsPage};

/// What a node is called among its peers, for as long as its process lasts.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// The longest name, in bytes.
    pub const BYTES_MAX: usize = 32;

    /// The name that this text is: letters and digits, at least one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_name = (1..=Self::BYTES_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric());
        is_name.then(|| Self(text.into()))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What one node asks of all others.
#[derive(Clone, Debug)]
pub enum PeerQuestion {
    /// The first rooms behind one, in the order of their names.
    Rooms(ListRooms),
    /// The first connections behind a place.
    Connections {
        /// Which ones.
        of: Of,
        /// The node of that place, and where on it: nodes before it have nothing, those behind it
        /// everything.
        from: Option<(NodeName, ConnectionCursor)>,
        /// The most connections to answer.
        connections_max: u32,
    },
    /// End connections.
    End {
        /// Which ones.
        whom: Whom,
        /// With what.
        code: CloseCode,
    },
    /// Whether somebody hears what is said to a user. Only nodes are asked over which the user is or was just now
    /// connected, and only those may be missing.
    Hears(UserId),
}

/// What one node answers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PeerAnswer {
    /// Its rooms.
    Rooms(RoomsPage),
    /// Its connections.
    Connections(ConnectionsPage),
    /// How many connections it has ended.
    Ended(usize),
    /// Whether one of its connections hears the user.
    Hears(bool),
}

/// What one node tells all others.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Word {
    /// What a moderator did.
    Moderated(Entry),
    /// Something waits for a user, for the first of its connections that can be given it.
    LettersWait(UserId),
}

/// What came of a question.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Heard {
    /// By node, in the order of their names.
    pub answers: Vec<(NodeName, PeerAnswer)>,
    /// Nodes that are there and have not answered. They may do what they were asked to all the same.
    pub missing: Vec<NodeName>,
    /// Whether it is not even known which nodes are there.
    pub unknown: bool,
}

/// For how long a kick puts out whoever is in the room: who is kicked may come back, and whoever did since stays.
pub const KICK_COUNTS: Duration = Duration::from_secs(30);

/// One node, as its peers know it.
#[async_trait]
pub trait Peer: Send + Sync {
    /// Answers a peer; none when this node can't.
    async fn answer(&self, question: PeerQuestion) -> Option<PeerAnswer>;

    /// A moderator did something over another node: the same counts here as soon as this has been polled once,
    /// and is stored when it ends. One that is late may have been done [too long](KICK_COUNTS) ago for a kick.
    async fn moderated(&self, entry: Entry, is_late: bool);

    /// The first users behind one who hear what is said to them over this node, in the order of their names: so many
    /// users are looked at, and where there may be more the last of those is answered, too. MUST NOT wait.
    fn users_heard(
        &self,
        behind: Option<&UserId>,
        looked_at: usize,
    ) -> (Vec<UserId>, Option<UserId>);

    /// Something waits for a user: if it is connected here, it is to be given it. MUST NOT wait.
    fn letters_wait(&self, user: &UserId);
}

/// The other nodes.
#[async_trait]
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
pub trait Peers: Send + Sync {
    /// This node's own name; none where there are no others.
    fn name(&self) -> Option<NodeName>;

    /// Asks all others and waits for them, but not for long. Every node that was there when this was
    /// called, and is asked, MUST be in the answer, with what it said or as missing.
    async fn ask(&self, question: PeerQuestion) -> Heard;

    /// How many connections a user has over all nodes; none where that can't be found out, or there are
    /// no others.
    async fn connections_of(&self, user: &UserId) -> Option<u32>;

    /// Tells all others. MUST NOT wait. A node that does not hear it does not obey, unless it finds it in a log
    /// that all of them write; one that hears it twice, or late, does nothing more.
    fn tell(&self, word: &Word);

    /// Has what others ask and tell answered by this one. There is one at most.
    fn serve(&self, peer: Arc<dyn Peer>);
}

/// For a host without others.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPeers;

#[async_trait]
impl Peers for NoPeers {
    fn name(&self) -> Option<NodeName> {
        None
    }

    async fn ask(&self, _: PeerQuestion) -> Heard {
        Heard::default()
    }

    async fn connections_of(&self, _: &UserId) -> Option<u32> {
        None
    }

    fn tell(&self, _: &Word) {}

    fn serve(&self, _: Arc<dyn Peer>) {}
}
