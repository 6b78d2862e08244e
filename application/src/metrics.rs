//! What a node counts about itself, for whoever looks.
//!
//! Counting must never wait, allocate or happen per delivery: see `docs/adr/0012-counters-read-at-scrape.md`.
//! No number here may belong to a room, a user or anything else that clients can make more of.

mod cells;
mod recent;
mod rows;

use std::sync::{Arc, Mutex, PoisonError};

use domain::codes::{CloseCode, ErrorCode};
use domain::delivery::Class;
use domain::recovery::GapReason;
use domain::time::Monotonic;

pub use self::cells::{Count, Distribution, Histogram, Tally};
pub use self::recent::{Rates, Recent, Totals};
pub(crate) use self::rows::rows;
pub use self::rows::{
    AuthorizerOutcome, CommandKind, Counts, EdgeRefusal, EndpointKind, HoleCause, JoinOutcome,
    PublishOutcome, RevokeOutcome, Row, Tallies, TokenOutcome,
};
use crate::security::{SecurityEvent, SecurityLog};

/// What one shard and its worker count. One thread writes it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ShardMetrics {
    /// Connections that were upgraded.
    pub opened: Tally,
    /// Connections that ended, by close code; what is open is the difference.
    pub closed: Tallies<CloseCode>,
    /// Connections that are open, by the endpoint that they came by.
    pub endpoints: Tallies<EndpointKind>,
    /// Text messages from clients, by the endpoint that they came by.
    pub endpoint_texts: Tallies<EndpointKind>,
    /// Commands that were refused, the same way.
    pub endpoint_refusals: Tallies<EndpointKind>,
    /// Pings that asked whether somebody is still there.
    pub pings: Tally,
    /// Memberships now, joiners included.
    pub members: Tally,
    /// Rooms with members or joiners of this shard now.
    pub rooms: Tally,
    /// Text messages from clients.
    pub texts_in: Tally,
    /// Their bytes.
    pub text_bytes_in: Tally,
    /// Commands that were read, by type.
    pub commands: Tallies<CommandKind>,
    /// Commands that were refused, by row of the error table.
    pub refusals: Tallies<ErrorCode>,
    /// Publishes of this shard's connections that were answered.
    pub publishes: Tallies<PublishOutcome>,
    /// From taking a publish to its receipt.
    pub publish_latency: Histogram,
    /// From taking a token to knowing whose it is.
    pub authentication_latency: Histogram,
    /// Publications and presence events that came by mail.
    pub mail: Tally,
    /// Frames given to members, one per frame and member.
    pub deliveries: Tally,
    /// Bytes of them.
    pub delivery_bytes: Tally,
    /// Frames for one connection: answers, pings, pages.
    pub replies: Tally,
    /// What waited for users and was given to them.
    pub letters: Tally,
    /// Bytes of them.
    pub reply_bytes: Tally,
    /// Frames that a full queue dropped, by class.
    pub dropped: Tallies<Class>,
    /// Joins that were answered.
    pub joins: Tallies<JoinOutcome>,
    /// Messages given out of a log to joiners.
    pub recovered_messages: Tally,
    /// Further pages of joins.
    pub pages: Tally,
    /// Gaps that were told, by reason: once per joiner, once per shard for a hole.
    pub gaps: Tallies<GapReason>,
    /// Holes that were found, by cause.
    pub holes: Tallies<HoleCause>,
    /// Holes that were filled from the log, or told as a gap.
    pub holes_filled: Tally,
    /// Bytes that wait for slow connections now.
    pub queue_bytes: Tally,
    /// The most that waited since the start.
    pub queue_bytes_peak: Tally,
    /// Connections for which something waits now.
    pub queues: Tally,
    /// Cold calls under way.
    pub calls_in_flight: Tally,
    /// Cold calls that panicked.
    pub calls_panicked: Tally,
    /// How long one turn of sending took.
    pub turn: Histogram,
    /// How late the worker's heart beat.
    pub lag: Histogram,
    /// When it beat last, in milliseconds of the node's clock; 0 before the first time.
    pub beat_ms: Tally,
    /// What went to the security log or would have.
    pub security: Tallies<SecurityEvent>,
}

impl ShardMetrics {
    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> u64 {
        // Read in this order an end that comes in between can't make it negative.
        let closed = self.closed.sum();
        self.opened.get().saturating_sub(closed)
    }

    /// Notes what waits for slow connections.
    pub fn waits(&self, bytes: usize, n_queues: usize) {
        let bytes = bytes as u64;
        self.queue_bytes.set(bytes);
        self.queues.set(n_queues as u64);
        if bytes > self.queue_bytes_peak.get() {
            self.queue_bytes_peak.set(bytes);
        }
    }

