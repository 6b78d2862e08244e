//! `chat_message`, `typing` and `history` of `/ws/chat`.
//!
//! What is said to many needs the right to publish there, what is read the right to read it. A private
//! message goes to one user and, as a copy, to the sender's own other connections.

use std::sync::Arc;

use async_trait::async_trait;
use domain::codes::ErrorCode;
use domain::delivery::Class;
use domain::documents::chat::{self, History, Target};
use domain::documents::place::Place;
use domain::documents::said::message_id;
use domain::documents::told;
use domain::id::UserId;
use domain::policy::NamespacePolicy;
use domain::position::{Offset, Position};
use domain::recovery::LogBounds;
use domain::room::RoomId;

use crate::extensions::handlers::{HandlerEffect, HandlerMessage, MessageHandler, Publishing};
use crate::refusal::Refusal;
use crate::services::Services;
use crate::use_cases::read_history::{HistoryPage, ReadHistory, read_page};

/// `chat_message`.
pub struct ChatMessages {
    /// Whether users may write to each other.
    pub private: bool,
}

/// `typing`.
pub struct ChatTyping {
    /// Whether users may write to each other.
    pub private: bool,
}

/// `history`.
pub struct ChatHistory;

#[async_trait]
impl MessageHandler for ChatMessages {
    fn message_type(&self) -> &str {
        "chat_message"
    }

    fn validate(&self, body: &str) -> Result<(), Refusal> {
        may_be_said(&chat::message(body)?.target, self.private)
    }

    async fn handle(&self, message: HandlerMessage) -> Result<Vec<HandlerEffect>, Refusal> {
        let said = chat::message(message.text())?;
        match &said.target {
            Target::Room(room) => Ok(vec![publish(room.clone(), said.data(None))]),
            Target::User(to) => private(&message, to, (said.data(None), said.data(Some(to))), true),
        }
    }
}

#[async_trait]
impl MessageHandler for ChatTyping {
    fn message_type(&self) -> &str {
        "typing"
    }

    fn validate(&self, body: &str) -> Result<(), Refusal> {
        may_be_said(&chat::typing(body)?.target, self.private)
    }

    async fn handle(&self, message: HandlerMessage) -> Result<Vec<HandlerEffect>, Refusal> {
        let typing = chat::typing(message.text())?;
        let publishing = match &typing.target {
            Target::Room(room) => Publishing::new(room.clone(), typing.data()),
            Target::User(to) => Publishing::new(room_of(to)?, typing.data()).decided(),
        };
        let publishing = publishing.class(Class::Droppable).echo(false);
        Ok(vec![HandlerEffect::Publish(publishing)])
    }
}

#[async_trait]
impl MessageHandler for ChatHistory {
    fn message_type(&self) -> &str {
        "history"
    }

    fn validate(&self, body: &str) -> Result<(), Refusal> {
        chat::history(body)?;
        Ok(())
    }

