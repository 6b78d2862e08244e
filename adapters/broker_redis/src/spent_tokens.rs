//! Tokens that count once, over all nodes: the first to say so has used it up.
//!
//! Nothing is remembered here; where Redis does not answer nobody is let in by such a token.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use application::planted::{Mistake, is_planted};
use application::ports::{SpendError, Spending, SpentTokens};
use async_trait::async_trait;
use domain::id::TokenId;
use domain::time::Wall;
use redis::Cmd;

use crate::broker::RedisBroker;
use crate::link::{CallError, Link};

/// See the module's text.
pub struct RedisSpentTokens {
    broker: Arc<RedisBroker>,
    /// Those that this node has used up.
    spent: AtomicUsize,
}

impl RedisSpentTokens {
    /// Uses tokens up in this broker's Redis.
    #[must_use]
    pub fn new(broker: &Arc<RedisBroker>) -> Self {
        Self { broker: Arc::clone(broker), spent: AtomicUsize::new(0) }
    }

    /// In two steps, between which another node may look: a [mistake](application::planted).
    async fn look_and_mark(
        &self,
        link: &Arc<Link>,
        id: &TokenId,
        ms: i64,
    ) -> Result<Spending, CallError> {
        let key = self.broker.names.spent_token(id);
        let look = |command: &mut Cmd| {
            command.arg("EXISTS").arg(&key);
        };
        let is_spent = self.broker.commands.ask_for::<u8>(link, look).await? == 1;
        let mark = |command: &mut Cmd| {
            command.arg("SET").arg(&key).arg("1").arg("PX").arg(ms);
        };
        self.broker.commands.ask_for::<()>(link, mark).await?;
        Ok(if is_spent { Spending::Again } else { Spending::First })
    }
}

#[async_trait]
impl SpentTokens for RedisSpentTokens {
    async fn spend(&self, id: &TokenId, until: Wall, now: Wall) -> Result<Spending, SpendError> {
        let away = |error: CallError| SpendError::Storage(error.to_string());
        let link = self.broker.commands.link().map_err(away)?;
        // A second longer: the clocks of nodes and of Redis don't agree to the millisecond.
        let ms = (until.as_millis() - now.as_millis()).max(0).saturating_add(1_000);
        if is_planted(Mistake::SpentAfterAnswer) {
            return self.look_and_mark(&link, id, ms).await.map_err(away);
        }
        let fill = |command: &mut Cmd| {
            let key = self.broker.names.spent_token(id);
            command.arg("SET").arg(key).arg("1").arg("NX").arg("PX").arg(ms);
        };
        let first: Option<String> =
            self.broker.commands.ask_for(&link, fill).await.map_err(away)?;
        if first.is_none() {
            return Ok(Spending::Again);
        }
        self.spent.fetch_add(1, Ordering::Relaxed);
        Ok(Spending::First)
    }

    fn remembered(&self) -> usize {
        self.spent.load(Ordering::Relaxed)
    }
}
