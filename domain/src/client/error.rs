//! Why a request has no good answer.

use thiserror::Error;

use crate::id::MessageId;
use crate::protocol::client_event::Refusal;

/// Why a request has no good answer.
#[derive(Debug, Error)]
pub enum RequestError {
    /// What was to be sent is not JSON.
    #[error("the data is not JSON")]
    InvalidJson(#[source] serde_json::Error),
    /// The server refused it.
    #[error("the server refused it: {} ({})", .0.message, .0.error)]
    Refused(Refusal),
    /// The client is in that room or follows that pattern already, or is on its way.
    #[error("the client is in that room, or follows that pattern, already")]
    AlreadySubscribed,
    /// The application left the room before it was in.
    #[error("the room was left before it was joined")]
    Unsubscribed,
    /// There are as many rooms or unanswered requests as there may be.
    #[error("too many at once: at most {max}")]
    TooMany {
        /// How many there may be.
        max: usize,
    },
    /// Too much waits to be acknowledged.
    #[error("the outbox is full: wait for earlier publishes")]
    OutboxFull,
    /// There is no connection now, and the request makes no sense on another.
    #[error("the connection is down")]
    Disconnected,
    /// No answer came.
    #[error("no answer came in time")]
    TimedOut,
    /// The message was never sent: it has not been published, and will not be.
    #[error("the message was not sent in time, and has not been published")]
    NotSent {
        /// The id that it had.
        msg_id: MessageId,
    },
    /// No acknowledgement came. The message may have been published or not. Published again under the
    /// same id it is one, as long as the server remembers ids: ten minutes, and in a durable room as long
    /// as the message is kept.
    #[error("no acknowledgement came in time; publish again with message id {msg_id} to be sure")]
    Unanswered {
        /// The id to publish it again with.
        msg_id: MessageId,
        /// Why the server refused the last try, if it did: what is refused now, because a right was lost
        /// meanwhile, may have been taken the first time.
        refusal: Option<Box<Refusal>>,
    },
    /// The answer was not one to this question.
    #[error("the server gave an answer to another question")]
    WrongAnswer,
    /// The client is closed.
    #[error("the client is closed")]
    Closed,
}
