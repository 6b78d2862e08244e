//! Where tokens come from, for a client that asks for them by itself.
//!
//! It must never call for two tokens at once, nor wait for one without end; and what goes wrong in it, a panic
//! included, must never be more than a token that did not come.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use domain::client::Token;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::dial::BoxFuture;

type Brought = Result<Option<Token>, String>;

/// Brings tokens when the client needs one: before the first connection, when the server says that the one at
/// hand ends, and when it does not count any more. One is asked for at a time; while a session's ticket serves
/// none is.
#[derive(Clone)]
pub struct TokenSource(Arc<dyn Fn() -> BoxFuture<Brought> + Send + Sync>);

impl TokenSource {
    /// Takes tokens from `bring`. Why there is none is told in events, so it must hold no secret.
    pub fn new<F, E>(bring: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Token, E>> + Send + 'static,
        E: fmt::Display,
    {
        Self::or_anonymous(move || {
            let token = bring();
            async move { token.await.map(Some) }
        })
    }

    /// The same where none is an answer, too: the client stays anonymous.
    pub fn or_anonymous<F, E>(bring: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Option<Token>, E>> + Send + 'static,
        E: fmt::Display,
    {
        Self(Arc::new(move || -> BoxFuture<Brought> {
            let token = bring();
            Box::pin(async move { token.await.map_err(|why| why.to_string()) })
        }))
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSource(…)")
    }
}

/// The token that is on its way, if one is. Dropped, it is given up.
#[derive(Debug, Default)]
pub(crate) struct Bringing(JoinSet<Brought>);

impl Bringing {
    /// Asks for one. It has a little less than the attempt that waits for it, so that what failed is told.
    pub(crate) fn ask(&mut self, source: &TokenSource, connect_timeout: Duration) {
        let (source, limit) = (source.clone(), connect_timeout - connect_timeout / 5);
        // A task of its own: what panics there ends no client.
        self.0.spawn(async move {
            let late = || Err(format!("none came within {} ms", limit.as_millis()));
            timeout(limit, async { (source.0)().await }).await.unwrap_or_else(|_| late())
        });
    }

    /// The one that was asked for; never where none was. Can be dropped and called again.
    pub(crate) async fn next(&mut self) -> Brought {
        match self.0.join_next().await {
            Some(Ok(brought)) => brought,
            Some(Err(_)) => Err("its source panicked".to_owned()),
            None => std::future::pending().await,
        }
    }
}
