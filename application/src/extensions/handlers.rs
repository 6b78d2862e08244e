//! The registry of message handlers: what a host wants done with message types of its own.
//!
//! A handler answers effects and touches nothing itself, so that one that fails leaves nothing
//! half done.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use domain::codes::CloseCode;
use domain::delivery::Class;
use domain::documents::told::Endpoint;
use domain::id::UserId;
use domain::room::RoomId;
use thiserror::Error;

use crate::extensions::middleware::{Context, Who};
use crate::refusal::Refusal;
use crate::registry::Registry;
use crate::services::Services;
use crate::view::View;

/// A message of a registered type.
#[derive(Clone)]
pub struct HandlerMessage {
    /// Who sent it.
    pub who: Arc<Who>,
    /// Its `type`.
    pub kind: String,
    /// The whole frame, as JSON; for `/ws` it may be plain text.
    pub body: Bytes,
    /// What middleware found out.
    pub context: Context,
    /// The node, for handlers that read from it.
    pub(crate) services: Arc<Services>,
}

impl HandlerMessage {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or_default()
    }

    /// Who is connected, and where.
    #[must_use]
    pub fn registry(&self) -> Registry {
        Registry::new(Arc::clone(&self.services))
    }
}

impl std::fmt::Debug for HandlerMessage {
    /// Without the body: it is somebody's message.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HandlerMessage").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// In whose name something is published.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Speaker {
    /// The sender of the handled message.
    Sender,
    /// The server.
    Server,
}

/// What a handler wants published.
#[derive(Clone, Debug, PartialEq)]
pub struct Publishing {
    /// The room.
    pub room: RoomId,
    /// The published JSON.
    pub data: Bytes,
    /// How it is delivered.
    pub class: Class,
    /// Whether the connection that it comes from gets it too, as a member of the room.
    pub echo: bool,
    /// In whose name.
    pub speaker: Speaker,
    /// Whether the sender needs the right to publish there. Where it does not, the handler has decided
    /// that this may be said; whoever is muted says nothing all the same.
    pub needs_right: bool,
    /// The user whose room it is, for whom it is kept while nobody hears it there.
    pub waits_for: Option<UserId>,
}

impl Publishing {
    /// Each one in order, in the sender's name and with its rights, to everyone in the room.
    #[must_use]
    pub fn new(room: RoomId, data: impl Into<Bytes>) -> Self {
        let (class, speaker) = (Class::Reliable, Speaker::Sender);
        let data = data.into();
        Self { room, data, class, echo: true, speaker, needs_right: true, waits_for: None }
    }

    /// Delivered as this class says; not `latest`, which needs a key.
    #[must_use]
    pub fn class(self, class: Class) -> Self {
        Self { class, ..self }
    }

    /// Whether the connection that it comes from gets it too.
    #[must_use]
    pub fn echo(self, echo: bool) -> Self {
        Self { echo, ..self }
    }

    /// Whether or not the sender has the right: the handler has decided.
    #[must_use]
    pub fn decided(self) -> Self {
        Self { needs_right: false, ..self }
    }

    /// Kept for this user, whose room it is, while nobody hears it there.
    #[must_use]
    pub fn waits_for(self, user: UserId) -> Self {
        Self { waits_for: Some(user), ..self }
    }

    /// In the server's name, for which the handler has decided.
    #[must_use]
    pub fn by_server(self) -> Self {
        Self { speaker: Speaker::Server, ..self }.decided()
    }
}

/// What a handler wants done. Effects are carried out in order; publishes come first.
#[derive(Clone, Debug, PartialEq)]
pub enum HandlerEffect {
    /// Answer the sender with a frame of this type and this `data` (JSON).
    Reply {
        /// The frame's `type`.
        kind: String,
        /// The frame's `data`.
        data: Bytes,
    },
    /// Publish to a room.
    Publish(Publishing),
    /// Make the sender a member, under the room's usual checks.
    Join(RoomId),
    /// End the sender's membership.
    Leave(RoomId),
    /// End the connection.
    Close(CloseCode),
}

/// Handles one message type.
#[async_trait]
pub trait MessageHandler: Send + Sync {
    /// The `type` it handles. Types of the protocol itself can't be taken over.
    fn message_type(&self) -> &str;

    /// Checks a message before anything waits for it.
    ///
    /// # Errors
    /// The answer that the client gets instead.
    fn validate(&self, body: &str) -> Result<(), Refusal>;

    /// Does what there is to do.
    ///
    /// # Errors
    /// The answer that the client gets instead; no effect is carried out.
    async fn handle(&self, message: HandlerMessage) -> Result<Vec<HandlerEffect>, Refusal>;
}

/// Why a handler can't be registered.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum RegisterError {
    /// Another handler has the type.
    #[error("the message type `{0}` has a handler already")]
    Taken(String),
    /// The protocol itself has the type.
    #[error("the message type `{0}` belongs to the protocol")]
    Reserved(String),
}

/// Handlers by message type.
#[derive(Clone, Default)]
pub struct HandlerRegistry {
    handlers: BTreeMap<String, Arc<dyn MessageHandler>>,
    /// Those of one endpoint of the documents, which come before those of all.
    of_endpoints: BTreeMap<Endpoint, BTreeMap<String, Arc<dyn MessageHandler>>>,
}

impl HandlerRegistry {
    /// Adds a handler.
    ///
    /// # Errors
    /// [`RegisterError`] when the type is taken or belongs to the protocol.
    pub fn register(&mut self, handler: Arc<dyn MessageHandler>) -> Result<(), RegisterError> {
        let kind = handler.message_type().to_owned();
        if domain::protocol::TYPES.contains(&kind.as_str()) {
            return Err(RegisterError::Reserved(kind));
        }
        if self.handlers.contains_key(&kind) {
            return Err(RegisterError::Taken(kind));
        }
        self.handlers.insert(kind, handler);
        Ok(())
    }

    /// Adds a handler for one endpoint of the documents, where types of protocol v2 mean nothing.
    ///
    /// # Errors
    /// [`RegisterError`] when the type is taken there or belongs to every endpoint.
    pub fn register_at(
        &mut self,
        endpoint: Endpoint,
        handler: Arc<dyn MessageHandler>,
    ) -> Result<(), RegisterError> {
        let kind = handler.message_type().to_owned();
        if matches!(&*kind, "ping" | "pong" | "status") {
            return Err(RegisterError::Reserved(kind));
        }
        let handlers = self.of_endpoints.entry(endpoint).or_default();
        if handlers.contains_key(&kind) {
            return Err(RegisterError::Taken(kind));
        }
        handlers.insert(kind, handler);
        Ok(())
    }

    /// All that is registered: the endpoint, or none for all of them, and the type.
    pub fn registered(&self) -> impl Iterator<Item = (Option<Endpoint>, &str)> {
        let of_all = self.handlers.keys().map(|kind| (None, kind.as_str()));
        let of_one = self.of_endpoints.iter().flat_map(|(endpoint, handlers)| {
            handlers.keys().map(|kind| (Some(*endpoint), kind.as_str()))
        });
        of_all.chain(of_one)
    }

    /// The handler of a type for whoever came by an endpoint.
    #[must_use]
    pub fn of(&self, view: View, kind: &str) -> Option<&Arc<dyn MessageHandler>> {
        let View::Document(endpoint) = view else { return self.handlers.get(kind) };
        let own = self.of_endpoints.get(&endpoint).and_then(|handlers| handlers.get(kind));
        // In a match all other types are the game's.
        own.or_else(|| (endpoint != Endpoint::Match).then(|| self.handlers.get(kind)).flatten())
    }
}
