//! Finds out who a connection is, and whether it may open.
//!
//! It must never let a connection in when the token, the limit or a middleware is in doubt.

use core::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use domain::codes::CloseCode;
use domain::position::{Offset, Position};
use domain::principal::{Action, Principal};
use domain::room::RoomId;
use domain::seats::SeatRule;
use domain::time::Wall;
use thiserror::Error;

use crate::directory::Admission;
use crate::extensions::middleware::{SPREAD, Who};
use crate::metrics::{Row, TokenOutcome};
use crate::ports::{ReadLog, SeatError, SpendError, Spending, TicketError, TokenError};
use crate::seats::HeldSeat;
use crate::security::{SecurityEvent, TARGET};
use crate::services::{Ports, Services};
use crate::shard::request_id;

/// How the names of the rooms begin that belong to one user each.
pub const OWN_ROOMS: &str = "user:";

/// How long behind its end a spent token is remembered: beyond the widest leeway that may be set (a
/// minute, also by a reload), and as much again for a clock that is set back.
const SPENT_BEHIND_END: Duration = Duration::from_secs(120);

/// What a connection shows for itself.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Credentials {
    /// A ticket, which counts before the token.
    pub session: Option<String>,
    /// A token.
    pub token: Option<String>,
    /// Whether nothing is enough, whatever the rule for anonymous connections: the endpoint is for
    /// everyone.
    pub anonymous: bool,
    /// Whether they are only looked at before they are shown: nothing is used up by it.
    pub are_looked_at: bool,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// A connection that wants to open, or to be known as a user.
pub struct Authenticate {
    /// The node's services.
    pub services: Arc<Services>,
    /// Who it is so far.
    pub who: Arc<Who>,
    /// What it shows; nothing asks to be let in anonymously.
    pub credentials: Credentials,
}

/// Who it is.
#[derive(Debug)]
pub struct Authenticated {
    /// The connection with its principal and context.
    pub who: Arc<Who>,
    /// Its place among the user's connections; none for an anonymous one.
    pub admission: Option<Admission>,
    /// The room of its own, which it is in without asking; none when there is none for it.
    pub own_room: Option<RoomId>,
    /// Where that room stood before the connection was in it, if the broker may lose what is published there.
    pub own_top: Option<Position>,
}

