//! `/api/v1/matches`: matches are made, looked at, started and ended by a backend that holds an API key.
//!
//! A match's room decides which keys reach it. It must never show a match to a key that is limited to
//! other rooms, not even that there is one.

use std::time::Duration;

use application::ports::{CreateMatchError, ReadMatchesError, UpdateMatchError};
use application::refusal::Refusal;
use application::use_cases::change_match::{ChangeMatchRefused, ChangedMatch};
use application::use_cases::create_match::{CreateMatch, CreateMatchRefused, MadeMatch};
use application::use_cases::end_match::EndMatch;
use application::use_cases::find_match::FindMatch;
use application::use_cases::list_matches::ListMatches;
use application::use_cases::start_match::StartMatch;
use axum::http::StatusCode;
use axum::response::Response;
use domain::codes::ErrorCode;
use domain::id::{ClientId, UserId};
use domain::matches::{
    ConnectionsMax, GameType, JsonPartError, Match, MatchId, MatchResult, Metadata, Participants,
    ParticipantsError, Phase, Spectators, TransitionError,
};
use domain::protocol::json::{Elements, unescape};
use domain::time::Wall;
use sha2::{Digest, Sha256};

use super::fields::{Fields, id_refused, invalid, room_refused};
use super::guard;
use super::out::{Object, answer};
use super::publish::{KEY_HEADER, idempotency_key};
use super::serve::Call;
use crate::answer::{self, HttpRefusal};

/// The largest body that makes a match: as many participants as may be, with metadata.
pub(super) const CREATE_BYTES_MAX: usize = 32 << 10;
/// The largest body that ends a match.
pub(super) const END_BYTES_MAX: usize = MatchResult::BYTES_MAX + (1 << 10);

/// When a match may be stored that could not be now.
const COME_BACK: Duration = Duration::from_secs(1);
/// When there may be room for another match.
const COME_BACK_WHEN_FULL: Duration = Duration::from_secs(10);

/// The namespace of the rooms of matches, as all of them begin.
const ROOMS: &str = "match:";

pub(super) async fn create(call: &Call<'_>) -> Result<Response, HttpRefusal> {
    let names = &["id", "game", "participants", "spectators", "max_connections", "metadata"];
    let fields = Fields::read(&call.body, names)?;
    let key = idempotency_key(call.headers)?;
    let id = match (fields.text("id")?, key) {
        (Some(text), _) => Some(match_id("id", &text)?),
        (None, Some(key)) => Some(id_of_key(&call.key.name, key)?),
        (None, None) => None,
    };
    let game = fields.needed_text("game")?;
    let create = CreateMatch {
        services: call.shared.node.services(),
        game: GameType::parse(&game).map_err(|error| id_refused("game", error))?,
        participants: participants(fields.needed_raw("participants")?)?,
        spectators: spectators(fields.text("spectators")?.as_deref())?,
        connections_max: fields.number("max_connections")?.map(connections_max).transpose()?,
        metadata: fields
            .get("metadata")
            .map(|raw| Metadata::parse(raw).map_err(|error| part_refused("metadata", error)))
            .transpose()?,
        id,
    };
    match &create.id {
        Some(id) => guard::check_room(call.shared, call.key, call.route, id.room())?,
        None => check_all(call)?,
    }
    let MadeMatch { made, is_duplicate } = create.execute().await.map_err(|e| not_made(&e))?;
    Ok(changed(&made, is_duplicate))
}

pub(super) async fn list(call: &Call<'_>) -> Result<Response, HttpRefusal> {
    let query = call.parameters()?;
    let phase = |word| {
        Phase::parse(word).ok_or_else(|| invalid("state", "must be waiting, running or ended"))
    };
    let list = ListMatches {
        services: call.shared.node.services(),
        phase: query.get("state").map(phase).transpose()?,
        after: query.get("after").map(|text| match_id("after", text)).transpose()?,
        matches_max: query.limit()?,
    };
    check_all(call)?;
    let page = list.execute().await.map_err(|error| unreadable(&error))?;
    let next = page.matches.last().filter(|_| page.more).map(|last| last.id.as_str());
    Ok(answer(|object| {
        object.list("matches", &page.matches, write);
        object.text_or_null("next", next);
    }))
}

pub(super) async fn get(call: &Call<'_>) -> Result<Response, HttpRefusal> {
    let id = named(call)?;
    let find = FindMatch { services: call.shared.node.services(), id };
    let found = find.execute().await.map_err(|error| unreadable(&error))?;
    let found = found.ok_or_else(unknown)?;
    Ok(answer(|object| write(object, &found)))
}

