//! What the application adds: a message type, a rule for what is said, and who may do what.
//!
//! They decide and answer; carrying out is the core's.

use std::sync::Arc;

use application::extensions::handlers::{HandlerEffect, HandlerMessage, MessageHandler};
use application::extensions::middleware::{Context, Inbound, Middleware, Who};
use application::ports::{Authorizer, AuthorizerError, Entropy, Question, Verdict};
use application::refusal::Refusal;
use async_trait::async_trait;
use domain::codes::ErrorCode;
use serde::Deserialize;
use serde_json::json;
use worker_tokio::SystemEntropy;

use crate::guilds::Guilds;

/// `{"type":"dice.roll","id":1,"sides":6}` is answered with a number.
pub(crate) struct Dice;

#[derive(Deserialize)]
struct Roll {
    sides: u64,
}

impl Dice {
    const SIDES_MAX: u64 = 1_000;

    fn sides(body: &str) -> Result<u64, Refusal> {
        let sides = serde_json::from_str::<Roll>(body).map_or(0, |roll| roll.sides);
        if (2..=Self::SIDES_MAX).contains(&sides) {
            return Ok(sides);
        }
        Err(Refusal::new(ErrorCode::InvalidField, "a die has 2 to 1000 sides").field("sides"))
    }
}

#[async_trait]
impl MessageHandler for Dice {
    fn message_type(&self) -> &str {
        "dice.roll"
    }

    fn validate(&self, body: &str) -> Result<(), Refusal> {
        Self::sides(body).map(drop)
    }

    async fn handle(&self, message: HandlerMessage) -> Result<Vec<HandlerEffect>, Refusal> {
        let sides = Self::sides(&String::from_utf8_lossy(&message.body))?;
        let bits = SystemEntropy::default().bits();
        let bits = bits.map_err(|_| Refusal::new(ErrorCode::Unavailable, "the dice are gone"))?;
        let rolled = bits % sides + 1;
        let data = json!({"sides": sides, "rolled": rolled}).to_string().into();
        Ok(vec![HandlerEffect::Reply { kind: "dice.rolled".to_owned(), data }])
    }
}

/// Nobody shouts here: a publish in capitals alone is refused.
pub(crate) struct CalmDown;

#[async_trait]
impl Middleware for CalmDown {
    async fn process_message(
        &self,
        _: &Who,
        message: Inbound<'_>,
        _: &mut Context,
    ) -> Result<(), Refusal> {
        let has = |is: fn(char) -> bool| message.body.contains(is);
        if message.kind == "publish" && has(char::is_uppercase) && !has(char::is_lowercase) {
            return Err(Refusal::new(ErrorCode::InvalidField, "no shouting").field("data"));
        }
        Ok(())
    }
}

/// In `guild:<name>` is who is in that guild, as the application knows it.
pub(crate) struct MembersOnly(pub(crate) Arc<Guilds>);

#[async_trait]
impl Authorizer for MembersOnly {
    async fn authorize(&self, question: Question) -> Result<Verdict, AuthorizerError> {
        let name = question.room.as_str().strip_prefix("guild:");
        let is_member = match (name, &question.who.principal.user) {
            (Some(guild), Some(user)) => self.0.has_member(guild, user),
            _ => false,
        };
        Ok(if is_member { Verdict::Allowed } else { Verdict::Denied("not in this guild".into()) })
    }
}
