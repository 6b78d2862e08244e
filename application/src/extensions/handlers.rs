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
use domain::room::RoomId;
use thiserror::Error;

use crate::extensions::middleware::{Context, Who};
use crate::refusal::Refusal;

/// A message of a registered type.
#[derive(Clone, Debug)]
pub struct HandlerMessage {
    /// Who sent it.
    pub who: Arc<Who>,
    /// The whole frame, as JSON.
    pub body: Bytes,
    /// What middleware found out.
    pub context: Context,
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
    /// Publish to a room as the sender, under the room's usual checks.
    Publish {
        /// The room.
        room: RoomId,
        /// The published JSON.
        data: Bytes,
        /// How it is delivered.
        class: Class,
    },
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

    /// The handler of a type.
    #[must_use]
    pub fn of(&self, kind: &str) -> Option<&Arc<dyn MessageHandler>> {
        self.handlers.get(kind)
    }
}
