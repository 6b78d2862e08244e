//! `GET /api/v1/rooms` and `GET /api/v1/connections`: what is on all nodes, page by page.
//!
//! Shards are asked, a bounded piece at a time, and one listing at a time for the whole node. A list
//! that would lack what a worker has that is lost must never be given out as if it were whole.

use std::sync::Arc;
use std::time::Duration;

use application::inquiry::{Of, Unanswered};
use application::node::ListingTurn;
use application::ports::NodeName;
use application::refusal::Refusal;
use application::use_cases::ask_peers::{OfAll, PlaceOfAll};
use application::use_cases::list_connections::ConnectionCursor;
use application::use_cases::list_rooms::ListRooms;
use axum::response::Response;
use domain::codes::ErrorCode;
use domain::room::RoomId;

use super::fields::{self, invalid};
use super::guard;
use super::out::{Object, answer};
use super::serve::Call;
use crate::answer::HttpRefusal;
use crate::shared::Shared;

/// How long a request waits for its turn; then it is told to come back.
const TURN_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the workers may take for all of one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
const COME_BACK: Duration = Duration::from_secs(1);

pub(super) async fn rooms(call: &Call<'_>) -> Result<Response, HttpRefusal> {
    let query = call.parameters()?;
    let prefix = query.get("prefix").unwrap_or_default();
    if prefix.len() > RoomId::BYTES_MAX {
        let message = "must be at most 255 bytes";
        return Err(Refusal::new(ErrorCode::TooLarge, message).field("prefix").into());
    }
    let (after, rooms_max) = (query.room("after")?, query.limit()?);
    guard::check_prefix(call.shared, call.key, call.route, prefix)?;
    let list = ListRooms { prefix: Arc::from(prefix), after, rooms_max };
    let turn = turn(call.shared).await?;
    let all = whole(call.shared, call.shared.node.rooms_of_all(turn, list)).await?;
    let page = &all.found;
    let next = page.rooms.last().filter(|_| page.more).map(|last| last.room.as_str());
    Ok(answer(|object| {
        object.list("rooms", &page.rooms, |object, here| {
            object.text("room", here.room.as_str());
            object.number("members", u64::from(here.members));
            let epoch = here.position.map(|position| position.epoch.to_string());
            object.text_or_null("epoch", epoch.as_deref());
            object.number_or_null("offset", here.position.map(|position| position.offset.get()));
        });
        object.text_or_null("next", next);
        missing(object, &all);
    }))
}

/// Says whether nodes are missing in an answer, and which.
pub(super) fn missing<T>(object: &mut Object<'_>, all: &OfAll<T>) {
    object.flag("incomplete", all.is_incomplete());
    object.text_list("missing", all.missing.iter().map(NodeName::as_str));
}

pub(super) async fn connections(call: &Call<'_>) -> Result<Response, HttpRefusal> {
    let query = call.parameters()?;
    let user = query.get("user_id").map(fields::user).transpose()?;
    let room = query.room("room")?;
    let from = query.get("after").map(cursor).transpose()?.unwrap_or_default();
    let connections_max = query.limit()?;
    match &room {
        Some(room) => guard::check_room(call.shared, call.key, call.route, room)?,
        None => guard::check_unlimited(call.shared, call.key, call.route)?,
    }
    let turn = turn(call.shared).await?;
    let of = Of { user, room };
    let asked = call.shared.node.connections_of_all(turn, of, from, connections_max);
    let all = whole(call.shared, asked).await?;
    let page = &all.found;
    let next = page.next.as_ref().map(|place| {
        let (node, at) = (place.node.as_ref(), place.at);
        let node = node.map(|node| format!("{node}.")).unwrap_or_default();
        format!("{node}{}.{}", at.shard, at.slot)
    });
    Ok(answer(|object| {
        object.list("connections", &page.connections, |object, here| {
            object.text("connection_id", &here.connection.to_string());
            object.text("client_id", here.client.as_str());
            object.text_or_null("user_id", here.user.as_ref().map(domain::id::UserId::as_str));
            object.text("connected_since", &here.since.to_string());
            object.number("rooms", here.rooms as u64);
            object.number("patterns", here.patterns as u64);
        });
        object.text_or_null("next", next.as_deref());
        missing(object, &all);
    }))
}

fn cursor(text: &str) -> Result<PlaceOfAll, Refusal> {
    let place = || {
        let (rest, slot) = text.rsplit_once('.')?;
        let (node, shard) = match rest.rsplit_once('.') {
            Some((node, shard)) => (Some(NodeName::parse(node)?), shard),
            None => (None, rest),
        };
        let at = ConnectionCursor { shard: shard.parse().ok()?, slot: slot.parse().ok()? };
        Some(PlaceOfAll { node, at })
    };
    place().ok_or_else(|| invalid("after", "must be `next` of the page before"))
}

/// Waits for the turn to list, and not for long.
pub(crate) async fn turn(shared: &Shared) -> Result<ListingTurn<'_>, Refusal> {
    let turn = tokio::time::timeout(TURN_TIMEOUT, shared.node.turn_to_list()).await;
    turn.map_err(|_| {
        let message = "other listings are under way; one at a time is carried out";
        Refusal::new(ErrorCode::RateLimited, message).retry_after(COME_BACK)
    })
}

/// Waits for what all workers have to answer.
pub(crate) async fn whole<T>(
    shared: &Shared,
    answer: impl Future<Output = Result<T, Unanswered>>,
) -> Result<T, Refusal> {
    let away = || {
        let message = "a worker does not answer; without it the answer would not be whole";
        Refusal::new(ErrorCode::Unavailable, message).retry_after(COME_BACK)
    };
    if !shared.lost_workers().is_empty() {
        return Err(away());
    }
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, answer).await;
    answer.map_err(|_| away())?.map_err(|Unanswered| away())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::tests::shared;

    #[test]
    fn a_cursor_is_two_numbers_behind_a_node_where_there_are_several_and_nothing_else() {
        let at = ConnectionCursor { shard: 1, slot: 1_024 };
        assert_eq!(cursor("1.1024"), Ok(PlaceOfAll { node: None, at }));
        let node = NodeName::parse("00ff");
        assert_eq!(cursor("00ff.1.1024"), Ok(PlaceOfAll { node, at }));
        for text in
            ["", ".", "1", "1.", "a.b", "a-.2.3", "1.2.3.4", ".1.2", "1.99999999999", "-1.0"]
        {
            assert!(cursor(text).is_err(), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_listing_waits_a_second_for_its_turn_and_is_then_told_to_come_back() {
        let shared = shared(&[]);
        let first = turn(&shared).await.unwrap();
        let refused = turn(&shared).await.unwrap_err();
        assert_eq!((refused.code, refused.retry_after), (ErrorCode::RateLimited, Some(COME_BACK)));
        drop(first);
        assert!(turn(&shared).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_come_or_would_not_be_whole_is_none() {
        let silent = whole::<()>(&shared(&[]), std::future::pending()).await.unwrap_err();
        let gone = whole::<()>(&shared(&[]), async { Err(Unanswered) }).await.unwrap_err();
        assert_eq!((silent.code, gone.code), (ErrorCode::Unavailable, ErrorCode::Unavailable));
    }

    #[tokio::test]
    async fn where_a_worker_has_ended_nothing_is_listed() {
        let lost = whole(&shared(&[true, false]), async { Ok(()) }).await.unwrap_err();
        assert_eq!(lost.code, ErrorCode::Unavailable);
    }
}
