//! Spans of commands, for a host that takes traces.
//!
//! One per command that has to wait, none per delivery. Where nobody listens a span costs one look
//! at a flag; nothing of a payload or a token may be in one.

use domain::room::RoomId;
use domain::trace::TraceParent;
use tracing::{Instrument, Span};

use crate::extensions::middleware::Who;
use crate::shard::{CallFuture, Outcome, request_id};

/// The target of all spans of commands, which are of level `TRACE`.
pub const TARGET: &str = "roomkeeper::command";
/// The field that holds the command's type.
pub const COMMAND: &str = "command";
/// The field that tells that a command was refused.
pub const ERROR: &str = "error";

/// The span of a command of a connection; none where nobody listens. `room` and `trace` are those
/// that the client named.
pub(crate) fn of_command(
    command: &'static str,
    who: &Who,
    room: Option<&RoomId>,
    trace: Option<TraceParent>,
) -> Span {
    if !tracing::enabled!(target: TARGET, tracing::Level::TRACE) {
        return Span::none();
    }
    tracing::trace_span!(
        target: TARGET,
        "command",
        command,
        request_id = request_id(who.connection),
        room = room.map(RoomId::as_str),
        traceparent = trace.as_ref().map(tracing::field::display),
        error = tracing::field::Empty,
    )
}

/// The span of a publish over the server API.
pub(crate) fn of_api(key: &str, room: &RoomId, trace: Option<TraceParent>) -> Span {
    if !tracing::enabled!(target: TARGET, tracing::Level::TRACE) {
        return Span::none();
    }
    tracing::trace_span!(
        target: TARGET,
        "command",
        command = "api_publish",
        key,
        room = room.as_str(),
        traceparent = trace.as_ref().map(tracing::field::display),
        error = tracing::field::Empty,
    )
}

/// Runs a call in its span; as it is where there is none.
pub(crate) fn traced(span: Span, call: CallFuture) -> CallFuture {
    if span.is_none() {
        return call;
    }
    let noted = span.clone();
    let call = async move {
        let outcome = call.await;
        if was_refused(&outcome) {
            noted.record(ERROR, "refused");
        }
        outcome
    };
    Box::pin(call.instrument(span))
}

const fn was_refused(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Authenticated { result, .. } => result.is_err(),
        Outcome::Refreshed(result) => result.is_err(),
        Outcome::Joined(result) => result.is_err(),
        Outcome::Watched { result, .. } => result.is_err(),
        Outcome::Paged(result) | Outcome::Filled(result) | Outcome::Looked(result) => {
            result.is_err()
        }
        Outcome::Published { result, .. } => result.is_err(),
        Outcome::History { result, .. } => result.is_err(),
        Outcome::Presence { result, .. } => result.is_err(),
        Outcome::Listed(result) => result.is_err(),
        Outcome::PresenceUpdated { result, .. } => result.is_err(),
        Outcome::Handled(result) => result.is_err(),
        // Each room has an answer of its own.
        Outcome::Letters(_)
        | Outcome::Done
        | Outcome::Resumed(_)
        | Outcome::OwnRooms(_)
        | Outcome::OwnRoomsHeard { .. }
        | Outcome::Revalidated(_) => false,
        Outcome::Refused { .. } | Outcome::Replaced | Outcome::Panicked => true,
    }
}
