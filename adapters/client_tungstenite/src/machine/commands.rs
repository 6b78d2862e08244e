//! What the application asks for, and the frames that ask the server.

use domain::id::MessageId;
use domain::position::Position;
use domain::protocol::{ClientFrame, TokenText, encode_client};
use domain::room::RoomId;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Machine;
use super::requests::{Kind, Publish, REQUESTS_MAX, Reply};
use crate::client::{PublishOptions, SubscribeOptions};
use crate::error::RequestError;
use crate::options::Token;

/// One command of the application.
#[derive(Debug)]
pub(crate) enum Command {
    /// Something with an answer, until then.
    Ask(Ask, Instant, Reply),
    /// A token for the next connection.
    SetToken(Token),
    /// The end; answered when it is done.
    Close(oneshot::Sender<()>),
}

/// One request.
#[derive(Debug)]
pub(crate) enum Ask {
    Subscribe(RoomId, SubscribeOptions),
    Unsubscribe(RoomId),
    Publish { room: RoomId, data: String, msg_id: MessageId, options: PublishOptions },
    History { room: RoomId, since: Option<Position>, limit: u32 },
    Presence(RoomId),
    PresenceUpdate { room: RoomId, data: String },
    Refresh(Token),
    Status,
    Ping,
}

impl Machine {
    /// Takes a request.
    pub(crate) fn ask(&mut self, ask: Ask, deadline: Instant, reply: Reply) {
        let is_publish = matches!(ask, Ask::Publish { .. });
        if !is_publish && self.requests.others() >= REQUESTS_MAX {
            reply.send(Err(RequestError::TooMany { max: REQUESTS_MAX })).ok();
            return;
        }
        match ask {
            Ask::Subscribe(room, options) => self.subscribe(&room, options, reply, deadline),
            Ask::Unsubscribe(room) => self.unsubscribe(room, reply, deadline),
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
                let text = TokenText::new(token.as_str().to_owned().into());
                let frame = |id| ClientFrame::Refresh { id, token: text };
                self.send(Kind::Refresh(token), frame, reply, deadline);
            }
            Ask::Status => {
                self.send(Kind::Status, |id| ClientFrame::Status { id }, reply, deadline);
            }
            Ask::Ping => self.send(Kind::Ping, |id| ClientFrame::Ping { id }, reply, deadline),
        }
    }

    /// Sends what makes sense on this connection only.
    fn send<'a>(
        &mut self,
        kind: Kind,
        frame: impl FnOnce(Option<u64>) -> ClientFrame<'a>,
        reply: Reply,
        deadline: Instant,
    ) {
        if !self.is_online() {
            reply.send(Err(RequestError::Disconnected)).ok();
            return;
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
        reply: Reply,
        deadline: Instant,
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
        let frame = tokio_tungstenite::tungstenite::Utf8Bytes::from(encode_client(&frame));
        let bytes = self.requests.publish_bytes().saturating_add(frame.len());
        if self.requests.publishes() >= self.settings.outbox_max
            || bytes > self.settings.outbox_bytes_max
        {
            reply.send(Err(RequestError::OutboxFull)).ok();
            return;
        }
        let mut publish = Publish { msg_id, echo, frame, sent: 0, held_until: None };
        if self.is_online() {
            publish.sent = 1;
            self.out.push(publish.frame.clone());
        }
        self.requests.insert(id, Kind::Publish(publish), Some(reply), deadline);
    }
}
