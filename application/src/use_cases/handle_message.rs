//! Runs the host's handler for a message type of its own.
//!
//! Effects on the connection are answered, not carried out; publishes go through the same use
//! case and the same checks as a client's own. Everything is checked before anything is published,
//! so only a broker that does not take a publish can leave some of them done. What a handler made
//! must never reach a frame before it is known to be one JSON value on one line.

use std::sync::Arc;

use bytes::Bytes;
use domain::codes::ErrorCode;
use domain::delivery::Class;
use domain::message::{Publish, Publisher, Sender};
use domain::protocol::{compact_lines, json};
use domain::room::RoomId;
use domain::tags::Tags;

use crate::extensions::handlers::{HandlerEffect, HandlerMessage, MessageHandler};
use crate::extensions::middleware::{Inbound, Who};
use crate::refusal::Refusal;
use crate::services::Services;
use crate::use_cases::publish_message::PublishMessage;

/// A message of a registered type.
pub struct HandleMessage {
    /// The node's services.
    pub services: Arc<Services>,
    /// Who sent it.
    pub who: Arc<Who>,
    /// The handler of its type.
    pub handler: Arc<dyn MessageHandler>,
    /// The whole frame, as JSON.
    pub body: Bytes,
}

impl HandleMessage {
    /// The most effects of one message; a handler that wants more is at fault.
    pub const EFFECTS_MAX: usize = 64;

    /// Validates, handles, publishes, and answers what is left to do.
    ///
    /// # Errors
    /// The answer that the client gets.
    pub async fn execute(self) -> Result<Vec<HandlerEffect>, Refusal> {
        let body = std::str::from_utf8(&self.body).unwrap_or_default();
        let kind = self.handler.message_type();
        let inbound = Inbound { kind, room: None, body };
        let chain = &self.services.rules.middleware;
        let context = chain.process_message(&self.who, inbound).await?;
        self.handler.validate(body)?;
        let message =
            HandlerMessage { who: Arc::clone(&self.who), body: self.body.clone(), context };
        let effects = self.handler.handle(message).await?;
        carry_out(&self.services, &self.who, kind, effects, None).await
    }
}

/// Publishes what a handler wants published, and answers what is left to do on the connection. What goes
/// to `own`, the room of whoever manages the handler's game, needs no right of the sender's: the manager
/// has decided.
///
/// # Errors
/// The answer that the client gets. Then nothing was published, or the broker did not take some of it.
pub(super) async fn carry_out(
    services: &Arc<Services>,
    who: &Arc<Who>,
    kind: &str,
    effects: Vec<HandlerEffect>,
    own: Option<&RoomId>,
) -> Result<Vec<HandlerEffect>, Refusal> {
    if effects.len() > HandleMessage::EFFECTS_MAX {
        tracing::error!(kind, effects = effects.len(), "a handler wants too many effects");
        return Err(Refusal::internal());
    }
    let (mut publishes, mut left) = (Vec::new(), Vec::new());
    for effect in effects {
        match effect {
            HandlerEffect::Publish { room, data, class } => {
                let policy = services.rules.policies.of(&room).cloned();
                let policy = policy
                    .ok_or_else(|| Refusal::new(ErrorCode::UnknownRoom, "no such namespace"))?;
                let is_own = own == Some(&room);
                let data = checked(kind, &data)?;
                let publish = PublishMessage {
                    services: Arc::clone(services),
                    who: Arc::clone(who),
                    policy,
                    publish: publish_of(services, who, room, data, class),
                };
                if !is_own {
                    publish.check().await?;
                }
                publishes.push(publish);
            }
            HandlerEffect::Reply { kind: reply, data } => {
                left.push(HandlerEffect::Reply { kind: reply, data: checked(kind, &data)? });
            }
            HandlerEffect::Join(_) | HandlerEffect::Leave(_) | HandlerEffect::Close(_) => {
                left.push(effect)
            }
        }
    }
    for publish in publishes {
        publish.publish().await?;
    }
    Ok(left)
}

fn publish_of(services: &Services, who: &Who, room: RoomId, data: Bytes, class: Class) -> Publish {
    Publish {
        room,
        publisher: publisher(who),
        msg_id: None,
        class,
        key: None,
        sender: sender(who),
        data,
        tags: Tags::default(),
        ttl: None,
        origin: None,
        at: services.ports.clock.now().wall,
    }
}

/// What a handler made, as it may stand in a frame.
fn checked(kind: &str, data: &[u8]) -> Result<Bytes, Refusal> {
    let text = std::str::from_utf8(data).ok().filter(|text| {
        let end = json::scan_value(text, 0, json::DEPTH_MAX);
        end.is_ok_and(|end| text[end..].trim_matches([' ', '\t', '\n', '\r']).is_empty())
    });
    let Some(text) = text else {
        tracing::error!(kind, "a handler's data is not JSON, or nested more than 64 deep");
        return Err(Refusal::internal());
    };
    // A copy of its own: a slice of the handled frame would keep all of it alive in the log.
    Ok(Bytes::copy_from_slice(compact_lines(text).as_bytes()))
}

/// Whose `msg_id`s a connection's publishes carry: its user's, else its client's.
#[must_use]
pub fn publisher(who: &Who) -> Publisher {
    match &who.principal.user {
        Some(user) => Publisher::User(user.clone()),
        None => Publisher::Client(who.client.clone()),
    }
}

/// How members see a connection's publishes.
#[must_use]
pub fn sender(who: &Who) -> Sender {
    Sender { user: who.principal.user.clone(), connection: Some(who.connection), trace: None }
}