/// Why a connection may not open.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum AuthenticateError {
    /// No token, and anonymous connections are not let in.
    #[error("a token is needed")]
    Missing,
    /// The token is not accepted.
    #[error("the token is not accepted")]
    Token(#[source] TokenError),
    /// The ticket does not count, and no token came with it.
    #[error("the ticket is not accepted")]
    Ticket(#[source] TicketError),
    /// What it came with has been revoked.
    #[error("the token has been revoked")]
    Revoked,
    /// The token counts once, and has been used.
    #[error("the token counts once, and has been used before")]
    Spent,
    /// The token counts once, and whether it has been used can't be found out.
    #[error("the token counts once, and nobody knows whether it has been used before")]
    NotSpendable(#[source] SpendError),
    /// The user has as many connections as allowed.
    #[error("the user has as many connections as allowed")]
    ConnectionLimit,
    /// Nobody can say whether it would be its user's newest; the time after which it may try again.
    #[error("the seats of users can't be asked for now")]
    SeatsUnavailable(Duration),
    /// The address came too often with what does not count; the time after which it may try again.
    #[error("too many tokens of this address were not accepted")]
    TooManyFailures(Duration),
    /// A middleware refused.
    #[error("a middleware refused the connection")]
    Refused(CloseCode),
}

impl From<SeatError> for AuthenticateError {
    fn from(error: SeatError) -> Self {
        match error {
            SeatError::Full => Self::ConnectionLimit,
            SeatError::Unavailable { retry_after } => Self::SeatsUnavailable(retry_after),
        }
    }
}

impl AuthenticateError {
    /// The code with which the connection is closed.
    #[must_use]
    pub const fn close_code(&self) -> CloseCode {
        match self {
            Self::Token(TokenError::KeysUnavailable)
            | Self::NotSpendable(SpendError::Full | SpendError::Storage(_))
            | Self::SeatsUnavailable(_) => CloseCode::TryAgainLater,
            Self::Missing
            | Self::Token(_)
            | Self::Ticket(_)
            | Self::Spent
            | Self::NotSpendable(SpendError::NotTaken) => CloseCode::Unauthenticated,
            Self::Revoked => CloseCode::Revoked,
            Self::ConnectionLimit => CloseCode::ConnectionLimit,
            Self::TooManyFailures(_) => CloseCode::RateLimited,
            Self::Refused(code) => *code,
        }
    }

    /// When it may come back, where that is known.
    #[must_use]
    pub const fn come_back(&self) -> Option<Duration> {
        match self {
            Self::TooManyFailures(wait) | Self::SeatsUnavailable(wait) => Some(*wait),
            _ => None,
        }
    }

    /// Whether what was shown never was a credential. One that has expired or is used up, or whose key
    /// was taken out of use, was: a whole office may come back with those at once, and a client that
    /// shows a token that counts once with each attempt has a mistake, not a dictionary.
    const fn is_of_a_guess(&self) -> bool {
        matches!(
            self,
            Self::Token(TokenError::Malformed | TokenError::Signature)
                | Self::Ticket(TicketError::Malformed | TicketError::Signature)
        )
    }
}

impl Authenticate {
    /// Verifies, counts, and asks the middleware.
    ///
    /// # Errors
    /// [`AuthenticateError`] says why it may not open.
    pub async fn execute(self) -> Result<Authenticated, AuthenticateError> {
        let Self { services, who, credentials } = self;
        let principal = identify(&services, &who, &credentials).await?;
        let admitted = admit(&services, &who, principal).await;
        admitted.inspect_err(|error| note(&services, &who, error))
    }
}

async fn admit(
    services: &Services,
    who: &Who,
    principal: Principal,
) -> Result<Authenticated, AuthenticateError> {
    let Services { rules, directory, .. } = services;
    let max = rules.limits.connections_per_user_max;
    let (rule, max) = match rules.single_session {
        true => (SeatRule::NewestWins, u32::MAX),
        false => (SeatRule::AtMost(max), max),
    };
    let mut admission = match &principal.user {
        None => None,
        Some(user) => Some(
            directory
                .admit(user, principal.name.as_ref(), max)
                .map_err(|_| AuthenticateError::ConnectionLimit)?,
        ),
    };
    let mut who = Who { principal: Arc::new(principal), ..who.clone() };
    who.context =
        rules.middleware.process_connection(&who).await.map_err(AuthenticateError::Refused)?;
    // Last, as it may end others: whoever is refused takes nobody's place.
    if let (Some(user), Some(admission)) = (&who.principal.user, &mut admission) {
        let seat = HeldSeat::take(&services.ports.seats, user, who.connection, rule).await?;
        who.fence = seat.fence();
        if let Some(spread) = seat.spread() {
            who.context.share(SPREAD, Arc::clone(spread));
        }
        admission.sit(seat);
    }
    let own_room = own_room(services, &who.principal);
    let own_top = match &own_room {
        Some(room) if rules.limits.look_every().is_some() => top_of(services, room).await,
        _ => None,
    };
    Ok(Authenticated { who: Arc::new(who), admission, own_room, own_top })
}

/// Where a room stands; none where the broker does not answer.
async fn top_of(services: &Services, room: &RoomId) -> Option<Position> {
    let now = services.ports.clock.now().wall;
    let read = ReadLog { after: Offset::MAX, messages_max: 0, bytes_max: 0, now };
    let policy = services.rules.policies.of(room)?;
    let page = services.ports.broker.read(room, policy, read).await.ok()?;
    Some(page.bounds.top())
}

/// Finds out whom the credentials of a connection stand for. A ticket that counts spares the token;
/// one that does not count leaves it to the token. Tells the security log of what is refused.
///
/// # Errors
/// [`AuthenticateError`] says why they stand for nobody.
pub async fn identify(
    services: &Services,
    who: &Who,
    credentials: &Credentials,
) -> Result<Principal, AuthenticateError> {
    let suspect = suspect(services, who, credentials)?;
    let identified = identify_all(services, who, credentials).await;
    if let (Some(address), Err(error)) = (suspect, &identified)
        && error.is_of_a_guess()
    {
        let now = services.ports.clock.now().monotonic;
        let rate = services.rules.limits.bad_tokens_of_address;
        services.directory.suspects.failed(address, rate, now);
    }
    identified
}

/// The address of whoever shows something, unless it failed too often.
fn suspect(
    services: &Services,
    who: &Who,
    credentials: &Credentials,
) -> Result<Option<IpAddr>, AuthenticateError> {
    let shows = credentials.session.is_some() || credentials.token.is_some();
    let Some(address) = who.address.filter(|_| shows) else { return Ok(None) };
    let now = services.ports.clock.now().monotonic;
    let rate = services.rules.limits.bad_tokens_of_address;
    let may_try = services.directory.suspects.may_try(address, rate, now);
    may_try.map_err(|wait| {
        let error = AuthenticateError::TooManyFailures(wait);
        note(services, who, &error);
        error
    })?;
    Ok(Some(address))
}

async fn identify_all(
    services: &Services,
    who: &Who,
    credentials: &Credentials,
) -> Result<Principal, AuthenticateError> {
    let Credentials { session, token, anonymous, are_looked_at } = credentials;
    if let Some(session) = session {
        match open_ticket(services, who, session) {
            Ok(principal) => return Ok(principal),
            Err(error) if token.is_none() => {
                note(services, who, &error);
                return Err(error);
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "a ticket does not count; its token is verified");
            }
        }
    }
    match token {
        Some(token) => verify(services, who, token, !are_looked_at).await,
        None => nobody(services, who, *anonymous).inspect_err(|error| note(services, who, error)),
    }
}

fn open_ticket(
    services: &Services,
    who: &Who,
    session: &str,
) -> Result<Principal, AuthenticateError> {
    let now = services.ports.clock.now().wall;
    let opened = services.ports.session_tickets.open(session, now);
    vouch(services, who, opened.map_err(AuthenticateError::Ticket)?, now)
}

fn nobody(
    services: &Services,
    who: &Who,
    is_for_everyone: bool,
) -> Result<Principal, AuthenticateError> {
    if !services.rules.allow_anonymous && !is_for_everyone {
        return Err(AuthenticateError::Missing);
    }
    vouch(services, who, Principal::anonymous(), services.ports.clock.now().wall)
}

/// Every principal passes here before it counts, whether a token, a ticket or neither stands for
/// it, on a new connection and in a refresh: what takes rights back is asked here and nowhere else.
/// Nobody whose time is over passes, whatever the adapter said.
fn vouch(
    services: &Services,
    who: &Who,
    principal: Principal,
    now: Wall,
) -> Result<Principal, AuthenticateError> {
    let leeway = services.rules.timing.expiry_leeway;
    if principal.expires_at.is_some_and(|end| end.after(leeway) <= now) {
        return Err(AuthenticateError::Token(TokenError::Expired));
    }
    if services.ports.revocations.concerns(&principal, who.connection) {
        return Err(AuthenticateError::Revoked);
    }
    Ok(principal)
}

/// The room of a connection's own user, if the server puts users there and policy lets them read
/// it. Not every user id can be part of a room's name. An authorizer would have to be asked, and
/// asked again: where there is one, users subscribe to their room like to any other.
pub(crate) fn own_room(services: &Services, principal: &Principal) -> Option<RoomId> {
    let joins = services.rules.join_user_room && services.ports.authorizer.is_none();
    let user = principal.user.as_ref().filter(|_| joins)?;
    let room = RoomId::parse(&format!("{OWN_ROOMS}{user}")).ok()?;
    let policy = services.rules.policies.of(&room)?;
    principal.may(Action::Subscribe, &room, policy).then_some(room)
}

/// Checks a token, counts what came of it, and tells the security log of one that is refused.
async fn verify(
    services: &Services,
    who: &Who,
    token: &str,
    spends: bool,
) -> Result<Principal, AuthenticateError> {
    let Services { ports, metrics, .. } = services;
    let now = ports.clock.now();
    let verified = ports.token_verifier.verify(token, now.wall).await;
    let vouched = verified.map_err(AuthenticateError::Token).and_then(|mut principal| {
        principal.credential.verified_at = Some(now.wall);
        vouch(services, who, principal, now.wall)
    });
    let vouched = match vouched {
        Ok(principal) if spends && principal.credential.once => {
            spend(ports, principal, now.wall).await
        }
        other => other,
    };
    let outcome = match &vouched {
        Ok(_) => TokenOutcome::Accepted,
        Err(AuthenticateError::Token(error)) => error.into(),
        Err(AuthenticateError::Spent) => TokenOutcome::Spent,
        Err(AuthenticateError::NotSpendable(_)) => TokenOutcome::NotSpendable,
        Err(_) => TokenOutcome::Revoked,
    };
    metrics.edge.tokens.add(outcome, 1);
    let Err(error) = &vouched else { return vouched };
    let event = SecurityEvent::AuthenticationFailed;
    if let Some(left_out) = metrics.edge.admit(event, now.monotonic) {
        let hint = ports.token_verifier.describe(token);
        let cause: &dyn std::error::Error = match error {
            AuthenticateError::Token(cause) => cause,
            other => other,
        };
        tracing::warn!(
            target: TARGET,
            event = event.label(),
            request_id = request_id(who.connection),
            reason = outcome.label(),
            address = who.address.map(tracing::field::display),
            error = cause,
            alg = hint.algorithm,
            kid = hint.key,
            left_out,
            "a token was refused"
        );
    }
    vouched
}

/// Uses up a token that counts once. Last of all that is asked of a token, so that no other refusal
/// costs it; what is asked of the connection afterwards does.
async fn spend(
    ports: &Ports,
    mut principal: Principal,
    now: Wall,
) -> Result<Principal, AuthenticateError> {
    let missing = |claim| AuthenticateError::Token(TokenError::Claim(claim));
    let id = principal.credential.id.as_ref().ok_or_else(|| missing("jti"))?;
    let end = principal.expires_at.ok_or_else(|| missing("exp"))?;
    match ports.spent_tokens.spend(id, end.after(SPENT_BEHIND_END), now).await {
        Ok(Spending::First) => {
            principal.credential.once = false;
            Ok(principal)
        }
        Ok(Spending::Again) => Err(AuthenticateError::Spent),
        Err(error) => Err(AuthenticateError::NotSpendable(error)),
    }
}

/// Tells the security log why a connection may not open, where no token was looked at.
fn note(services: &Services, who: &Who, error: &AuthenticateError) {
    let (event, reason) = match error {
        AuthenticateError::Missing => (SecurityEvent::AuthenticationFailed, "no_token"),
        AuthenticateError::Ticket(_) => (SecurityEvent::AuthenticationFailed, "ticket"),
        AuthenticateError::Token(error) => {
            (SecurityEvent::AuthenticationFailed, TokenOutcome::from(error).label())
        }
        AuthenticateError::Revoked => {
            (SecurityEvent::AuthenticationFailed, TokenOutcome::Revoked.label())
        }
        AuthenticateError::Spent => {
            (SecurityEvent::AuthenticationFailed, TokenOutcome::Spent.label())
        }
        AuthenticateError::NotSpendable(_) => {
            (SecurityEvent::AuthenticationFailed, TokenOutcome::NotSpendable.label())
        }
        AuthenticateError::ConnectionLimit => (SecurityEvent::ConnectionRefused, "user_limit"),
        AuthenticateError::SeatsUnavailable(_) => (SecurityEvent::ConnectionRefused, "seats"),
        AuthenticateError::TooManyFailures(_) => {
            (SecurityEvent::ConnectionRefused, "bad_tokens_of_address")
        }
        AuthenticateError::Refused(_) => (SecurityEvent::ConnectionRefused, "middleware"),
    };
    let now = services.ports.clock.now().monotonic;
    if let Some(left_out) = services.metrics.edge.admit(event, now) {
        tracing::warn!(
            target: TARGET,
            event = event.label(),
            request_id = request_id(who.connection),
            reason,
            address = who.address.map(tracing::field::display),
            left_out,
            "a connection may not open"
        );
    }
}
