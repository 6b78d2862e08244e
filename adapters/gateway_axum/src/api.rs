//! The server API: one table of its routes, from which the router, the OpenAPI document and the
//! tests of who may ask are made.
//!
//! A route that is not in the table does not exist. It must never read the body of a caller that it
//! does not know, and never answer with inner detail.
//!
//! Reading order: [`ROUTES`], `guard` (who may ask, and how fast), `serve` (the way of a request),
//! `fields` and `out` (JSON in and out), then what each route does: `publish`, `read`, `list`,
//! `disconnect`, `revoke`, `matches`, and `openapi`, the description.

mod disconnect;
mod fields;
mod guard;
mod key;
mod list;
mod matches;
mod openapi;
mod out;
mod publish;
mod read;
mod revoke;
mod serve;

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::routing::{MethodFilter, on};
use domain::scope::Scope;

pub(crate) use guard::known_key;
pub use key::ApiKey;
pub(crate) use list::{turn as turn_to_list, whole};

use crate::gateway::Config;
use crate::shared::Shared;

/// What a route does. Each has a row in [`ROUTES`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Deed {
    Publish,
    Batch,
    Send,
    Presence,
    History,
    Rooms,
    Connections,
    Disconnect,
    Revoke,
    CreateMatch,
    ListMatches,
    GetMatch,
    StartMatch,
    EndMatch,
    Describe,
}

impl Deed {
    /// Its name in the document and in the security log.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Batch => "batch",
            Self::Send => "send",
            Self::Presence => "presence",
            Self::History => "history",
            Self::Rooms => "rooms",
            Self::Connections => "connections",
            Self::Disconnect => "disconnect",
            Self::Revoke => "revoke",
            Self::CreateMatch => "create_match",
            Self::ListMatches => "list_matches",
            Self::GetMatch => "get_match",
            Self::StartMatch => "start_match",
            Self::EndMatch => "end_match",
            Self::Describe => "describe",
        }
    }

    /// Whether it may meet something that is there and says otherwise: 409.
    pub(crate) const fn may_conflict(self) -> bool {
        matches!(self, Self::CreateMatch | Self::StartMatch | Self::EndMatch)
    }
}

/// What a route takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Takes {
    /// `GET` with these parameters of the query.
    Query(&'static [Parameter]),
    /// `POST` with a body.
    Body {
        /// Its schema.
        schema: &'static str,
        /// Its largest size.
        bytes_max: fn(&Config) -> usize,
        /// Whether `Idempotency-Key` means something: elsewhere repeating changes nothing anyway.
        has_key: bool,
    },
}

/// One parameter of a query.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    pub(crate) is_required: bool,
    /// Its schema.
    pub(crate) schema: &'static str,
    pub(crate) about: &'static str,
}

const fn needed(name: &'static str, schema: &'static str, about: &'static str) -> Parameter {
    Parameter { name, is_required: true, schema, about }
}

const fn optional(name: &'static str, schema: &'static str, about: &'static str) -> Parameter {
    Parameter { name, is_required: false, schema, about }
}

/// One route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub(crate) deed: Deed,
    pub(crate) path: &'static str,
    /// What the key must have; none asks for any known key.
    pub(crate) scope: Option<Scope>,
    pub(crate) takes: Takes,
    /// The schema of the answer.
    pub(crate) answer: &'static str,
    /// Whether what it names may be unknown here: 404.
    pub(crate) may_be_unknown: bool,
    pub(crate) summary: &'static str,
    pub(crate) about: &'static str,
}

impl Route {
    /// What stands in braces in its path, if something does.
    pub(crate) fn named(&self) -> Option<&'static Parameter> {
        self.path.contains("{match_id}").then_some(&MATCH)
    }
}

/// The largest body of a request that only names something, in bytes: the longest id fits many
/// times.
const NAMES_BYTES_MAX: usize = 4 << 10;

const ROOM: Parameter = needed("room", "RoomName", "The room.");
static MATCH: Parameter = needed("match_id", "MatchId", "The match.");
const LIMIT: Parameter = optional("limit", "Limit", "The most entries of the answer.");

