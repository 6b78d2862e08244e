//! What a node counts, metric by metric. `docs/observability.md` lists the same.
//!
//! Shards are added up; only what tells one worker from the others is shown by worker.

use std::fmt;
use std::sync::Arc;

use application::directory::Directory;
use application::mailbox::Mailbox;
use application::metrics::{
    Distribution, EdgeMetrics, Histogram, NodeMetrics, Row, ShardMetrics, Tallies, Tally,
};
use application::ports::{Clock, Revocations, SpentTokens};
use application::services::Services;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use crate::archive::ArchiveMetrics;
use crate::write::Writer;

/// Reads a node's counters at each scrape.
pub(crate) struct NodeCollector {
    metrics: Arc<NodeMetrics>,
    mailboxes: Vec<Arc<Mailbox>>,
    directory: Arc<Directory>,
    clock: Arc<dyn Clock>,
    revocations: Arc<dyn Revocations>,
    spent_tokens: Arc<dyn SpentTokens>,
    archive: Option<Arc<ArchiveMetrics>>,
}

impl fmt::Debug for NodeCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeCollector")
    }
}

impl NodeCollector {
    pub(crate) fn new(services: &Services, archive: Option<Arc<ArchiveMetrics>>) -> Self {
        Self {
            metrics: Arc::clone(&services.metrics),
            mailboxes: services.mailboxes.clone(),
            directory: Arc::clone(&services.directory),
            clock: Arc::clone(&services.ports.clock),
            revocations: Arc::clone(&services.ports.revocations),
            spent_tokens: Arc::clone(&services.ports.spent_tokens),
            archive,
        }
    }

    fn shards(&self) -> &[Arc<ShardMetrics>] {
        &self.metrics.shards
    }

    fn sum(&self, of: impl Fn(&ShardMetrics) -> &Tally) -> u64 {
        self.shards().iter().map(|shard| of(shard).get()).sum()
    }

    fn rows<R: Row>(&self, of: impl Fn(&ShardMetrics) -> &Tallies<R>) -> impl Fn(R) -> u64 {
        move |row| self.shards().iter().map(|shard| of(shard).get(row)).sum()
    }

    fn durations(&self, of: impl Fn(&ShardMetrics) -> &Histogram) -> Distribution {
        let mut seen = Distribution::default();
        self.shards().iter().for_each(|shard| of(shard).add_to(&mut seen));
        seen
    }

    fn connections(&self, out: &mut Writer<'_>) -> fmt::Result {
        let edge = &self.metrics.edge;
        let (users, rooms) = self.directory.sizes();
        let open: u64 = self.shards().iter().map(|shard| shard.connections()).sum();
        out.gauge("connections", "WebSocket connections of the protocol", open as f64)?;
        let by_endpoint = "WebSocket connections, by the endpoint that they came by";
        let by_endpoint = ("endpoint_connections", by_endpoint, "endpoint");
        out.gauges(by_endpoint, self.rows(|s| &s.endpoints))?;
        let texts = "Text messages from clients, by the endpoint that they came by";
        let texts = ("endpoint_messages", texts, "endpoint");
        out.counters(texts, self.rows(|s| &s.endpoint_texts))?;
        let refusals = "Commands that were refused, by the endpoint that they came by";
        let refusals = ("endpoint_errors", refusals, "endpoint");
        out.counters(refusals, self.rows(|s| &s.endpoint_refusals))?;
        let help = "Pings that asked whether a client is still there";
        out.counter("heartbeat_pings", help, self.sum(|s| &s.pings))?;
        let help = "WebSocket connections of the protocol since the start";
        out.counter("connections_opened", help, self.sum(|s| &s.opened))?;
        let closed = ("connections_closed", "Connections that ended, by reason", "reason");
        out.counters(closed, self.rows(|s| &s.closed))?;
        let help = "Open sockets of the public address, HTTP and WebSocket together";
        out.gauge("sockets", help, edge.sockets.get() as f64)?;
        let help = "The most sockets of the public address";
        out.gauge("sockets_max", help, edge.sockets_max.get() as f64)?;
        let refused = ("connections_refused", "Sockets and upgrades turned away", "reason");
        out.counters(refused, |row| edge.refused.get(row))?;
        out.gauge("users", "Users with a connection", users as f64)?;
        out.gauge("rooms", "Rooms with members", rooms as f64)?;
        out.gauge("members", "Memberships, joining ones included", self.sum(|s| &s.members) as f64)
    }