pub(super) async fn start(call: &Call<'_>) -> Result<Response, HttpRefusal> {
    let id = named(call)?;
    if !call.body.is_empty() {
        Fields::read(&call.body, &[])?;
    }
    let start = StartMatch { services: call.shared.node.services(), id };
    // A task of its own: a backend that hangs up takes the request with it, not the announcement.
    let deed = tokio::spawn(start.execute()).await.map_err(|_| answer::broken())?;
    let ChangedMatch { now, is_duplicate } = deed.map_err(|error| not_changed(&error))?;
    Ok(changed(&now, is_duplicate))
}

pub(super) async fn end(call: &Call<'_>) -> Result<Response, HttpRefusal> {
    let id = named(call)?;
    let result = if call.body.is_empty() { None } else { result(&call.body)? };
    let end = EndMatch { services: call.shared.node.services(), id, result };
    let deed = tokio::spawn(end.execute()).await.map_err(|_| answer::broken())?;
    let ChangedMatch { now, is_duplicate } = deed.map_err(|error| not_changed(&error))?;
    Ok(changed(&now, is_duplicate))
}

/// The match that the path names, if the key reaches it.
fn named(call: &Call<'_>) -> Result<MatchId, Refusal> {
    let id = match_id("match_id", call.name)?;
    guard::check_room(call.shared, call.key, call.route, id.room())?;
    Ok(id)
}

/// Whether the key reaches the rooms of all matches.
fn check_all(call: &Call<'_>) -> Result<(), Refusal> {
    let checked = guard::check_prefix(call.shared, call.key, call.route, ROOMS);
    checked.map_err(|refusal| refusal.field("room"))
}

fn match_id(field: &'static str, text: &str) -> Result<MatchId, Refusal> {
    MatchId::parse(text).map_err(|error| room_refused(field, error))
}

/// The name of a match whose maker gives none but an `Idempotency-Key`: the same for the same key of the
/// same caller, and nobody else's.
fn id_of_key(name: &ClientId, key: &str) -> Result<MatchId, Refusal> {
    domain::id::MessageId::parse(key).map_err(|error| id_refused(KEY_HEADER, error))?;
    let digest = Sha256::digest(format!("{name}\0{key}").as_bytes());
    let text: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    match_id("id", &text)
}

fn participants(raw: &str) -> Result<Participants, Refusal> {
    const FIELD: &str = "participants";
    let no_list = || invalid(FIELD, "must be a list of different user ids");
    let mut elements = Elements::open(raw, 0).ok_or_else(no_list)?;
    let mut users = Vec::new();
    // The whole list has been scanned, so walking it again finds no error.
    while let Ok(Some(item)) = elements.next_element() {
        if users.len() == Participants::MAX {
            return Err(too_many());
        }
        if !item.starts_with('"') {
            return Err(no_list());
        }
        users.push(UserId::parse(&unescape(item)).map_err(|error| id_refused(FIELD, error))?);
    }
    Participants::new(users).map_err(|error| match error {
        ParticipantsError::TooMany => too_many(),
        ParticipantsError::Twice(_) => invalid(FIELD, "names a user twice"),
    })
}

fn too_many() -> Refusal {
    let message = format!("may have {} entries at most", Participants::MAX);
    Refusal::new(ErrorCode::TooLarge, message).field("participants")
}

fn spectators(word: Option<&str>) -> Result<Spectators, Refusal> {
    let Some(word) = word else { return Ok(Spectators::default()) };
    let wrong = || invalid("spectators", "must be nobody, authenticated or anyone");
    Spectators::parse(word).ok_or_else(wrong)
}

fn connections_max(number: u64) -> Result<ConnectionsMax, Refusal> {
    let message = || format!("must be a whole number from 1 to {}", ConnectionsMax::MAX);
    ConnectionsMax::new(number).ok_or_else(|| invalid("max_connections", message()))
}

fn result(body: &[u8]) -> Result<Option<MatchResult>, Refusal> {
    let fields = Fields::read(body, &["result"])?;
    let parse = |raw| MatchResult::parse(raw).map_err(|error| part_refused("result", error));
    fields.get("result").map(parse).transpose()
}

fn part_refused(field: &'static str, error: JsonPartError) -> Refusal {
    let code = match error {
        JsonPartError::TooLong { .. } => ErrorCode::TooLarge,
        JsonPartError::NoJson => ErrorCode::InvalidField,
    };
    Refusal::new(code, error.to_string()).field(field)
}

