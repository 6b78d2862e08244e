//! Keeps what is said to a user whom nobody hears for on any node, until the user comes back.
//!
//! It must never keep and deliver the same: what is kept is not published.

use std::sync::Arc;
use std::time::Duration;

use domain::codes::ErrorCode;
use domain::id::{Epoch, UserId};
use domain::message::{Publish, Sender};
use domain::policy::AckLevel;
use domain::time::Monotonic;

use crate::peer::ring;
use crate::ports::{InboxError, Letter, PeerAnswer, PeerQuestion, Receipt, Word};
use crate::refusal::Refusal;
use crate::services::Services;

/// When a client may say again what could not be kept.
const COME_BACK: Duration = Duration::from_secs(1);

/// Keeps a publish for the user whose room it is for, if nobody hears it there and this server keeps
/// letters. Answers what became of it; none when it is to be published.
///
/// # Errors
/// The answer that the client gets.
pub(super) async fn keep_letter(
    services: &Arc<Services>,
    publish: &Publish,
    user: &UserId,
) -> Result<Option<Receipt>, Refusal> {
    let Some(inbox) = &services.ports.inbox else { return Ok(None) };
    let is_heard = || services.directory.is_heard(user);
    let sender = Sender { connection: None, trace: None, ..publish.sender.clone() };
    let letter = Letter { sender, data: publish.data.clone(), at: publish.at };
    // One that may be kept already is the same letter again, whoever hears the user meanwhile.
    let may_be_kept = services.directory.unsure.take(user, &letter, now(services)).is_some();
    if !may_be_kept && (is_heard() || is_heard_elsewhere(services, user).await) {
        return Ok(None);
    }
    let kept = inbox.put(user, letter.clone(), services.rules.limits.letters).await;
    let is_unsure = matches!(kept, Err(InboxError::Unsure(_)));
    if is_unsure || may_be_kept && kept.is_err() {
        services.directory.unsure.note(user, &letter, (), now(services));
    }
    if kept.is_ok() || is_unsure {
        if is_heard() {
            // Came meanwhile, and may have looked before it was there.
            ring(user, &services.mailboxes);
        }
        // The same on other nodes; and on one that hears the user and was too slow to say so.
        services.ports.peers.tell(&Word::LettersWait(user.clone()));
    }
    kept.map_err(|error| refusal_of(&error))?;
    // It has no place in the room's log.
    let (epoch, level) = (Epoch::from_bits(0), AckLevel::Accepted);
    Ok(Some(Receipt { epoch, offset: None, duplicate: false, level }))
}

/// As letters that may be kept are remembered by it.
fn now(services: &Services) -> Duration {
    services.ports.clock.now().monotonic.since(Monotonic::START)
}

/// Whether a user hears what is said to it over another node. One that does not answer may be gone: what is said
/// then waits, and it is told of it.
async fn is_heard_elsewhere(services: &Services, user: &UserId) -> bool {
    let heard = services.ports.peers.ask(PeerQuestion::Hears(user.clone())).await;
    heard.answers.iter().any(|(_, answer)| *answer == PeerAnswer::Hears(true))
}

fn refusal_of(error: &InboxError) -> Refusal {
    match error {
        InboxError::Full => {
            let message = "as many messages wait for this user, of this sender or on this server as may; \
                           try again later";
            Refusal::new(ErrorCode::RoomFull, message).field("to_user_id")
        }
        InboxError::Elsewhere | InboxError::Unsure(_) | InboxError::Storage(_) => {
            tracing::warn!(error = error as &dyn std::error::Error, "a letter was not kept");
            Refusal::unavailable(COME_BACK)
        }
    }
}
