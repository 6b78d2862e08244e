//! `chat`, plain text, `typing`, `announcement` and the questions who is here of `/ws`.
//!
//! Everybody of the lobby hears a chat; an announcement is the server's word and needs a role.

use std::sync::Arc;

use async_trait::async_trait;
use domain::codes::ErrorCode;
use domain::delivery::Class;
use domain::documents::lobby::{self, Audience, Chat, PLAIN_TEXT};
use domain::documents::place::LOBBY;
use domain::documents::told;
use domain::id::{Role, UserId};
use domain::room::RoomId;

use super::chat::{may_be_written, private, room_of};
use crate::extensions::handlers::{HandlerEffect, HandlerMessage, MessageHandler, Publishing};
use crate::refusal::Refusal;
use crate::use_cases::list_presence::ListPresence;

/// How the lobby behaves.
#[derive(Clone, Debug)]
pub struct LobbySettings {
    /// Whether a connection gets back what it says.
    pub echo_to_sender: bool,
    /// The roles that may announce.
    pub announcer_roles: Arc<[Role]>,
    /// Whether users may write to each other.
    pub private_messages: bool,
}

impl Default for LobbySettings {
    fn default() -> Self {
        let roles = ["admin", "moderator", "system"];
        let roles = roles.into_iter().filter_map(|role| Role::parse(role).ok()).collect();
        Self { echo_to_sender: false, announcer_roles: roles, private_messages: true }
    }
}

/// One type of the lobby.
pub struct Lobby {
    kind: Kind,
    settings: LobbySettings,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Chat,
    Plain,
    Typing,
    Announcement,
    Users,
    Stats,
}

impl Lobby {
    /// All types.
    #[must_use]
    pub fn all(settings: &LobbySettings) -> Vec<Arc<dyn MessageHandler>> {
        let kinds =
            [Kind::Chat, Kind::Plain, Kind::Typing, Kind::Announcement, Kind::Users, Kind::Stats];
        let handler = |kind| Arc::new(Self { kind, settings: settings.clone() }) as _;
        kinds.into_iter().map(handler).collect()
    }

    fn say(&self, message: &HandlerMessage, chat: Chat) -> Result<Vec<HandlerEffect>, Refusal> {
        let echo = self.settings.echo_to_sender;
        match &chat.to {
            Audience::Everybody => {
                let publishing = Publishing::new(lobby_room()?, chat.data).echo(echo);
                Ok(vec![HandlerEffect::Publish(publishing)])
            }
            Audience::User(to) => {
                // The object ends with its own bracket; what is in it stands before.
                let inner = chat.data.strip_suffix('}').unwrap_or_default();
                let copy = format!(r#"{inner},"to_user_id":{}}}"#, quoted(to));
                private(message, to, (chat.data.clone(), copy), echo)
            }
        }
    }

    fn announce(
        &self,
        message: &HandlerMessage,
        chat: Chat,
    ) -> Result<Vec<HandlerEffect>, Refusal> {
        let roles = &message.who.principal.roles;
        if !roles.iter().any(|role| self.settings.announcer_roles.contains(role)) {
            return Err(Refusal::denied().field("type"));
        }
        let room = match &chat.to {
            Audience::Everybody => lobby_room()?,
            Audience::User(to) => room_of(to)?,
        };
        Ok(vec![HandlerEffect::Publish(Publishing::new(room, chat.data).by_server())])
    }
}

#[async_trait]
impl MessageHandler for Lobby {
    fn message_type(&self) -> &str {
        match self.kind {
            Kind::Chat => "chat",
            Kind::Plain => PLAIN_TEXT,
            Kind::Typing => "typing",
            Kind::Announcement => "announcement",
            Kind::Users => "users",
            Kind::Stats => "stats",
        }
    }

    fn validate(&self, body: &str) -> Result<(), Refusal> {
        match self.kind {
            Kind::Chat => {
                if let Audience::User(to) = lobby::chat(body)?.to {
                    may_be_written(&to, self.settings.private_messages, "to_user_id")?;
                }
            }
            Kind::Plain => lobby::plain(body).map(drop)?,
            Kind::Typing => lobby::typing(body).map(drop)?,
            Kind::Announcement => lobby::announcement(body).map(drop)?,
            Kind::Users | Kind::Stats => {}
        }
        Ok(())
    }

    async fn handle(&self, message: HandlerMessage) -> Result<Vec<HandlerEffect>, Refusal> {
        let text = message.text();
        match self.kind {
            Kind::Chat => self.say(&message, lobby::chat(text)?),
            Kind::Plain => self.say(&message, lobby::plain(text)?),
            Kind::Announcement => self.announce(&message, lobby::announcement(text)?),
            Kind::Typing => {
                let publishing = Publishing::new(lobby_room()?, lobby::typing(text)?);
                let publishing = publishing.class(Class::Droppable).echo(false);
                Ok(vec![HandlerEffect::Publish(publishing)])
            }
            Kind::Users => who_is_in(&message, lobby_room()?, "user_list", |users| users).await,
            Kind::Stats => who_is_in(&message, lobby_room()?, "stats", without_users).await,
        }
    }
}

/// Who is in a room, as far as the sender may know.
pub(super) async fn who_is_in(
    message: &HandlerMessage,
    room: RoomId,
    kind: &str,
    shown: impl FnOnce(Vec<u8>) -> Vec<u8> + Send,
) -> Result<Vec<HandlerEffect>, Refusal> {
    let services = Arc::clone(&message.services);
    let policy = services.rules.policies.of(&room).cloned();
    let policy = policy
        .ok_or_else(|| Refusal::new(ErrorCode::UnknownRoom, "this server has no such room"))?;
    let who = Arc::clone(&message.who);
    let list = ListPresence { services, who, room, policy, is_crowd: false };
    let list = list.execute_derived().await.map_err(Refusal::from)?;
    let directory = &message.services.directory;
    let users = told::users(&list, &|user: &UserId| directory.name_of(user));
    let data = shown(users).into();
    Ok(vec![HandlerEffect::Reply { kind: kind.to_owned(), data }])
}

/// The numbers alone.
fn without_users(users: Vec<u8>) -> Vec<u8> {
    let text = String::from_utf8_lossy(&users);
    // They stand behind the list, whose texts can't hold this as it is: a quote in them is escaped.
    let numbers = text.rfind(r#","total_users":"#).map(|at| text[at + 1..].to_owned());
    numbers.map_or(users, |numbers| format!("{{{numbers}").into_bytes())
}

fn quoted(user: &UserId) -> String {
    let mut text = Vec::new();
    domain::protocol::push_json_string(&mut text, user.as_str());
    String::from_utf8_lossy(&text).into_owned()
}

fn lobby_room() -> Result<RoomId, Refusal> {
    RoomId::parse(LOBBY).map_err(|_| Refusal::internal())
}