fn changed(now: &Match, is_duplicate: bool) -> Response {
    answer(|object| {
        object.object("match", |object| write(object, now));
        object.flag("duplicate", is_duplicate);
    })
}

fn write(object: &mut Object<'_>, one: &Match) {
    let time = |at: Option<Wall>| at.map(|at| at.to_string());
    object.text("id", one.id.as_str());
    object.text("room", one.id.room().as_str());
    object.text("game", one.game.as_str());
    object.text("state", one.phase().word());
    object.text_list("participants", one.participants.iter().map(UserId::as_str));
    object.text("spectators", one.spectators.word());
    object.number("max_connections", u64::from(one.connections_max.get()));
    let metadata = one.metadata.as_ref().map_or("null", Metadata::as_str);
    object.raw("metadata", metadata.as_bytes());
    object.text("created_at", &one.created_at.to_string());
    object.text_or_null("started_at", time(one.started_at()).as_deref());
    object.text_or_null("ended_at", time(one.ended_at()).as_deref());
    object.raw("result", one.result().map_or("null", MatchResult::as_str).as_bytes());
}

fn unknown() -> Refusal {
    Refusal::new(ErrorCode::NotAvailable, "there is no such match").field("match_id")
}

fn not_made(error: &CreateMatchRefused) -> HttpRefusal {
    match error {
        CreateMatchRefused::UnknownGame(games) => {
            invalid("game", format!("is none of this server; there are: {games}")).into()
        }
        CreateMatchRefused::Matches(CreateMatchError::Conflict) => {
            let message = "there is another match of this id, made otherwise";
            HttpRefusal::new(StatusCode::CONFLICT, ErrorCode::InvalidField, message).field("id")
        }
        CreateMatchRefused::Matches(CreateMatchError::Full) => {
            let message = "as many matches are kept as may be, and none of them has ended";
            let refusal = Refusal::new(ErrorCode::Unavailable, message);
            refusal.retry_after(COME_BACK_WHEN_FULL).into()
        }
        CreateMatchRefused::Matches(CreateMatchError::NotKept) => {
            Refusal::new(ErrorCode::NotAvailable, "this server keeps no matches").into()
        }
        CreateMatchRefused::Matches(CreateMatchError::Storage(_)) => not_stored(error),
    }
}

fn not_changed(error: &ChangeMatchRefused) -> HttpRefusal {
    let conflict = |message| {
        HttpRefusal::new(StatusCode::CONFLICT, ErrorCode::NotAvailable, message).field("match_id")
    };
    match error {
        ChangeMatchRefused::Missing | ChangeMatchRefused::Update(UpdateMatchError::Missing) => {
            unknown().into()
        }
        ChangeMatchRefused::Transition(TransitionError::Running) => {
            conflict("the match is running already")
        }
        ChangeMatchRefused::Transition(TransitionError::Ended) => {
            conflict("the match has ended, and how it ended stays as it is")
        }
        ChangeMatchRefused::Read(error) => unreadable(error),
        ChangeMatchRefused::Update(UpdateMatchError::Changed | UpdateMatchError::Storage(_)) => {
            not_stored(error)
        }
        ChangeMatchRefused::Announce(cause) => {
            let cause = cause as &dyn std::error::Error;
            tracing::warn!(error = cause, "a match changed and its room was not told");
            let message = "the match is changed, and its room could not be told; ask again";
            Refusal::new(ErrorCode::Unavailable, message).retry_after(COME_BACK).into()
        }
    }
}

