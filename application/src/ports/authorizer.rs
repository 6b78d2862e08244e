//! A host's own answer to who may do what.
//!
//! Without one, the token's claims and the room's policy decide, in place and without waiting. An
//! implementation must never allow because it does not know.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use domain::decision::Decision;
use domain::policy::NamespacePolicy;
use domain::principal::Action;
use domain::room::RoomId;
use thiserror::Error;

use crate::extensions::middleware::Who;

/// May this connection do this in this room? It owns what it names, so that an answer may take
/// its time anywhere.
#[derive(Clone, Debug)]
pub struct Question {
    /// Who asks, with everything that its token says.
    pub who: Arc<Who>,
    /// For what.
    pub action: Action,
    /// Where.
    pub room: RoomId,
    /// The room's policy.
    pub policy: Arc<NamespacePolicy>,
    /// What token and policy say: the answer if there were no authorizer. It binds nobody.
    pub claims: Decision,
}

/// An answer. Its reason is for people who set rights up: it goes to the log and, in development,
/// to the client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It may.
    Allowed,
    /// It may not.
    Denied(Cow<'static, str>),
}

/// Why there is no answer. It never means yes; the client is told to come back.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum AuthorizerError {
    /// It took longer than allowed.
    #[error("the authorizer did not answer in time")]
    Timeout,
    /// Too many questions wait for an answer already.
    #[error("the authorizer has too many questions to answer")]
    Busy,
    /// It panicked; the fault is in the log.
    #[error("the authorizer panicked")]
    Panicked,
    /// It says so itself; the text is for the log.
    #[error("the authorizer can't answer: {0}")]
    Unavailable(String),
}

/// Decides instead of token and policy. Asked for every command that needs a right, when a token
/// is refreshed, and again from time to time for the rooms that a connection is in.
#[async_trait]
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
pub trait Authorizer: Send + Sync {
    /// Decides. MUST answer an error when in doubt: a wrong `Allowed` shows somebody what is not
    /// theirs. Should answer at once; whoever composes a node puts a limit on time and number
    /// around it, as the questions of one connection wait for each other.
    async fn authorize(&self, question: Question) -> Result<Verdict, AuthorizerError>;
}
