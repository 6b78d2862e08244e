//! What is this server's own: what it does with a message, who is in a room, and who may be there.
//!
//! Nothing here may know of sockets: it answers what is to be sent.

use std::time::Duration;

use application::extensions::handlers::{HandlerEffect, HandlerMessage, MessageHandler};
use application::inquiry::ConnectionHere;
use application::ports::{TokenError, TokenVerifier};
use application::refusal::Refusal;
use async_trait::async_trait;
use domain::codes::ErrorCode;
use domain::id::UserId;
use domain::policy::{Access, NamespacePolicy};
use domain::principal::Principal;
use domain::room::RoomId;
use domain::time::Wall;
use serde_json::{Value, json};

/// How long the registry may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Everybody may do everything in these rooms; no other namespace is there.
pub(crate) fn open_to_anyone() -> NamespacePolicy {
    let (subscribe, publish) = (Access::Anyone, Access::Anyone);
    NamespacePolicy { subscribe, publish, ..NamespacePolicy::default() }
}

/// A player is whoever it says it is: `?token=ann`.
pub(crate) struct Players;

#[async_trait]
impl TokenVerifier for Players {
    async fn verify(&self, token: &str, _: Wall) -> Result<Principal, TokenError> {
        let user = Some(UserId::parse(token).map_err(|_| TokenError::Malformed)?);
        Ok(Principal { user, ..Principal::default() })
    }
}

/// `{"type":"say","text":"…"}` is answered.
pub(crate) struct Process;

/// A text field of a message.
fn field(body: &str, name: &'static str) -> Option<String> {
    let message: Value = serde_json::from_str(body).ok()?;
    message[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn wrong(name: &'static str, words: &'static str) -> Refusal {
    Refusal::new(ErrorCode::InvalidField, words).field(name)
}

#[async_trait]
impl MessageHandler for Process {
    fn message_type(&self) -> &str {
        "say"
    }

    fn validate(&self, body: &str) -> Result<(), Refusal> {
        field(body, "text").map(drop).ok_or_else(|| wrong("text", "must be a text"))
    }

    async fn handle(&self, message: HandlerMessage) -> Result<Vec<HandlerEffect>, Refusal> {
        let text = field(message.text(), "text").unwrap_or_default();
        let data = json!({"text": text.to_uppercase()}).to_string().into();
        Ok(vec![HandlerEffect::Reply { kind: "response".to_owned(), data }])
    }
}

/// `{"type":"connections","room":"room:a"}`, or with `player`: their ids, and what is known of them.
pub(crate) struct Connections;

enum Of {
    Room(RoomId),
    Player(UserId),
}

impl Of {
    fn read(body: &str) -> Result<Self, Refusal> {
        let room = field(body, "room").map(|text| RoomId::parse(&text));
        let player = field(body, "player").map(|text| UserId::parse(&text));
        match (room, player) {
            (Some(Ok(room)), None) => Ok(Self::Room(room)),
            (None, Some(Ok(player))) => Ok(Self::Player(player)),
            (None, Some(Err(_))) => Err(wrong("player", "must be a player")),
            _ => Err(wrong("room", "must be a room, or player a player")),
        }
    }
}

fn describe(here: &ConnectionHere) -> Value {
    json!({
        "connection_id": here.connection.to_string(),
        "client_id": here.client.as_str(),
        "player": here.user.as_ref().map(UserId::as_str),
        "connected_since": here.since.to_string(),
        "rooms": here.rooms,
    })
}

#[async_trait]
impl MessageHandler for Connections {
    fn message_type(&self) -> &str {
        "connections"
    }

    fn validate(&self, body: &str) -> Result<(), Refusal> {
        Of::read(body).map(drop)
    }

    async fn handle(&self, message: HandlerMessage) -> Result<Vec<HandlerEffect>, Refusal> {
        let (registry, of) = (message.registry(), Of::read(message.text())?);
        let list = async {
            match of {
                Of::Room(room) => registry.in_room(&room).await,
                Of::Player(player) => registry.of_user(&player).await,
            }
        };
        let away = || Refusal::unavailable(ANSWER_TIMEOUT);
        let list = tokio::time::timeout(ANSWER_TIMEOUT, list).await.map_err(|_| away())?;
        let list: Vec<_> = list.map_err(|_| away())?.iter().map(describe).collect();
        let data = Value::from(list).to_string().into();
        Ok(vec![HandlerEffect::Reply { kind: "connections".to_owned(), data }])
    }
}
