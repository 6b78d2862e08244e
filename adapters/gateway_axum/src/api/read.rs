//! `GET /api/v1/presence` and `GET /api/v1/history`: who is in a room, and what was said there.
//!
//! Both answer what a member would be told over WebSocket. It must never look into a room that the
//! key does not reach.

use application::refusal::Refusal;
use axum::response::Response;
use domain::codes::ErrorCode;
use domain::id::Epoch;
use domain::position::{Offset, Position};
use domain::protocol::client_frame::{EPOCH_BYTES_MAX, UNKNOWN_EPOCH};

use super::fields::{Query, invalid};
use super::guard;
use super::out::answer;
use super::serve::Call;
use crate::answer::HttpRefusal;

pub(super) async fn presence(call: &Call<'_>) -> Result<Response, HttpRefusal> {
    let room = call.parameters()?.needed_room()?;
    guard::check_room(call.shared, call.key, call.route, &room)?;
    let list = call.shared.node.members(&room).await?;
    Ok(answer(|object| {
        object.text("room", room.as_str());
        object.number("seq", list.seq);
        object.number("total", list.total as u64);
        object.list("members", &list.members, |object, member| {
            object.text("user_id", &member.who.to_string());
            let data: &[u8] = if member.data.is_empty() { b"null" } else { &member.data };
            object.raw("data", data);
            object.number("connections", member.connections as u64);
        });
    }))
}

pub(super) async fn history(call: &Call<'_>) -> Result<Response, HttpRefusal> {
    let query = call.parameters()?;
    let (room, since, limit) = (query.needed_room()?, since(&query)?, query.limit()?);
    guard::check_room(call.shared, call.key, call.route, &room)?;
    let page = call.shared.node.history(&room, since, limit).await.map_err(named_here)?;
    Ok(answer(|object| {
        object.text("room", room.as_str());
        object.text("epoch", &page.bounds.epoch.to_string());
        object.number("offset", page.reached.get());
        object.raw_list("messages", page.messages.iter().map(|message| &**message.message()));
        object.flag("more", page.more);
        match page.gap {
            None => object.raw("gap", b"null"),
            Some(gap) => object.object("gap", |object| {
                object.number("from", gap.from.get());
                object.number("to", gap.to.get());
                object.text("reason", gap.reason.word());
            }),
        }
    }))
}

/// A refused position under the names that it has here.
fn named_here(refusal: Refusal) -> Refusal {
    if refusal.code != ErrorCode::InvalidPosition {
        return refusal;
    }
    let message = "epoch and offset are no position of this room's log; ask without them";
    Refusal::new(ErrorCode::InvalidPosition, message).field("epoch")
}

/// The position that `epoch` and `offset` name together.
fn since(query: &Query<'_>) -> Result<Option<Position>, Refusal> {
    let (epoch, offset) = (query.get("epoch"), query.number("offset")?);
    let (epoch, offset) = match (epoch, offset) {
        (None, None) => return Ok(None),
        (Some(epoch), Some(offset)) => (epoch, offset),
        (Some(_), None) => return Err(invalid("offset", "goes with epoch")),
        (None, Some(_)) => return Err(invalid("epoch", "goes with offset")),
    };
    if epoch.len() > EPOCH_BYTES_MAX {
        return Err(invalid("epoch", "must be at most 64 bytes"));
    }
    let offset =
        Offset::parse(offset).map_err(|_| invalid("offset", "must be at most 9007199254740991"))?;
    // Not of this log, whatever it is: the answer says so.
    let epoch = Epoch::parse(epoch).unwrap_or(UNKNOWN_EPOCH);
    Ok(Some(Position { epoch, offset }))
}