    fn messages(&self, out: &mut Writer<'_>) -> fmt::Result {
        let help = "Text messages from clients";
        out.counter("received_messages", help, self.sum(|s| &s.texts_in))?;
        let help = "Bytes of text messages from clients";
        out.counter("received_bytes", help, self.sum(|s| &s.text_bytes_in))?;
        let commands = ("commands", "Commands of clients, by type", "type");
        out.counters(commands, self.rows(|s| &s.commands))?;
        let refusals = ("command_errors", "Commands that were refused, by error", "error");
        out.counters(refusals, self.rows(|s| &s.refusals))?;
        let publishes = ("publishes", "Publishes of clients that were answered", "outcome");
        out.counters(publishes, self.rows(|s| &s.publishes))?;
        let help = "From taking a publish of a client to its receipt";
        out.histogram("publish_duration_seconds", help, &self.durations(|s| &s.publish_latency))?;
        let help = "Publications and presence events that reached a worker";
        out.counter("mail", help, self.sum(|s| &s.mail))?;
        let help = "Frames given to members of rooms, one per frame and member";
        out.counter("deliveries", help, self.sum(|s| &s.deliveries))?;
        let help = "Bytes of frames given to members of rooms";
        out.counter("delivered_bytes", help, self.sum(|s| &s.delivery_bytes))?;
        let help = "Frames for one connection: answers, pages, pings";
        out.counter("replies", help, self.sum(|s| &s.replies))?;
        let help = "Messages to users who were away, given to them when they came back";
        out.counter("letters", help, self.sum(|s| &s.letters))?;
        let help = "Bytes of frames for one connection";
        out.counter("reply_bytes", help, self.sum(|s| &s.reply_bytes))?;
        let dropped = ("dropped_messages", "Messages that a slow client's queue left out", "class");
        out.counters(dropped, self.rows(|s| &s.dropped))
    }

    fn recovery(&self, out: &mut Writer<'_>) -> fmt::Result {
        let joins = ("joins", "Joins that were answered, by what came of them", "outcome");
        out.counters(joins, self.rows(|s| &s.joins))?;
        let help = "Further pages of what joiners missed";
        out.counter("recovery_pages", help, self.sum(|s| &s.pages))?;
        let help = "Messages given to joiners out of a log";
        out.counter("recovered_messages", help, self.sum(|s| &s.recovered_messages))?;
        let gaps = ("gaps", "Gaps that were told, by reason", "reason");
        out.counters(gaps, self.rows(|s| &s.gaps))?;
        let holes = ("holes", "Holes in what reached a worker, by cause", "cause");
        out.counters(holes, self.rows(|s| &s.holes))?;
        let help = "Holes that were closed, from the log or by telling a gap";
        out.counter("holes_filled", help, self.sum(|s| &s.holes_filled))
    }

    fn queues(&self, out: &mut Writer<'_>) -> fmt::Result {
        let help = "Bytes that wait for slow clients";
        out.gauge("outbound_queue_bytes", help, self.sum(|s| &s.queue_bytes) as f64)?;
        let help = "The most bytes that waited since the start, workers added up";
        out.gauge("outbound_queue_peak_bytes", help, self.sum(|s| &s.queue_bytes_peak) as f64)?;
        let help = "Clients for which something waits";
        out.gauge("slow_clients", help, self.sum(|s| &s.queues) as f64)?;
        let help = "Work for clients under way beside the workers' own";
        out.gauge("calls_in_flight", help, self.sum(|s| &s.calls_in_flight) as f64)?;
        let help = "Such work that panicked; its connection was closed";
        out.counter("calls_panicked", help, self.sum(|s| &s.calls_panicked))?;
        let help = "How long one turn of sending took";
        out.histogram("fan_out_turn_duration_seconds", help, &self.durations(|s| &s.turn))
    }