    /// For how long, in milliseconds, the worker has shown no sign of life; none before its first.
    #[must_use]
    pub fn silence_ms(&self, now: Monotonic) -> Option<u64> {
        let beat = self.beat_ms.get();
        (beat > 0).then(|| now.as_millis().saturating_sub(beat))
    }
}

/// What belongs to no shard: what is counted by any thread.
#[derive(Debug, Default)]
pub struct EdgeMetrics {
    /// Sockets that are open, HTTP and WebSocket together.
    pub sockets: Count,
    /// The most there may be.
    pub sockets_max: Count,
    /// Sockets and upgrades that were turned away.
    pub refused: Counts<EdgeRefusal>,
    /// Tokens that were checked.
    pub tokens: Counts<TokenOutcome>,
    /// Questions to a host's authorizer.
    pub authorizer: Counts<AuthorizerOutcome>,
    /// Orders to take something back.
    pub revocations: Counts<RevokeOutcome>,
    /// 1 while new connections are welcome.
    pub ready: Count,
    /// Requests of the server API with a known key.
    pub api_requests: Count,
    /// What went to the security log or would have.
    pub security: Counts<SecurityEvent>,
    /// Bounds it.
    log: Mutex<SecurityLog>,
}

impl EdgeMetrics {
    /// Counts a security event and says whether it may be logged, with how many of its kind were
    /// left out since the last.
    pub fn admit(&self, event: SecurityEvent, now: Monotonic) -> Option<u64> {
        self.security.add(event, 1);
        self.log.lock().unwrap_or_else(PoisonError::into_inner).admit(event, now)
    }
}

/// What a node counts.
#[derive(Debug, Default)]
pub struct NodeMetrics {
    /// One for each shard, in their order.
    pub shards: Box<[Arc<ShardMetrics>]>,
    /// What belongs to no shard.
    pub edge: EdgeMetrics,
    /// What was counted a minute ago, for rates.
    pub recent: Recent,
}

impl NodeMetrics {
    /// For so many shards.
    #[must_use]
    pub fn new(n_shards: usize) -> Self {
        let shards = std::iter::repeat_with(Arc::default).take(n_shards).collect();
        Self { shards, ..Self::default() }
    }

    /// What all shards have counted since the start.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for shard in &self.shards {
            totals.messages_in += shard.texts_in.get();
            totals.bytes_in += shard.text_bytes_in.get();
            totals.deliveries += shard.deliveries.get();
            totals.replies += shard.replies.get();
            totals.bytes_out += shard.delivery_bytes.get() + shard.reply_bytes.get();
            totals.commands += shard.commands.sum();
            totals.errors += shard.refusals.sum() + shard.calls_panicked.get();
        }
        totals
    }

    /// A row of a closed set, over all shards.
    pub fn sum<R: Row>(&self, of: impl Fn(&ShardMetrics) -> &Tallies<R>, row: R) -> u64 {
        self.shards.iter().map(|shard| of(shard).get(row)).sum()
    }

    /// A shard's; one that is not in the list counts for itself.
    #[must_use]
    pub fn shard(&self, number: Option<usize>) -> Arc<ShardMetrics> {
        number.and_then(|number| self.shards.get(number)).map(Arc::clone).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_what_came_without_what_went_whatever_its_code() {
        let metrics = ShardMetrics::default();
        metrics.opened.add(3);
        metrics.closed.add(CloseCode::Normal, 1);
        metrics.closed.add(CloseCode::SlowConsumer, 1);
        assert_eq!(metrics.connections(), 1);
    }

    #[test]
    fn the_peak_of_what_waits_stays() {
        let metrics = ShardMetrics::default();
        metrics.waits(10, 2);
        metrics.waits(4, 1);
        assert_eq!((metrics.queue_bytes.get(), metrics.queues.get()), (4, 1));
        assert_eq!(metrics.queue_bytes_peak.get(), 10);
    }

    #[test]
    fn a_worker_that_never_beat_is_not_called_silent() {
        let metrics = ShardMetrics::default();
        let now = Monotonic::from_millis(9_000);
        assert_eq!(metrics.silence_ms(now), None);
        metrics.beat_ms.set(4_000);
        assert_eq!(metrics.silence_ms(now), Some(5_000));
    }

    #[test]
    fn shards_beyond_the_list_count_for_themselves() {
        let node = NodeMetrics::new(1);
        node.shard(Some(0)).opened.add(1);
        node.shard(Some(7)).opened.add(1);
        node.shard(None).opened.add(1);
        assert_eq!(node.shards[0].opened.get(), 1);
    }
}
