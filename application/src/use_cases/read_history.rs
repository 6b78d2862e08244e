//! Reads a page of a room's log for somebody who asks for it.
//!
//! Unlike recovery it refuses a position that the log cannot vouch for: nobody waits for live
//! messages behind it, so there is nobody to tell a gap to.

use std::sync::Arc;

use domain::policy::NamespacePolicy;
use domain::position::{Offset, Position};
use domain::principal::Action;
use domain::recovery::{Gap, GapReason, LogBounds, decide_recovery};
use domain::room::RoomId;
use thiserror::Error;

use domain::codes::ErrorCode;

use crate::extensions::middleware::{Inbound, Who};
use crate::ports::{BrokerError, ReadLog};
use crate::published::Published;
use crate::refusal::Refusal;
use crate::services::Services;
use crate::use_cases::authorize::{NotAllowed, authorize};

/// A question for a page.
pub struct ReadHistory {
    /// The node's services.
    pub services: Arc<Services>,
    /// Who asks.
    pub who: Arc<Who>,
    /// The room.
    pub room: RoomId,
    /// Its policy.
    pub policy: Arc<NamespacePolicy>,
    /// Read behind this; none reads from the oldest.
    pub since: Option<Position>,
    /// The most messages to answer.
    pub messages_max: u32,
}

/// A page of the log.
#[derive(Clone, Debug)]
pub struct HistoryPage {
    /// What the log held.
    pub bounds: LogBounds,
    /// The messages, in order.
    pub messages: Vec<Arc<Published>>,
    /// Where a reader stands after them.
    pub reached: Offset,
    /// Whether there is more.
    pub more: bool,
    /// What the log no longer holds between where the reader stood and the first message here.
    pub gap: Option<Gap>,
}

/// Why there is no page.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum HistoryRefused {
    /// It may not be done.
    #[error("not allowed")]
    NotAllowed(#[source] NotAllowed),
    /// A middleware refused.
    #[error("a middleware refused the message")]
    Middleware(Refusal),
    /// The position is of another epoch or ahead of the log.
    #[error("the position is not of this log")]
    Position,
    /// The broker did not answer.
    #[error("the broker did not answer")]
    Broker(#[source] BrokerError),
}

impl From<HistoryRefused> for Refusal {
    fn from(error: HistoryRefused) -> Self {
        match error {
            HistoryRefused::NotAllowed(error) => error.into(),
            HistoryRefused::Middleware(refusal) => refusal,
            HistoryRefused::Position => Self::new(
                ErrorCode::InvalidPosition,
                "the position is not of this room's log; ask without `since`",
            )
            .field("since"),
            HistoryRefused::Broker(BrokerError::Unavailable { retry_after }) => {
                Self::unavailable(retry_after)
            }
        }
    }
}

impl ReadHistory {
    /// Checks and reads.
    ///
    /// # Errors
    /// [`HistoryRefused`] says why there is no page.
    pub async fn execute(self) -> Result<HistoryPage, HistoryRefused> {
        self.run(false).await
    }

    /// The same for a handler, as part of the message that it handles.
    ///
    /// # Errors
    /// [`HistoryRefused`] says why there is no page.
    pub async fn execute_derived(self) -> Result<HistoryPage, HistoryRefused> {
        self.run(true).await
    }

    async fn run(self, derived: bool) -> Result<HistoryPage, HistoryRefused> {
        let Services { rules, .. } = &*self.services;
        let Self { services, who, room, policy, .. } = &self;
        let allowed = authorize(services, who, Action::History, room, policy).await;
        allowed.map_err(HistoryRefused::NotAllowed)?;
        if !rules.middleware.is_empty() {
            let room = Some(self.room.as_str());
            let inbound = Inbound { kind: "history", room, body: "", derived };
            let asked = rules.middleware.process_message(&self.who, inbound).await;
            asked.map_err(HistoryRefused::Middleware)?;
        }
        read_page(services, room, policy, self.since, self.messages_max).await
    }
}

/// Reads a page for somebody who may have it.
///
/// # Errors
/// [`HistoryRefused::Position`] and [`HistoryRefused::Broker`].
pub(crate) async fn read_page(
    services: &Services,
    room: &RoomId,
    policy: &Arc<NamespacePolicy>,
    since: Option<Position>,
    messages_max: u32,
) -> Result<HistoryPage, HistoryRefused> {
    let Services { ports, rules, .. } = services;
    let read = ReadLog {
        after: since.map_or(Offset::ZERO, |since| since.offset),
        messages_max,
        bytes_max: rules.limits.page_bytes_of_one(),
        now: ports.clock.now().wall,
    };
    let page = ports.broker.read(room, policy, read).await.map_err(HistoryRefused::Broker)?;
    let gap = since.and_then(|since| decide_recovery(since, page.bounds).gap);
    if gap.is_some_and(|gap| gap.reason != GapReason::Retention) {
        return Err(HistoryRefused::Position);
    }
    let last = page.messages.last().and_then(|last| last.publication.offset);
    let reached = last.unwrap_or(page.bounds.last);
    Ok(HistoryPage { bounds: page.bounds, messages: page.messages, reached, more: page.more, gap })
}
