//! What is said on `/ws/game`, `/ws/combat` and `/ws/world`.
//!
//! A message that exists is valid in itself. What a type has more of than its document says is passed on
//! as it came; who may say it is not known here.

use crate::documents::fields::{Fields, of_id};
use crate::id::UserId;
use crate::protocol::Rejected;
use crate::room::RoomId;

/// The longest text of an event, in bytes.
pub const TEXT_BYTES_MAX: usize = 4096;
/// The longest id of a thing in a game, in bytes.
pub const ID_BYTES_MAX: usize = 128;
/// The largest state of a `state_change`, in bytes of JSON.
pub const STATE_BYTES_MAX: usize = 16 << 10;

/// The types of `/ws/game`, which the server's backends send and nobody else.
pub const EVENTS: [&str; 4] =
    ["player_status", "achievement", "system_announcement", "state_change"];

/// An event and whom it is sent to; nobody in particular means everybody.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event<'a> {
    /// The one user that hears it.
    pub to: Option<UserId>,
    /// The published object.
    pub data: &'a str,
}

/// Reads an event of `/ws/game`.
///
/// # Errors
/// What is wrong, with the field.
pub fn event<'a>(kind: &str, body: &'a str) -> Result<Event<'a>, Rejected> {
    let fields = Fields::new(body);
    match kind {
        "achievement" => {
            fields.needed_user("user_id")?;
            id(fields, "achievement")?;
        }
        "player_status" => {
            fields.needed_user("user_id")?;
            id(fields, "status")?;
        }
        "system_announcement" => {
            fields.written("message", TEXT_BYTES_MAX)?;
        }
        _ => {
            let state = fields.object("state", STATE_BYTES_MAX)?;
            state.ok_or_else(|| Rejected::invalid("state", "is missing"))?;
        }
    }
    Ok(Event { to: fields.user("to_user_id")?, data: body })
}

/// Reads a `combat_action` and answers the combat's room.
///
/// # Errors
/// What is wrong, with the field.
pub fn combat_action(body: &str) -> Result<RoomId, Rejected> {
    let fields = Fields::new(body);
    id(fields, "action")?;
    id(fields, "target")?;
    let combat = id(fields, "combat_session_id")?;
    RoomId::parse(&format!("combat:{combat}"))
        .map_err(|error| Rejected::invalid("combat_session_id", error.to_string()))
}

/// Reads a `player_movement` and answers the zone's room.
///
/// # Errors
/// What is wrong, with the field.
pub fn player_movement(body: &str) -> Result<RoomId, Rejected> {
    let fields = Fields::new(body);
    fields.needed_number("x")?;
    fields.needed_number("y")?;
    let zone = id(fields, "zone")?;
    RoomId::parse(&format!("world:{zone}"))
        .map_err(|error| Rejected::invalid("zone", error.to_string()))
}

fn id<'a>(fields: Fields<'a>, name: &'static str) -> Result<std::borrow::Cow<'a, str>, Rejected> {
    let text = fields.needed_text(name)?;
    crate::id::check(&text, ID_BYTES_MAX, |byte| byte.is_ascii_graphic())
        .map_err(|error| of_id(name, error))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(rejected: Rejected) -> String {
        rejected.field.unwrap().into_owned()
    }

    #[test]
    fn the_printed_messages_are_taken() {
        let printed = r#"{"type":"achievement","user_id":"uuid","achievement":"first_kill","timestamp":"2025-06-06T16:00:00Z"}"#;
        assert_eq!(event("achievement", printed).unwrap(), Event { to: None, data: printed });
        let printed = r#"{"type":"combat_action","user_id":"uuid","action":"attack","target":"monster_id","combat_session_id":"uuid"}"#;
        assert_eq!(combat_action(printed).unwrap().as_str(), "combat:uuid");
        let printed = r#"{"type":"player_movement","user_id":"uuid","x":100.5,"y":200.3,"zone":"starter_town","timestamp":"2025-06-06T16:00:00Z"}"#;
        assert_eq!(player_movement(printed).unwrap().as_str(), "world:starter_town");
    }

    #[test]
    fn each_type_has_its_fields() {
        for (kind, body, named) in [
            ("achievement", r#"{"achievement":"a"}"#, "user_id"),
            ("achievement", r#"{"user_id":"u"}"#, "achievement"),
            ("achievement", r#"{"user_id":"u","achievement":"a b"}"#, "achievement"),
            ("player_status", r#"{"user_id":"u"}"#, "status"),
            ("system_announcement", r#"{"message":""}"#, "message"),
            ("state_change", "{}", "state"),
            ("state_change", r#"{"state":[1]}"#, "state"),
            ("state_change", r#"{"state":{},"to_user_id":7}"#, "to_user_id"),
        ] {
            assert_eq!(field(event(kind, body).unwrap_err()), named, "{kind} {body}");
        }
        for (body, named) in [
            (r#"{"target":"t","combat_session_id":"c"}"#, "action"),
            (r#"{"action":"a","combat_session_id":"c"}"#, "target"),
            (r#"{"action":"a","target":"t"}"#, "combat_session_id"),
            (r#"{"action":"a","target":"t","combat_session_id":"a#b"}"#, "combat_session_id"),
        ] {
            assert_eq!(field(combat_action(body).unwrap_err()), named, "{body}");
        }
        for (body, named) in [
            (r#"{"y":1,"zone":"z"}"#, "x"),
            (r#"{"x":"1","y":1,"zone":"z"}"#, "x"),
            (r#"{"x":1e999,"y":1,"zone":"z"}"#, "x"),
            (r#"{"x":1,"zone":"z"}"#, "y"),
            (r#"{"x":1,"y":1}"#, "zone"),
            (r#"{"x":1,"y":1,"zone":"a..b"}"#, "zone"),
        ] {
            assert_eq!(field(player_movement(body).unwrap_err()), named, "{body}");
        }
    }
}
