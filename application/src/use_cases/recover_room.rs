//! Reads what a member missed: the next page behind a position, or the gap in front of it.
//!
//! It must never answer messages that do not follow the position without saying so.

use std::sync::Arc;
use std::time::Duration;

use domain::filter::Filter;
use domain::policy::NamespacePolicy;
use domain::position::{Offset, Position};
use domain::recovery::{Gap, GapReason, decide_recovery};
use domain::room::RoomId;

use crate::ports::{BrokerError, LogPage, ReadLog};
use crate::published::Published;
use crate::services::Services;

/// A member that has everything up to a position.
pub struct RecoverRoom {
    /// The node's services.
    pub services: Arc<Services>,
    /// The room.
    pub room: RoomId,
    /// Its policy.
    pub policy: Arc<NamespacePolicy>,
    /// What the member has.
    pub since: Position,
    /// Whether the hole is this server's own: what the log does not keep is then lost by
    /// overflow, not by age.
    pub own_hole: bool,
    /// The most bytes of data to read; at least one message is read.
    pub bytes_max: usize,
    /// Which messages the member wants; none means all.
    pub filter: Option<Filter>,
}

/// What comes next.
#[derive(Clone, Debug)]
pub struct RecoveredPage {
    /// What must be said first.
    pub gap: Option<Gap>,
    /// Behind which offset it begins.
    pub after: Offset,
    /// The messages, in order, without holes; of a filtered member those that it wants.
    pub messages: Vec<Arc<Published>>,
    /// Where the member stands after them.
    pub reached: Position,
    /// Whether there is more.
    pub more: bool,
}

impl RecoverRoom {
    /// How many pages of the log are read for one page of a filtered member while nothing passes.
    const FILTERED_READS_MAX: usize = 8;

    /// Decides and reads.
    ///
    /// # Errors
    /// [`BrokerError`] when the log can't be read now.
    pub async fn execute(self) -> Result<RecoveredPage, BrokerError> {
        let mut page = self.read_behind(self.since).await?;
        let Some(filter) = &self.filter else { return Ok(page) };
        page.messages.retain(|published| filter.passes(&published.publication));
        for _ in 1..Self::FILTERED_READS_MAX {
            if !page.more || !page.messages.is_empty() {
                break;
            }
            let next = self.read_behind(page.reached).await?;
            if next.gap.is_some() {
                // It stands between pages: the next one finds it again.
                break;
            }
            page.messages = next.messages;
            page.messages.retain(|published| filter.passes(&published.publication));
            (page.reached, page.more) = (next.reached, next.more);
        }
        Ok(page)
    }

    async fn read_behind(&self, since: Position) -> Result<RecoveredPage, BrokerError> {
        let mut after = since.offset;
        // The first read begins where the client stands. Where the decision says to begin
        // elsewhere (the epoch changed), the second read does; a log that changes its epoch
        // between all of them is not well.
        for _ in 0..3 {
            let page = self.read(after).await?;
            let decision = decide_recovery(since, page.bounds);
            let begins_right = match page.messages.first() {
                Some(first) => first.publication.offset == decision.after.next(),
                None => decision.after >= page.bounds.last,
            };
            if begins_right {
                return Ok(self.page(page, decision.after, decision.gap));
            }
            after = decision.after;
        }
        Err(BrokerError::Unavailable { retry_after: Duration::from_secs(1) })
    }

    async fn read(&self, after: Offset) -> Result<LogPage, BrokerError> {
        let limits = &self.services.rules.limits;
        let read = ReadLog {
            after,
            messages_max: limits.page_messages_max,
            bytes_max: self.bytes_max,
            now: self.services.ports.clock.now().wall,
        };
        self.services.ports.broker.read(&self.room, &self.policy, read).await
    }

    fn page(&self, page: LogPage, after: Offset, gap: Option<Gap>) -> RecoveredPage {
        let last = page.messages.last().and_then(|last| last.publication.offset);
        let offset = match last {
            Some(last) => last,
            None => after.max(page.bounds.last),
        };
        let gap = gap.map(|gap| match gap.reason {
            GapReason::Retention if self.own_hole => Gap { reason: GapReason::Overflow, ..gap },
            GapReason::Retention
            | GapReason::EpochChanged
            | GapReason::UnknownPosition
            | GapReason::Overflow => gap,
        });
        RecoveredPage {
            gap,
            after,
            messages: page.messages,
            reached: Position { epoch: page.bounds.epoch, offset },
            more: page.more,
        }
    }
}
