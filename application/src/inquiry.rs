//! What somebody outside wants to know of shards, or wants ended, asked a bounded piece at a time.
//!
//! A shard answers one piece and forgets it: what is next stands in the question that follows. It
//! must never look at more than [`VISITS_MAX`] of its connections or answer more than it was asked
//! for in one step, so that its members wait for none of it.

use std::sync::Arc;

use domain::codes::CloseCode;
use domain::id::{ClientId, ConnectionId, UserId};
use domain::position::Position;
use domain::room::RoomId;
use domain::time::Wall;
use tokio::sync::mpsc;

use crate::mailbox::{Control, Mailbox};

/// The most connections that one piece looks at: some hundred microseconds' worth.
pub const VISITS_MAX: u32 = 1_024;
/// The most connections that one piece ends: each leaves its rooms and is told why.
pub const ENDS_MAX: usize = 64;
/// The most rooms or connections of one page.
pub const PAGE_MAX: u32 = 1_000;

/// A question with the way back. Equal to another when the same asker waits for the same.
#[derive(Clone, Debug)]
pub struct Inquiry {
    /// What is asked.
    pub question: Question,
    /// Where the answer goes; nobody may be waiting any more.
    answers: mpsc::Sender<Answer>,
}

impl PartialEq for Inquiry {
    fn eq(&self, other: &Self) -> bool {
        self.question == other.question && self.answers.same_channel(&other.answers)
    }
}

impl Eq for Inquiry {}

impl Inquiry {
    /// Answers, if somebody still waits.
    pub(crate) fn answer(&self, answer: Answer) {
        // There is room for one answer of each shard that was asked.
        let _ = self.answers.try_send(answer);
    }
}

/// One piece of what is asked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Question {
    /// The first rooms behind `after`, in the order of their names.
    Rooms {
        /// What their names begin with.
        prefix: Arc<str>,
        /// Where the page before ended.
        after: Option<RoomId>,
        /// The most rooms to answer.
        rooms_max: usize,
    },
    /// The first connections from a slot on.
    Connections {
        /// The first slot to look at.
        from: u32,
        /// Which ones.
        of: Of,
        /// The most connections to answer.
        connections_max: usize,
    },
    /// End connections, from a slot on.
    End {
        /// The first slot to look at.
        from: u32,
        /// Which ones.
        whom: Whom,
        /// With what.
        code: CloseCode,
    },
}

/// Which connections are listed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Of {
    /// Only those of this user.
    pub user: Option<UserId>,
    /// Only those in this room.
    pub room: Option<RoomId>,
}

/// Which connections are ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Whom {
    /// This one.
    Connection(ConnectionId),
    /// All of this user.
    User(UserId),
}

/// A room as one shard knows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RoomHere {
    /// Its name.
    pub room: RoomId,
    /// Its members over all shards of the node, those on their way in included.
    pub members: u32,
    /// Up to where its messages have passed here; none before it is known.
    pub position: Option<Position>,
}

/// A connection as its shard knows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConnectionHere {
    /// Its id.
    pub connection: ConnectionId,
    /// The label it gave itself, or was given.
    pub client: ClientId,
    /// Who it is; none for nobody in particular.
    pub user: Option<UserId>,
    /// When it was upgraded.
    pub since: Wall,
    /// How many rooms it is in, that of its own user included.
    pub rooms: usize,
    /// How many patterns it follows.
    pub patterns: usize,
}

/// What one shard answers to one piece.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// Rooms in the order of their names.
    Rooms {
        /// Those that were asked for.
        rooms: Vec<RoomHere>,
        /// Whether there are later ones.
        more: bool,
    },
    /// Connections in the order of their slots.
    Connections {
        /// Those that were found.
        connections: Vec<ConnectionHere>,
        /// The slot to look at next; none at the end.
        next: Option<u32>,
    },
    /// Connections were ended.
    Ended {
        /// How many.
        count: usize,
        /// The slot to look at next; none at the end.
        next: Option<u32>,
    },
}

/// A shard gave no answer: it has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a shard has ended and gives no answer")]
pub struct Unanswered;

/// Asks one shard one piece and waits for its answer. A shard that has ended without a word may
/// keep one waiting for ever: whoever has timers puts one around this.
///
/// # Errors
/// [`Unanswered`] when the shard is gone.
pub async fn ask(mailbox: &Mailbox, question: Question) -> Result<Answer, Unanswered> {
    let (answers, mut answer) = mpsc::channel(1);
    mailbox.order(Control::Inquire(Inquiry { question, answers }));
    answer.recv().await.ok_or(Unanswered)
}

/// Asks all shards the same at once. The answers come in no order.
///
/// # Errors
/// [`Unanswered`] when one of them is gone.
pub async fn ask_all(
    mailboxes: &[Arc<Mailbox>],
    question: &Question,
) -> Result<Vec<Answer>, Unanswered> {
    let (answers, mut answer) = mpsc::channel(mailboxes.len().max(1));
    for mailbox in mailboxes {
        let (question, answers) = (question.clone(), answers.clone());
        mailbox.order(Control::Inquire(Inquiry { question, answers }));
    }
    drop(answers);
    let mut all = Vec::with_capacity(mailboxes.len());
    while all.len() < mailboxes.len() {
        all.push(answer.recv().await.ok_or(Unanswered)?);
    }
    Ok(all)
}