    fn workers(&self, out: &mut Writer<'_>) -> fmt::Result {
        let help = "How late workers got around to a timer";
        out.histogram("loop_lag_seconds", help, &self.durations(|s| &s.lag))?;
        let now = self.clock.now().monotonic;
        let silence = self.shards().iter().map(|s| s.silence_ms(now).unwrap_or(0) as f64 / 1e3);
        out.by_worker(("worker_silence_seconds", "Since a worker's last sign of life"), silence)?;
        let connections = self.shards().iter().map(|s| s.connections() as f64);
        out.by_worker(("worker_connections", "Connections of a worker"), connections)?;
        let depth = |mailbox: &Arc<Mailbox>| mailbox.depth();
        let mail: Vec<_> = self.mailboxes.iter().map(depth).collect();
        let waiting = mail.iter().map(|(mail, _)| *mail as f64);
        out.by_worker(("mailbox_messages", "Mail that waits for a worker"), waiting)?;
        let bytes = mail.iter().map(|(_, bytes)| *bytes as f64);
        out.by_worker(("mailbox_bytes", "Bytes of mail that wait for a worker"), bytes)
    }

    fn trust(&self, out: &mut Writer<'_>, edge: &EdgeMetrics) -> fmt::Result {
        let tokens = ("token_verifications", "Tokens that were checked", "outcome");
        out.counters(tokens, |row| edge.tokens.get(row))?;
        let help = "From taking a token to knowing whose it is";
        let took = self.durations(|s| &s.authentication_latency);
        out.histogram("authentication_duration_seconds", help, &took)?;
        let asked = ("authorizer_answers", "Answers of a host's authorizer", "outcome");
        out.counters(asked, |row| edge.authorizer.get(row))?;
        let orders = ("revocation_orders", "Orders to take something back", "outcome");
        out.counters(orders, |row| edge.revocations.get(row))?;
        let help = "Revocations that are remembered";
        out.gauge("revocations", help, self.revocations.remembered() as f64)?;
        let help = "Tokens that count once and are remembered as used";
        out.gauge("spent_tokens", help, self.spent_tokens.remembered() as f64)?;
        let help = "Requests of the server API with a known key";
        out.counter("api_requests", help, edge.api_requests.get())?;
        let of_shards = self.rows(|s| &s.security);
        let events = ("security_events", "Events for the security log, written or not", "event");
        out.counters(events, |row| of_shards(row) + edge.security.get(row))?;
        let help = "1 while new connections are welcome, as on /readyz";
        out.gauge("ready", help, edge.ready.get() as f64)
    }

    fn archive(out: &mut Writer<'_>, metrics: &ArchiveMetrics) -> fmt::Result {
        let mut seen = Distribution::default();
        metrics.commit_latency.add_to(&mut seen);
        let help = "From handing a batch to the archive to its commit";
        out.histogram("archive_commit_duration_seconds", help, &seen)?;
        let help = "Batches that the archive committed";
        out.counter("archive_commits", help, metrics.commits.get())?;
        let help = "Messages that the archive committed";
        out.counter("archive_messages", help, metrics.messages.get())?;
        let help = "Rooms that were opened in the archive";
        out.counter("archive_opens", help, metrics.opens.get())?;
        let help = "Reads of a room's messages in the archive";
        out.counter("archive_reads", help, metrics.reads.get())?;
        let help = "Calls of the archive that failed";
        out.counter("archive_failures", help, metrics.failures.get())
    }
}

impl Collector for NodeCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut Writer(encoder);
        self.connections(out)?;
        self.messages(out)?;
        self.recovery(out)?;
        self.queues(out)?;
        self.workers(out)?;
        self.trust(out, &self.metrics.edge)?;
        match &self.archive {
            Some(metrics) => Self::archive(out, metrics),
            None => Ok(()),
        }
    }
}
