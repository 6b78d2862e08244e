//! What the application asks for, and the frames that ask the server.

use std::sync::Arc;
use std::time::Duration;

use crate::client::error::RequestError;
use crate::client::life::Moment;
use crate::client::machine::Machine;
use crate::client::machine::requests::{Answer, Kind, Publish, REQUESTS_MAX};
use crate::client::settings::Token;
use crate::delivery::Class;
use crate::filter::Filter;
use crate::id::{MessageId, MessageKey};
use crate::position::Position;
use crate::principal::RoomPattern;
use crate::protocol::{ClientFrame, encode_client};
use crate::room::RoomId;
use crate::tags::Tags;
use crate::time::Monotonic;

/// How to join a room.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SubscribeOptions {
    /// Up to where the application has everything; none begins with what comes next.
    pub since: Option<Position>,
    /// Whether to follow who is there, comes and goes.
    pub presence: bool,
    /// Which messages to get; none gets all.
    pub filter: Option<Filter>,
}

/// How to publish a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PublishOptions {
    /// The application's own id for it; none takes a fresh one. The same id twice is one message.
    pub msg_id: Option<MessageId>,
    /// Whether to get it back as a member of the room.
    pub echo: bool,
    /// How to deliver it; none as the room does by default.
    pub class: Option<Class>,
    /// What it replaces, for class `latest`.
    pub key: Option<MessageKey>,
    /// How long it may be delivered.
    pub ttl: Option<Duration>,
    /// By what members may choose it.
    pub tags: Tags,
}

impl Default for PublishOptions {
    fn default() -> Self {
        Self { msg_id: None, echo: true, class: None, key: None, ttl: None, tags: Tags::default() }
    }
}

/// One request.
#[derive(Debug)]
pub enum Ask {
    /// To be in a room.
    Subscribe(RoomId, SubscribeOptions),
    /// To be in it no longer.
    Unsubscribe(RoomId),
    /// To follow all rooms of a pattern.
    SubscribePattern(RoomPattern),
    /// To follow them no longer.
    UnsubscribePattern(RoomPattern),
    /// To publish.
    Publish {
        /// Where.
        room: RoomId,
        /// What: one JSON value.
        data: String,
        /// Under which id.
        msg_id: MessageId,
        /// How; `msg_id` in it is of no account.
        options: PublishOptions,
    },
    /// To see earlier messages.
    History {
        /// Of which room.
        room: RoomId,
        /// From where on, exclusive.
        since: Option<Position>,
        /// How many.
        limit: u32,
    },
    /// To see who is in a room.
    Presence(RoomId),
    /// To be seen differently.
    PresenceUpdate {
        /// In which room.
        room: RoomId,
        /// What others see: one JSON value.
        data: String,
    },
    /// To be known by a fresh token.
    Refresh(Token),
    /// To see how the connection stands.
    Status,
    /// To hear something.
    Ping,
}

impl<R> Machine<R> {
    /// Takes a request, which is answered by its deadline.
    pub fn ask(&mut self, ask: Ask, deadline: Monotonic, reply: R, now: Moment) {
        let is_publish = matches!(ask, Ask::Publish { .. });
        if !is_publish && self.requests.others() >= REQUESTS_MAX {
            return self.refuse(reply, RequestError::TooMany { max: REQUESTS_MAX });
        }
        match ask {
            Ask::Subscribe(room, options) => self.subscribe(&room, options, reply, deadline),
            Ask::Unsubscribe(room) => self.unsubscribe(&room, reply, deadline),
            Ask::SubscribePattern(pattern) => self.follow(&pattern, reply, deadline),
            Ask::UnsubscribePattern(pattern) => self.unfollow(&pattern, reply, deadline),
            Ask::Publish { room, data, msg_id, options } => {
                self.publish(room, &data, msg_id, options, reply, deadline);
            }
            Ask::History { room, since, limit } => {
                let frame = |id| ClientFrame::History { id, room, since, limit };
                self.send(Kind::History, frame, reply, deadline);
            }
            Ask::Presence(room) => {
                let frame = |id| ClientFrame::Presence { id, room };
                self.send(Kind::Presence, frame, reply, deadline);
            }
            Ask::PresenceUpdate { room, data } => {
                let frame = |id| ClientFrame::PresenceUpdate { id, room, data: &data };
                self.send(Kind::PresenceUpdate, frame, reply, deadline);
            }
            Ask::Refresh(token) => {
                let shown = token.clone();
                let frame = |id| ClientFrame::Refresh { id, token: shown.text() };
                self.send(Kind::Refresh(token), frame, reply, deadline);
            }
            Ask::Status => {
                self.send(Kind::Status, |id| ClientFrame::Status { id }, reply, deadline);
            }
            Ask::Ping => self.send(Kind::Ping, |id| ClientFrame::Ping { id }, reply, deadline),
        }
        self.settle(now);
    }

    pub(super) fn refuse(&mut self, reply: R, error: RequestError) {
        self.answers.push_back((reply, Err(error)));
    }

    pub(super) fn done(&mut self, reply: R) {
        self.answers.push_back((reply, Ok(Answer::Done)));
    }

    /// Sends what makes sense on this connection only.
    fn send<'a>(
        &mut self,
        kind: Kind,
        frame: impl FnOnce(Option<u64>) -> ClientFrame<'a>,
        reply: R,
        deadline: Monotonic,
    ) {
        if !self.is_online() {
            return self.refuse(reply, RequestError::Disconnected);
        }
        let id = self.requests.next_id();
        self.out.push_frame(&frame(Some(id)));
        self.requests.insert(id, kind, Some(reply), deadline);
    }

    /// Puts a publish into the outbox, and sends it if there is a connection.
    fn publish(
        &mut self,
        room: RoomId,
        data: &str,
        msg_id: MessageId,
        options: PublishOptions,
        reply: R,
        deadline: Monotonic,
    ) {
        let id = self.requests.next_id();
        let PublishOptions { echo, class, key, ttl, tags, msg_id: _ } = options;
        let name = Some(msg_id.clone());
        let frame = ClientFrame::Publish {
            id: Some(id),
            room,
            data,
            msg_id: name,
            echo,
            class,
            key,
            ttl,
            tags,
            trace: None,
        };
        let frame = Arc::<str>::from(encode_client(&frame));
        let bytes = self.requests.publish_bytes().saturating_add(frame.len());
        if self.requests.publishes() >= self.settings.outbox_max
            || bytes > self.settings.outbox_bytes_max
        {
            return self.refuse(reply, RequestError::OutboxFull);
        }
        let mut publish = Publish { msg_id, echo, frame, sent: 0, held_until: None };
        if self.is_online() {
            publish.sent = 1;
            self.out.push(Arc::clone(&publish.frame));
        }
        self.requests.insert(id, Kind::Publish(publish), Some(reply), deadline);
    }
}
