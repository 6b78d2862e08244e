//! Publishes one message to several rooms, for the server API.
//!
//! The caller has been authorised by its key; it must never be reached from a client connection.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use domain::delivery::Class;
use domain::id::{ClientId, MessageId, MessageKey};
use domain::message::{Publish, Publisher, Sender};
use domain::room::RoomId;
use domain::tags::Tags;
use domain::trace::TraceParent;
use thiserror::Error;
use tracing::Instrument;

use crate::mailbox::Mailbox;
use crate::ports::{PublishError, Receipt};
use crate::services::Services;
use crate::traces;

/// A message for one or more rooms.
pub struct BroadcastMessage {
    /// The node's services.
    pub services: Arc<Services>,
    /// The name of the API key, whose `msg_id`s these are.
    pub key_name: ClientId,
    /// The rooms.
    pub rooms: Vec<RoomId>,
    /// The published JSON.
    pub data: Bytes,
    /// How it is delivered; none takes each room's default.
    pub class: Option<Class>,
    /// What it replaces.
    pub key: Option<MessageKey>,
    /// The caller's name for it.
    pub msg_id: Option<MessageId>,
    /// How long it may be delivered.
    pub ttl: Option<Duration>,
    /// By what members may choose it.
    pub tags: Tags,
    /// The trace that it belongs to.
    pub trace: Option<TraceParent>,
}

/// Why a room did not get it.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum BroadcastError {
    /// The room's namespace is not one that this server has.
    #[error("no such namespace")]
    UnknownRoom,
    /// A key came without class latest, or class latest without a key; the class is the room's
    /// default where none was named.
    #[error("a key goes with class latest, and only with it")]
    Key,
    /// The broker did not take it.
    #[error("the broker did not take it")]
    Broker(#[source] PublishError),
}

impl BroadcastMessage {
    /// Publishes to each room and answers for each, in their order. Rooms do not wait for each
    /// other, so that durable ones share a commit.
    pub async fn execute(self) -> Vec<(RoomId, Result<Receipt, BroadcastError>)> {
        if let [room] = &*self.rooms {
            return vec![(room.clone(), self.publish_noted(room).await)];
        }
        let publishes = self.rooms.iter().map(|room| self.publish_noted(room));
        let answers = all_of(publishes).await;
        self.rooms.iter().cloned().zip(answers).collect()
    }

    async fn publish_noted(&self, room: &RoomId) -> Result<Receipt, BroadcastError> {
        let span = traces::of_api(self.key_name.as_str(), room, self.trace);
        let noted = span.clone();
        let answer = self.publish_to(room).instrument(span).await;
        if answer.is_err() {
            noted.record(traces::ERROR, "refused");
        }
        answer
    }

    async fn publish_to(&self, room: &RoomId) -> Result<Receipt, BroadcastError> {
        let Services { ports, rules, mailboxes, .. } = &*self.services;
        let policy = rules.policies.of(room).ok_or(BroadcastError::UnknownRoom)?;
        let class = self.class.unwrap_or(policy.default_class);
        if (class == Class::Latest) != self.key.is_some() {
            return Err(BroadcastError::Key);
        }
        Mailbox::relief_of_all(mailboxes).await;
        let publish = Publish {
            room: room.clone(),
            publisher: Publisher::ApiKey(self.key_name.clone()),
            msg_id: self.msg_id.clone(),
            class,
            key: self.key.clone(),
            sender: Sender { trace: self.trace, ..Sender::default() },
            data: self.data.clone(),
            ttl: self.ttl,
            tags: self.tags.clone(),
            origin: None,
            at: ports.clock.now().wall,
            fence: None,
        };
        ports.broker.publish(publish, policy).await.map_err(BroadcastError::Broker)
    }
}

/// Waits for all of them side by side. What wakes one polls all that are left, and they are few.
async fn all_of<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    poll_fn(move |cx| {
        let mut is_done = true;
        for (future, answer) in waiting.iter_mut().filter(|(_, answer)| answer.is_none()) {
            match future.as_mut().poll(cx) {
                Poll::Ready(ready) => *answer = Some(ready),
                Poll::Pending => is_done = false,
            }
        }
        if !is_done {
            return Poll::Pending;
        }
        Poll::Ready(waiting.drain(..).filter_map(|(_, answer)| answer).collect())
    })
    .await
}
