//! Ends one connection or all of a user, for the server API, and says how many there were.
//!
//! Ending those who are gone already changes nothing, so it may be repeated. It keeps nobody from
//! coming back: that is what revoking is for. The caller has been authorised by its key.

use std::sync::Arc;

use domain::codes::CloseCode;

use crate::inquiry::{Answer, Question, Unanswered, Whom, ask};
use crate::mailbox::Mailbox;

/// An order to end connections.
#[derive(Clone, Debug)]
pub struct EndConnections {
    /// Which ones.
    pub whom: Whom,
    /// With what.
    pub code: CloseCode,
}

impl EndConnections {
    /// Walks all shards, a bounded piece at a time, and answers how many connections were ended.
    ///
    /// # Errors
    /// [`Unanswered`] when a shard has ended; those before it were asked.
    pub async fn execute(self, mailboxes: &[Arc<Mailbox>]) -> Result<usize, Unanswered> {
        let mut ended = 0;
        for mailbox in mailboxes {
            let mut from = Some(0);
            while let Some(slot) = from {
                let (whom, code) = (self.whom.clone(), self.code);
                let question = Question::End { from: slot, whom, code };
                let Answer::Ended { count, next } = ask(mailbox, question).await? else {
                    return Err(Unanswered);
                };
                ended += count;
                from = next;
            }
        }
        Ok(ended)
    }
}
