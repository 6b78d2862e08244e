//! What the application had before: users who log in, and guilds that they join. In memory, where a
//! real one would ask its database.
//!
//! A login's token is Roomkeeper's token too: it is looked up, not decoded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

use application::ports::{Entropy, TokenError, TokenVerifier};
use async_trait::async_trait;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use domain::id::UserId;
use domain::principal::Principal;
use domain::room::RoomId;
use domain::time::Wall;
use serde_json::{Value, json};
use worker_tokio::SystemEntropy;

/// The most logins and the most memberships that are remembered.
const ENTRIES_MAX: usize = 10_000;
/// How long a login is good.
const LOGIN_AGE: std::time::Duration = std::time::Duration::from_secs(60 * 60);

/// Logins and memberships.
#[derive(Default)]
pub(crate) struct Guilds {
    entropy: SystemEntropy,
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    logins: BTreeMap<String, Login>,
    members: BTreeSet<(String, UserId)>,
}

struct Login {
    user: UserId,
    ends_at: Wall,
}

impl Guilds {
    /// Held for one look or one change.
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has_member(&self, guild: &str, user: &UserId) -> bool {
        self.tables().members.contains(&(guild.to_owned(), user.clone()))
    }

    fn log_in(&self, user: UserId) -> Option<String> {
        let [one, other] = [self.entropy.bits().ok()?, self.entropy.bits().ok()?];
        let token = format!("{one:016x}{other:016x}");
        let (now, mut tables) = (now(), self.tables());
        tables.logins.retain(|_, login| login.ends_at > now);
        (tables.logins.len() < ENTRIES_MAX).then(|| {
            tables.logins.insert(token.clone(), Login { user, ends_at: now.after(LOGIN_AGE) });
            token
        })
    }

    fn join(&self, guild: String, token: &str) -> Option<()> {
        let mut tables = self.tables();
        let login = tables.logins.get(token).filter(|login| login.ends_at > now())?;
        let member = (guild, login.user.clone());
        (tables.members.len() < ENTRIES_MAX).then(|| {
            tables.members.insert(member);
        })
    }
}

#[async_trait]
impl TokenVerifier for Guilds {
    async fn verify(&self, token: &str, now: Wall) -> Result<Principal, TokenError> {
        let tables = self.tables();
        let login = tables.logins.get(token).ok_or(TokenError::Signature)?;
        if login.ends_at <= now {
            return Err(TokenError::Expired);
        }
        let (user, expires_at) = (Some(login.user.clone()), Some(login.ends_at));
        Ok(Principal { user, expires_at, ..Principal::default() })
    }
}

fn now() -> Wall {
    let since = UNIX_EPOCH.elapsed().unwrap_or_default();
    Wall::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The application's own routes.
pub(crate) fn routes(guilds: &Arc<Guilds>) -> Router {
    Router::new()
        .route("/", get(|| async { "the application's own page\n" }))
        .route("/login/{user}", post(log_in))
        .route("/guilds/{guild}/join", post(join))
        .with_state(Arc::clone(guilds))
}

/// A real application would ask for a password.
async fn log_in(
    State(guilds): State<Arc<Guilds>>,
    Path(user): Path<String>,
) -> Result<Json<Value>, StatusCode> {
    let user = UserId::parse(&user).map_err(|_| StatusCode::BAD_REQUEST)?;
    let token = guilds.log_in(user).ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(Json(json!({"token": token})))
}

async fn join(
    State(guilds): State<Arc<Guilds>>,
    Path(guild): Path<String>,
    headers: HeaderMap,
) -> StatusCode {
    // As short as a room's name, in which it will stand.
    if RoomId::parse(&format!("guild:{guild}")).is_err() {
        return StatusCode::BAD_REQUEST;
    }
    // In a header: paths end up in logs.
    let token = headers.get("authorization").and_then(|value| value.to_str().ok());
    let token = token.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    guilds.join(guild, token).map_or(StatusCode::FORBIDDEN, |()| StatusCode::NO_CONTENT)
}
