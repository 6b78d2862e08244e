//! The built-in game: what one participant sends, everyone in the match gets.
//!
//! For games whose rules are in the clients. It must never pass on what somebody sends who only looks on.

use async_trait::async_trait;
use domain::codes::ErrorCode;
use domain::matches::Phase;
use domain::protocol::compact_lines;
use domain::protocol::json::Members;

use crate::extensions::games::schema::{Field, FieldKind, MessageSchema};
use crate::extensions::games::{GameManager, GameMessage};
use crate::extensions::handlers::{HandlerEffect, Publishing};
use crate::refusal::Refusal;

/// See the module's text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Relay;

const DATA: &[Field] = &[Field::required("data", FieldKind::Object)];
const SCHEMAS: &[MessageSchema] = &[
    MessageSchema { kind: "game_action", fields: DATA },
    MessageSchema { kind: "game_message", fields: DATA },
];

#[async_trait]
impl GameManager for Relay {
    fn game_type(&self) -> &str {
        "relay"
    }

    fn schemas(&self) -> &[MessageSchema] {
        SCHEMAS
    }

    async fn handle(&self, message: GameMessage) -> Result<Vec<HandlerEffect>, Refusal> {
        if !message.is_participant {
            let words = "only participants of this match may send";
            return Err(Refusal::new(ErrorCode::PermissionDenied, words));
        }
        // Also before it begins: who waits together has things to say.
        if message.of.phase() == Phase::Ended {
            let words = "the match has ended";
            return Err(Refusal::new(ErrorCode::NotAvailable, words));
        }
        // It has passed the schema: there is one, and the type is one of two words.
        let data = data_of(&message.body).ok_or_else(Refusal::internal)?;
        let text = format!(r#"{{"type":"{}","data":{data}}}"#, message.kind);
        let room = message.of.id.room().clone();
        Ok(vec![HandlerEffect::Publish(Publishing::new(room, text))])
    }
}

fn data_of(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?.trim_start_matches([' ', '\t', '\n', '\r']);
    let mut members = Members::open(text, 0, domain::protocol::json::DEPTH_MAX)?;
    while let Ok(Some((name, value))) = members.next_member() {
        if name == "data" {
            return Some(compact_lines(value).into_owned());
        }
    }
    None
}
