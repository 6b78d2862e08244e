//! Runs the host's handler for a message type of its own.
//!
//! Effects on the connection are answered, not carried out; publishes go through the same use
//! case and the same checks as a client's own. Everything is checked before anything is published,
//! so only a broker that does not take a publish can leave some of them done. What a handler made
//! must never reach a frame before it is known to be one JSON value on one line.

use std::sync::Arc;

use bytes::Bytes;
use domain::codes::ErrorCode;
use domain::message::{Origin, Publish, Publisher, Sender};
use domain::principal::Principal;
use domain::protocol::{compact_lines, json};
use domain::room::RoomId;
use domain::tags::Tags;

use crate::extensions::handlers::{
    HandlerEffect, HandlerMessage, MessageHandler, Publishing, Speaker,
};
use crate::extensions::middleware::{Inbound, Who};
use crate::ports::Receipt;
use crate::refusal::Refusal;
use crate::services::Services;
use crate::use_cases::keep_letter::keep_letter;
use crate::use_cases::publish_message::PublishMessage;

/// A message of a registered type.
pub struct HandleMessage {
    /// The node's services.
    pub services: Arc<Services>,
    /// Who sent it.
    pub who: Arc<Who>,
    /// The handler of its type.
    pub handler: Arc<dyn MessageHandler>,
    /// Its `type`.
    pub kind: String,
    /// The whole frame, as JSON.
    pub body: Bytes,
}

/// What is left to do for a handled message.
#[derive(Debug)]
pub struct Handled {
    /// Effects on the connection, in order.
    pub effects: Vec<HandlerEffect>,
    /// What became of the first publish.
    pub receipt: Option<(RoomId, Receipt)>,
}

impl HandleMessage {
    /// The most effects of one message; a handler that wants more is at fault.
    pub const EFFECTS_MAX: usize = 64;

    /// Validates, handles, publishes, and answers what is left to do.
    ///
    /// # Errors
    /// The answer that the client gets.
    pub async fn execute(self) -> Result<Handled, Refusal> {
        let body = std::str::from_utf8(&self.body).unwrap_or_default();
        let kind = &*self.kind;
        let inbound = Inbound { kind, room: None, body, derived: false };
        let chain = &self.services.rules.middleware;
        let context = chain.process_message(&self.who, inbound).await?;
        self.handler.validate(body)?;
        let message = HandlerMessage {
            who: Arc::clone(&self.who),
            kind: kind.to_owned(),
            body: self.body.clone(),
            context,
            services: Arc::clone(&self.services),
        };
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
    wanted: Vec<HandlerEffect>,
    own: Option<&RoomId>,
) -> Result<Handled, Refusal> {
    if wanted.len() > HandleMessage::EFFECTS_MAX {
        tracing::error!(kind, effects = wanted.len(), "a handler wants too many effects");
        return Err(Refusal::internal());
    }
    let (mut publishes, mut effects) = (Vec::new(), Vec::new());
    for effect in wanted {
        match effect {
            HandlerEffect::Publish(publishing) => {
                let needs_right = publishing.needs_right && own != Some(&publishing.room);
                let waits_for = publishing.waits_for.clone();
                let publish = publish_of(services, who, kind, publishing)?;
                publish.check(needs_right, true).await?;
                publishes.push((publish, waits_for));
            }
            HandlerEffect::Reply { kind: reply, data } => {
                effects.push(HandlerEffect::Reply { kind: reply, data: checked(kind, &data)? });
            }
            HandlerEffect::Join(_) | HandlerEffect::Leave(_) | HandlerEffect::Close(_) => {
                effects.push(effect);
            }
        }
    }
    let mut receipt = None;
    for (publish, waits_for) in publishes {
        let room = publish.publish.room.clone();
        let kept = match &waits_for {
            Some(user) => keep_letter(services, &publish.publish, user).await?,
            None => None,
        };
        let taken = match kept {
            Some(kept) => kept,
            None => publish.publish().await?,
        };
        receipt.get_or_insert((room, taken));
    }
    Ok(Handled { effects, receipt })
}

fn publish_of(
    services: &Arc<Services>,
    who: &Arc<Who>,
    kind: &str,
    publishing: Publishing,
) -> Result<PublishMessage, Refusal> {
    let Publishing { room, data, class, echo, speaker, .. } = publishing;
    let policy = services.rules.policies.of(&room).cloned();
    let policy = policy.ok_or_else(|| Refusal::new(ErrorCode::UnknownRoom, "no such namespace"))?;
    let origin = Origin { connection: who.connection, command: None, echo };
    let publish = Publish {
        room,
        publisher: publisher(who),
        msg_id: None,
        class,
        key: None,
        sender: match speaker {
            Speaker::Sender => sender(who),
            Speaker::Server => Sender::default(),
        },
        data: checked(kind, &data)?,
        tags: Tags::default(),
        ttl: None,
        origin: (!echo).then_some(origin),
        at: services.ports.clock.now().wall,
        fence: who.fence,
    };
    let (services, who) = (Arc::clone(services), Arc::clone(who));
    Ok(PublishMessage { services, who, policy, publish })
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
    let Principal { user, name, .. } = &*who.principal;
    let (user, name) = (user.clone(), name.clone());
    Sender { user, name, connection: Some(who.connection), trace: None }
}
