//! The middleware chain: asked, in order, when a connection opens, for every command, and when a
//! connection ends.
//!
//! A middleware sees and refuses; it must never change what a client sent.

use core::net::IpAddr;
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use domain::codes::CloseCode;
use domain::id::{ClientId, ConnectionId};
use domain::principal::Principal;
use domain::room::RoomId;
use domain::seats::Fence;

use crate::refusal::Refusal;
use crate::view::View;

/// Under which name a connection's context has the [`Spread`](crate::ports::Spread) of its user, once it is let in:
/// who counts something by user on each node has an even share of it to give there.
pub const SPREAD: &str = "spread";

/// Who is on the other end.
#[derive(Clone, Debug)]
pub struct Who {
    /// The connection.
    pub connection: ConnectionId,
    /// The label the client gave itself, or was given.
    pub client: ClientId,
    /// The address that it comes from, through trusted proxies; none where the host does not know it.
    pub address: Option<IpAddr>,
    /// By which endpoint it came.
    pub view: View,
    /// The room that its endpoint is for, where that is one of many: a match's.
    pub place: Option<RoomId>,
    /// What its token says.
    pub principal: Arc<Principal>,
    /// What middleware found out when the connection opened.
    pub context: Context,
    /// The number under which it acts for its user, where only the newest may.
    pub fence: Option<Fence>,
}

/// What one middleware tells those behind it. What is set while a connection opens is there for
/// all its commands; what is set for a command is gone after it.
#[derive(Clone, Default)]
pub struct Context {
    values: BTreeMap<&'static str, Arc<dyn Any + Send + Sync>>,
}

impl Context {
    /// Sets a value; a later one under the same name replaces it.
    pub fn set<T: Any + Send + Sync>(&mut self, name: &'static str, value: T) {
        self.values.insert(name, Arc::new(value));
    }

    /// The same with a value that somebody else goes on changing.
    pub fn share<T: Any + Send + Sync>(&mut self, name: &'static str, value: Arc<T>) {
        self.values.insert(name, value);
    }

    /// The value under a name, if it is there and of that type.
    #[must_use]
    pub fn get<T: Any + Send + Sync>(&self, name: &str) -> Option<Arc<T>> {
        Arc::downcast(Arc::clone(self.values.get(name)?)).ok()
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

/// One command, as middleware sees it.
#[derive(Clone, Copy, Debug)]
pub struct Inbound<'a> {
    /// Its `type`.
    pub kind: &'a str,
    /// The room it names, if any.
    pub room: Option<&'a str>,
    /// The published JSON or the whole frame of a registered type; empty for other commands.
    pub body: &'a str,
    /// Whether a handler asks for it while it handles a message that the chain has already seen. The client
    /// sent that one alone: what counts messages counts this one not.
    pub derived: bool,
}

/// One link of the chain. All methods allow by default.
#[async_trait]
pub trait Middleware: Send + Sync {
    /// A connection is about to open.
    ///
    /// # Errors
    /// The code with which the connection is closed instead.
    async fn process_connection(
        &self,
        _who: &Who,
        _context: &mut Context,
    ) -> Result<(), CloseCode> {
        Ok(())
    }

    /// A command came. It is carried out when every middleware has allowed it.
    ///
    /// # Errors
    /// The answer that the client gets instead.
    async fn process_message(
        &self,
        _who: &Who,
        _message: Inbound<'_>,
        _context: &mut Context,
    ) -> Result<(), Refusal> {
        Ok(())
    }

    /// A connection that had opened has ended.
    async fn process_disconnect(&self, _who: &Who, _code: CloseCode) {}
}

/// The chain, in the order it was put together.
#[derive(Clone, Default)]
pub struct MiddlewareChain {
    links: Vec<Arc<dyn Middleware>>,
}

impl MiddlewareChain {
    /// Adds a middleware behind those already there.
    pub fn push(&mut self, middleware: Arc<dyn Middleware>) {
        self.links.push(middleware);
    }

    /// Whether there is none, so that nothing has to wait for it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Asks all, in order, and answers what they found out.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn process_connection(&self, who: &Who) -> Result<Context, CloseCode> {
        let mut context = Context::default();
        for link in &self.links {
            link.process_connection(who, &mut context).await?;
        }
        Ok(context)
    }

    /// Asks all, in order.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn process_message(
        &self,
        who: &Who,
        message: Inbound<'_>,
    ) -> Result<Context, Refusal> {
        let mut context = who.context.clone();
        for link in &self.links {
            link.process_message(who, message, &mut context).await?;
        }
        Ok(context)
    }

    /// Tells all, in the reverse order.
    pub async fn process_disconnect(&self, who: &Who, code: CloseCode) {
        for link in self.links.iter().rev() {
            link.process_disconnect(who, code).await;
        }
    }
}