fn not_stored(error: &(dyn std::error::Error + 'static)) -> HttpRefusal {
    tracing::error!(error, "a match is not stored");
    let message = "the match could not be stored, and nothing is changed; try again";
    Refusal::new(ErrorCode::Unavailable, message).retry_after(COME_BACK).into()
}

fn unreadable(error: &ReadMatchesError) -> HttpRefusal {
    tracing::error!(error = error as &dyn std::error::Error, "matches can't be read");
    Refusal::unavailable(COME_BACK).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_storage_that_fails_is_away_and_its_words_stay_inside() {
        const INNER: &str = "/var/lib/secret.db is full";
        let words = || INNER.to_owned();
        let stored = UpdateMatchError::Storage(words());
        let unread = || ReadMatchesError(words());
        for answer in [
            not_made(&CreateMatchRefused::Matches(CreateMatchError::Storage(words()))),
            not_changed(&ChangeMatchRefused::Update(stored)),
            not_changed(&ChangeMatchRefused::Read(unread())),
            unreadable(&unread()),
        ] {
            let response = axum::response::IntoResponse::into_response(answer);
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            let body = axum::body::to_bytes(response.into_body(), 4_096).await.unwrap();
            let body = String::from_utf8(body.to_vec()).unwrap();
            assert!(body.contains("unavailable") && !body.contains("secret"), "{body}");
        }
    }

    fn refused<T: std::fmt::Debug>(answer: Result<T, Refusal>) -> (ErrorCode, String) {
        let refusal = answer.unwrap_err();
        (refusal.code, refusal.field.unwrap().into_owned())
    }

    #[test]
    fn participants_are_a_list_of_different_users_that_may_be_empty() {
        let users = |raw: &str| participants(raw).map(|users| users.iter().len());
        assert_eq!(users(r#"["ann","b\u006fb"]"#), Ok(2));
        assert_eq!(users("[]"), Ok(0));
        let many: Vec<_> = (0..=Participants::MAX).map(|n| format!("\"u{n}\"")).collect();
        for (raw, code) in [
            ("{}".to_owned(), ErrorCode::InvalidField),
            ("[7]".to_owned(), ErrorCode::InvalidField),
            (r#"["ann","ann"]"#.to_owned(), ErrorCode::InvalidField),
            (r#"["a b"]"#.to_owned(), ErrorCode::InvalidField),
            (format!("[{}]", many.join(",")), ErrorCode::TooLarge),
        ] {
            assert_eq!(refused(participants(&raw)), (code, "participants".to_owned()), "{raw}");
        }
    }

    #[test]
    fn what_is_said_of_a_match_is_read_or_refused_by_its_name() {
        assert_eq!(spectators(None), Ok(Spectators::Nobody));
        assert_eq!(spectators(Some("anyone")), Ok(Spectators::Anyone));
        let wrong = (ErrorCode::InvalidField, "spectators".to_owned());
        assert_eq!(refused(spectators(Some("all"))), wrong);
        assert_eq!(refused(connections_max(0)).1, "max_connections");
        assert_eq!(connections_max(7).map(ConnectionsMax::get), Ok(7));
        assert_eq!(refused(match_id("id", "a/b")), (ErrorCode::InvalidField, "id".to_owned()));
        assert_eq!(refused(match_id("id", "a..b")), (ErrorCode::InvalidField, "id".to_owned()));
        let long = (ErrorCode::TooLarge, "id".to_owned());
        assert_eq!(refused(match_id("id", &"m".repeat(129))), long);
    }

    #[test]
    fn how_a_match_ended_is_any_json_or_nothing() {
        let text = |body: &str| result(body.as_bytes()).map(|r| r.map(|r| r.as_str().to_owned()));
        assert_eq!(text("{}"), Ok(None));
        assert_eq!(text(r#"{"result":null}"#), Ok(None));
        assert_eq!(text(r#"{"result":[1, 2]}"#), Ok(Some("[1, 2]".to_owned())));
        let large = format!(r#"{{"result":"{}"}}"#, "x".repeat(MatchResult::BYTES_MAX));
        assert_eq!(refused(text(&large)), (ErrorCode::TooLarge, "result".to_owned()));
        assert_eq!(refused(text(r#"{"won":1}"#)).1, "won");
    }

    #[test]
    fn an_idempotency_key_names_one_match_of_one_caller() {
        let of = |name: &str, key: &str| id_of_key(&ClientId::parse(name).unwrap(), key).unwrap();
        assert_eq!(of("backend", "k-1"), of("backend", "k-1"));
        assert_ne!(of("backend", "k-1"), of("backend", "k-2"));
        assert_ne!(of("backend", "k-1"), of("other", "k-1"));
        assert_eq!(of("backend", "k-1").as_str().len(), 32);
        let name = ClientId::parse("backend").unwrap();
        assert_eq!(refused(id_of_key(&name, "a b")).1, KEY_HEADER);
    }

    /// A body of the largest match that may be is not refused for its size.
    #[test]
    fn the_largest_match_fits_the_largest_body() {
        let user = UserId::BYTES_MAX + 3;
        let most = Participants::MAX * user + Metadata::BYTES_MAX + MatchId::BYTES_MAX + 512;
        assert!(most <= CREATE_BYTES_MAX, "{most}");
    }
}
