//! What the application had before: users who log in, and guilds that they join. In memory, where a
//! real one would ask its database.
//!
//! A login's token is Roomkeeper's token too: it is looked up, not decoded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use application::ports::{Entropy, TokenError, TokenVerifier};
use async_trait::async_trait;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use domain::id::UserId;
use domain::principal::Principal;
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
    logins: BTreeMap<String, UserId>,
    members: BTreeSet<(String, UserId)>,
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
        let token = format!("{:016x}{:016x}", self.entropy.bits(), self.entropy.bits());
        let mut tables = self.tables();
        (tables.logins.len() < ENTRIES_MAX).then(|| {
            tables.logins.insert(token.clone(), user);
            token
        })
    }

    fn join(&self, guild: String, token: &str) -> Option<()> {
        let mut tables = self.tables();
        let user = tables.logins.get(token)?.clone();
        (tables.members.len() < ENTRIES_MAX).then(|| {
            tables.members.insert((guild, user));
        })
    }
}

#[async_trait]
impl TokenVerifier for Guilds {
    async fn verify(&self, token: &str, now: Wall) -> Result<Principal, TokenError> {
        let user = self.tables().logins.get(token).cloned().ok_or(TokenError::Signature)?;
        let expires_at = Some(now.after(LOGIN_AGE));
        Ok(Principal { user: Some(user), expires_at, ..Principal::default() })
    }
}

/// The application's own routes.
pub(crate) fn routes(guilds: &Arc<Guilds>) -> Router {
    Router::new()
        .route("/", get(|| async { "the application's own page\n" }))
        .route("/login/{user}", post(log_in))
        .route("/guilds/{guild}/join/{token}", post(join))
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
    Path((guild, token)): Path<(String, String)>,
) -> StatusCode {
    guilds.join(guild, &token).map_or(StatusCode::FORBIDDEN, |()| StatusCode::NO_CONTENT)
}