    async fn handle(&self, message: HandlerMessage) -> Result<Vec<HandlerEffect>, Refusal> {
        let asked = chat::history(message.text())?;
        let (page, more) = read_before(&message, &asked).await?;
        let listed = told::listed(page.messages.iter().map(|published| &published.publication));
        let first = page.messages.first().and_then(|first| first.publication.offset);
        // Where nothing was found so far, whoever asks goes on from there.
        let next = first
            .or_else(|| page.reached.next())
            .filter(|_| more)
            .map(|offset| message_id(Position { epoch: page.bounds.epoch, offset }));
        let more = more && next.is_some();
        let place = Place::of(&asked.room);
        let mut data = String::from("{");
        data.push_str(&format!(r#""channel":"{}""#, place.channel().unwrap_or_default()));
        if let Some((name, id)) = place.id() {
            // A room's alphabet holds nothing that needs an escape.
            data.push_str(&format!(r#","{name}":"{id}""#));
        }
        let next = next.map_or_else(|| "null".to_owned(), |id| format!(r#""{id}""#));
        let listed = String::from_utf8_lossy(&listed);
        data.push_str(&format!(r#","messages":{listed},"more":{more},"before":{next}}}"#));
        Ok(vec![HandlerEffect::Reply { kind: "history".to_owned(), data: data.into() }])
    }
}

fn publish(room: RoomId, data: String) -> HandlerEffect {
    HandlerEffect::Publish(Publishing::new(room, data))
}

fn may_be_said(target: &Target, private: bool) -> Result<(), Refusal> {
    match target {
        Target::User(to) => may_be_written(to, private, "channel"),
        Target::Room(_) => Ok(()),
    }
}

/// Whether anything may be said to one user alone.
pub(super) fn may_be_written(
    to: &UserId,
    private: bool,
    field: &'static str,
) -> Result<(), Refusal> {
    if !private {
        let message = "this server has no private messages";
        return Err(Refusal::new(ErrorCode::NotAvailable, message).field(field));
    }
    room_of(to).map(drop)
}

/// What is said to one user, for whom it waits while away, and the sender's own copy of it.
pub(super) fn private(
    message: &HandlerMessage,
    to: &UserId,
    (data, copy): (String, String),
    echo: bool,
) -> Result<Vec<HandlerEffect>, Refusal> {
    let said = Publishing::new(room_of(to)?, data).decided().waits_for(to.clone());
    let own = message.who.principal.user.as_ref().filter(|user| *user != to);
    let own = own.and_then(Place::of_user);
    let copy = own.map(|room| Publishing::new(room, copy).decided().echo(echo));
    Ok(std::iter::once(said).chain(copy).map(HandlerEffect::Publish).collect())
}

pub(super) fn room_of(user: &UserId) -> Result<RoomId, Refusal> {
    Place::of_user(user).ok_or_else(|| {
        let message = "this user has no room: its id can't be part of a room's name";
        Refusal::new(ErrorCode::UnknownRoom, message).field("to_user_id")
    })
}

/// The newest messages before a place, and whether there are older ones.
async fn read_before(
    message: &HandlerMessage,
    asked: &History,
) -> Result<(HistoryPage, bool), Refusal> {
    let services = &message.services;
    let History { room, before, limit } = asked;
    let policy = services.rules.policies.of(room).cloned();
    let policy = policy.ok_or_else(|| {
        Refusal::new(ErrorCode::UnknownRoom, "this server has no such channel").field("channel")
    })?;
    let limit = u64::from((*limit).min(services.rules.limits.history_messages_max));
    // Who may read at all, and where the log stands.
    let read = ReadHistory {
        services: Arc::clone(services),
        who: Arc::clone(&message.who),
        room: room.clone(),
        policy: Arc::clone(&policy),
        since: None,
        messages_max: 1,
    };
    let bounds = read.execute_derived().await.map_err(Refusal::from)?.bounds;
    let end = match before {
        None => bounds.last,
        Some(before) if bounds.names(*before) => before.offset.previous().min(bounds.last),
        Some(_) => {
            let message = "the message is not of this room's log; ask without `before`";
            return Err(Refusal::new(ErrorCode::InvalidPosition, message).field("before"));
        }
    };
    read_up_to(services, &Log { room, policy, bounds }, end, limit).await
}

/// A room's log as it stood.
struct Log<'a> {
    room: &'a RoomId,
    policy: Arc<NamespacePolicy>,
    bounds: LogBounds,
}

/// How often older messages are looked for behind places that hold nothing, each time farther back; then whoever asks
/// is told where to go on.
const EMPTY_READS_MAX: u32 = 8;

/// The newest messages up to a place, and whether there are older ones.
async fn read_up_to(
    services: &Services,
    log: &Log<'_>,
    mut end: Offset,
    limit: u64,
) -> Result<(HistoryPage, bool), Refusal> {
    let Log { room, policy, bounds } = log;
    let epoch = bounds.epoch;
    let oldest = bounds.first.previous();
    let (mut wanted, mut empty_reads) = (limit, 0);
    loop {
        let from = end.get().saturating_sub(wanted).max(oldest.get());
        let after = Offset::parse(from).map_err(|_| Refusal::internal())?;
        let n = u32::try_from(end.get().saturating_sub(from)).unwrap_or(u32::MAX);
        if n == 0 || empty_reads > EMPTY_READS_MAX {
            let (messages, bounds) = (Vec::new(), *bounds);
            let page = HistoryPage { bounds, messages, reached: end, more: false, gap: None };
            return Ok((page, n > 0));
        }
        let since = Some(Position { epoch, offset: after });
        let mut page = read_page(services, room, policy, since, n).await?;
        page.messages.retain(|m| m.publication.offset.is_some_and(|offset| offset <= end));
        let Some(newest) = page.messages.last().and_then(|last| last.publication.offset) else {
            // These places hold nothing, or not any more: what is older may be far from here.
            (end, empty_reads) = (after, empty_reads + 1);
            let most = u64::from(services.rules.limits.history_messages_max);
            wanted = wanted.saturating_mul(4).min(most);
            continue;
        };
        // A page has an end in bytes, too: fewer of the newest rather than more of the oldest.
        if newest >= end || wanted <= 1 || is_nothing_behind(services, log, newest, end).await? {
            let too_old = page.messages.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
            let is_cut = page.messages.drain(..too_old).count() > 0;
            return Ok((page, is_cut || after > oldest));
        }
        wanted = wanted.div_ceil(2);
    }
}

/// Whether the log holds nothing between two places.
async fn is_nothing_behind(
    services: &Services,
    log: &Log<'_>,
    newest: Offset,
    end: Offset,
) -> Result<bool, Refusal> {
    let since = Some(Position { epoch: log.bounds.epoch, offset: newest });
    let page = read_page(services, log.room, &log.policy, since, 1).await?;
    let next = page.messages.first().and_then(|first| first.publication.offset);
    Ok(next.is_none_or(|next| next > end))
}