/// Every route of the server API.
pub(crate) static ROUTES: [Route; 15] = [
    Route {
        deed: Deed::Publish,
        path: "/api/v1/publish",
        scope: Some(Scope::Publish),
        takes: Takes::Body {
            schema: "Publish",
            bytes_max: |config| config.publish_bytes_max,
            has_key: true,
        },
        answer: "Published",
        may_be_unknown: true,
        summary: "Publish one message to a room, or to up to 100 rooms",
        about: "With `rooms` each room has a result of its own, in the order given, and one that \
                fails keeps no other from it.",
    },
    Route {
        deed: Deed::Batch,
        path: "/api/v1/batch",
        scope: Some(Scope::Publish),
        takes: Takes::Body {
            schema: "Batch",
            bytes_max: |config| config.batch_bytes_max,
            has_key: true,
        },
        answer: "BatchResults",
        may_be_unknown: false,
        summary: "Publish up to 100 messages, one after the other",
        about: "The results stand in the order of the messages. One that fails keeps no other from \
                being published, and nothing of it is undone.",
    },
    Route {
        deed: Deed::Send,
        path: "/api/v1/send",
        scope: Some(Scope::Publish),
        takes: Takes::Body {
            schema: "Send",
            bytes_max: |config| config.publish_bytes_max,
            has_key: true,
        },
        answer: "Sent",
        may_be_unknown: false,
        summary: "Publish one message to a user's own room",
        about: "`connections` tells how many connections the user had on all nodes just before.",
    },
    Route {
        deed: Deed::Presence,
        path: "/api/v1/presence",
        scope: Some(Scope::Presence),
        takes: Takes::Query(&[ROOM]),
        answer: "Presence",
        may_be_unknown: true,
        summary: "Who is in a room",
        about: "404 with code 115 where the room's policy lists nobody.",
    },
    Route {
        deed: Deed::History,
        path: "/api/v1/history",
        scope: Some(Scope::History),
        takes: Takes::Query(&[
            ROOM,
            optional("epoch", "Epoch", "With `offset`: read behind this position."),
            optional("offset", "Offset", "With `epoch`: read behind this position."),
            LIMIT,
        ]),
        answer: "History",
        may_be_unknown: true,
        summary: "A page of a room's log",
        about: "Without a position from the oldest message that is kept. `gap` names what is no \
                longer kept behind the position. Ask on with `epoch` and `offset` of the answer \
                while `more` is true.",
    },
    Route {
        deed: Deed::Rooms,
        path: "/api/v1/rooms",
        scope: Some(Scope::Rooms),
        takes: Takes::Query(&[
            optional("prefix", "Prefix", "What the rooms' names begin with."),
            optional("after", "RoomName", "`next` of the page before."),
            LIMIT,
        ]),
        answer: "Rooms",
        may_be_unknown: false,
        summary: "The rooms that have members on any node",
        about: "In the order of their names, page by page: a room that is there throughout is in \
                exactly one page.",
    },
    Route {
        deed: Deed::Connections,
        path: "/api/v1/connections",
        scope: Some(Scope::Connections),
        takes: Takes::Query(&[
            optional("user_id", "UserId", "Only those of this user."),
            optional("room", "RoomName", "Only those in this room."),
            optional("after", "Cursor", "`next` of the page before."),
            LIMIT,
        ]),
        answer: "Connections",
        may_be_unknown: false,
        summary: "The connections of all nodes that are let in",
        about: "In no order that means anything, page by page: a connection that is there \
                throughout is in exactly one page. A page may have fewer than its limit.",
    },
    Route {
        deed: Deed::Disconnect,
        path: "/api/v1/disconnect",
        scope: Some(Scope::Disconnect),
        takes: Takes::Body { schema: "Disconnect", bytes_max: |_| NAMES_BYTES_MAX, has_key: false },
        answer: "Disconnected",
        may_be_unknown: false,
        summary: "End a connection, or all connections of a user",
        about: "It keeps nobody from coming back; revoking does. Repeating it ends whoever has come \
                back meanwhile.",
    },
    Route {
        deed: Deed::Revoke,
        path: "/api/v1/revoke",
        scope: Some(Scope::Revoke),
        takes: Takes::Body { schema: "Revoke", bytes_max: |_| NAMES_BYTES_MAX, has_key: false },
        answer: "Revoked",
        may_be_unknown: false,
        summary: "Take a token, all tokens of a user or a connection back",
        about: "Whoever is connected by it is closed with 3507 within a second, and it is refused \
                from then on. Repeating it changes nothing.",
    },
    Route {
        deed: Deed::CreateMatch,
        path: "/api/v1/matches",
        scope: Some(Scope::Matches),
        takes: Takes::Body {
            schema: "NewMatch",
            bytes_max: |_| matches::CREATE_BYTES_MAX,
            has_key: true,
        },
        answer: "ChangedMatch",
        may_be_unknown: false,
        summary: "Make a match",
        about: "Without `id` one is drawn. Making a match again as it was made changes nothing and \
                answers how far it is; another one of the same `id` is 409.",
    },
    Route {
        deed: Deed::ListMatches,
        path: "/api/v1/matches",
        scope: Some(Scope::Matches),
        takes: Takes::Query(&[
            optional("state", "MatchState", "Only those in this state."),
            optional("after", "MatchId", "`next` of the page before."),
            LIMIT,
        ]),
        answer: "Matches",
        may_be_unknown: false,
        summary: "The matches of this server",
        about: "In the order of their ids, page by page: a match that is there throughout is in \
                exactly one page. A page ends before its limit where its matches are large.",
    },
    Route {
        deed: Deed::GetMatch,
        path: "/api/v1/matches/{match_id}",
        scope: Some(Scope::Matches),
        takes: Takes::Query(&[]),
        answer: "Match",
        may_be_unknown: true,
        summary: "One match",
        about: "Until some time after it has ended.",
    },
    Route {
        deed: Deed::StartMatch,
        path: "/api/v1/matches/{match_id}/start",
        scope: Some(Scope::Matches),
        takes: Takes::Body { schema: "StartMatch", bytes_max: |_| NAMES_BYTES_MAX, has_key: false },
        answer: "ChangedMatch",
        may_be_unknown: true,
        summary: "Start a match that waits",
        about: "Its room gets `match_started`, once, however often this is asked. A match that has \
                ended is 409.",
    },
    Route {
        deed: Deed::EndMatch,
        path: "/api/v1/matches/{match_id}/end",
        scope: Some(Scope::Matches),
        takes: Takes::Body {
            schema: "EndMatch",
            bytes_max: |_| matches::END_BYTES_MAX,
            has_key: false,
        },
        answer: "ChangedMatch",
        may_be_unknown: true,
        summary: "End a match, or call one off that waits",
        about: "Its room gets `match_ended` with `result`, once, however often this is asked. Ended \
                otherwise before it is 409.",
    },
    Route {
        deed: Deed::Describe,
        path: "/api/v1/openapi.json",
        scope: None,
        takes: Takes::Query(&[]),
        answer: "Document",
        may_be_unknown: false,
        summary: "This document",
        about: "Any key will do.",
    },
];

/// The routes of the table.
pub(crate) fn router() -> Router<Arc<Shared>> {
    let mut router = Router::new();
    for route in &ROUTES {
        let method = match route.takes {
            Takes::Query(_) => MethodFilter::GET,
            Takes::Body { .. } => MethodFilter::POST,
        };
        let handler = move |State(shared): State<Arc<Shared>>,
                            named: Result<RawPathParams, RawPathParamsRejection>,
                            request: Request| async move {
            // What is no UTF-8 is no name, and neither is nothing.
            let mut names = named.iter().flat_map(|named| named.iter());
            let name = names.find(|(of, _)| *of == MATCH.name).map(|(_, name)| name);
            let name = name.unwrap_or_default();
            serve::serve(&shared, route, name, request).await
        };
        router = router.route(route.path, on(method, handler));
    }
    router
}

#[cfg(test)]
mod tests;
