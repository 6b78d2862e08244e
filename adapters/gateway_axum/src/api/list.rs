//! `GET /api/v1/rooms` and `GET /api/v1/connections`: what is on this node, page by page.
//!
//! Shards are asked, a bounded piece at a time, and one listing at a time for the whole node. A list
//! that would lack what a worker has that is lost must never be given out as if it were whole.

use std::sync::Arc;
use std::time::Duration;

use application::inquiry::{Of, Unanswered};
use application::node::ListingTurn;
use application::refusal::Refusal;
use application::use_cases::list_connections::{ConnectionCursor, ListConnections};
use application::use_cases::list_rooms::ListRooms;
use axum::response::Response;
use domain::codes::ErrorCode;
use domain::room::RoomId;

use super::fields::{self, invalid};
use super::guard;
use super::out::answer;
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
    let page = whole(call.shared, call.shared.node.rooms(&turn, list)).await?;
    drop(turn);
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
    }))
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
    let list = ListConnections { of: Of { user, room }, from, connections_max };
    let turn = turn(call.shared).await?;
    let page = whole(call.shared, call.shared.node.connections(&turn, list)).await?;
    drop(turn);
    let next = page.next.map(|at| format!("{}.{}", at.shard, at.slot));
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
    }))
}

fn cursor(text: &str) -> Result<ConnectionCursor, Refusal> {
    let numbers = text.split_once('.').and_then(|(shard, slot)| {
        Some(ConnectionCursor { shard: shard.parse().ok()?, slot: slot.parse().ok()? })
    });
    numbers.ok_or_else(|| invalid("after", "must be `next` of the page before"))
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
    fn a_cursor_is_two_numbers_and_nothing_else() {
        assert_eq!(cursor("1.1024"), Ok(ConnectionCursor { shard: 1, slot: 1_024 }));
        for text in ["", ".", "1", "1.", "a.b", "1.2.3", "1.99999999999", "-1.0"] {
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
