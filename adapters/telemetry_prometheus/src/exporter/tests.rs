//! Tests of the output, by its text.

use super::*;
use application::metrics::{AuthorizerOutcome, CommandKind, PublishOutcome, RevokeOutcome, Row};
use application::node::Node;
use application::ports::broker::MockBroker;
use application::ports::clock::{MockClock, MockEntropy};
use application::ports::presence::MockPresence;
use application::ports::revocations::MockRevocations;
use application::ports::spent_tokens::MockSpentTokens;
use application::ports::token_verifier::MockTokenVerifier;
use application::services::{Ports, Rules};
use domain::codes::CloseCode;
use domain::time::{Monotonic, Now};
use std::time::Duration;

fn node(n_shards: usize) -> Node {
    let mut clock = MockClock::new();
    clock
        .expect_now()
        .returning(|| Now { monotonic: Monotonic::from_millis(10_000), ..Now::default() });
    let mut revocations = MockRevocations::new();
    revocations.expect_remembered().returning(|| 12);
    let mut spent_tokens = MockSpentTokens::new();
    spent_tokens.expect_remembered().returning(|| 13);
    let ports = Ports {
        broker: Arc::new(MockBroker::new()),
        presence: Arc::new(MockPresence::new()),
        token_verifier: Arc::new(MockTokenVerifier::new()),
        session_tickets: Arc::new(application::ports::NoTickets),
        inbox: None,
        moderation: None,
        erasure: None,
        authorizer: None,
        revocations: Arc::new(revocations),
        spent_tokens: Arc::new(spent_tokens),
        matches: Arc::new(application::ports::NoMatches),
        seats: Arc::new(application::seats::NodeSeats::default()),
        peers: Arc::new(application::ports::NoPeers),
        clock: Arc::new(clock),
        entropy: Arc::new(MockEntropy::new()),
    };
    Node::build(ports, Rules::default(), n_shards)
}

fn exporter(node: &Node) -> Exporter {
    let waiting =
        Gauge { name: "waiting_bytes", help: "What waits", grows: false, read: Box::new(|| 7) };
    let lost = Gauge { name: "lost_lines", help: "Lines", grows: true, read: Box::new(|| 3) };
    let archive = Some(Arc::new(ArchiveMetrics::default()));
    Exporter::build("1.2.3", &node.services(), archive, vec![waiting, lost])
}

fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
}

#[test]
fn what_shards_counted_is_added_up_under_its_name() {
    let node = node(2);
    for (shard, n) in node.services().metrics.shards.iter().zip([3, 4]) {
        shard.opened.add(n);
        shard.closed.add(CloseCode::SlowConsumer, 1);
        shard.commands.add(CommandKind::Publish, n);
        shard.publishes.add(PublishOutcome::Accepted, 1);
        shard.publish_latency.observe(Duration::from_micros(30 * n));
        shard.beat_ms.set(10_000 - n * 1_000);
    }
    let services = node.services();
    services.metrics.edge.authorizer.add(AuthorizerOutcome::Busy, 2);
    services.metrics.edge.revocations.add(RevokeOutcome::Full, 1);
    let text = exporter(&node).render();
    assert_eq!(value(&text, r#"roomkeeper_authorizer_answers_total{outcome="busy"}"#), 2.0);
    assert_eq!(value(&text, r#"roomkeeper_revocation_orders_total{outcome="full"}"#), 1.0);
    assert_eq!(value(&text, "roomkeeper_revocations"), 12.0);
    assert_eq!(value(&text, "roomkeeper_spent_tokens"), 13.0);
    assert_eq!(value(&text, "roomkeeper_connections"), 5.0);
    assert_eq!(value(&text, "roomkeeper_connections_opened_total"), 7.0);
    let closed = r#"roomkeeper_connections_closed_total{reason="slow_consumer"}"#;
    assert_eq!(value(&text, closed), 2.0);
    assert_eq!(value(&text, r#"roomkeeper_commands_total{type="publish"}"#), 7.0);
    assert_eq!(value(&text, "roomkeeper_publish_duration_seconds_count"), 2.0);
    let below = r#"roomkeeper_publish_duration_seconds_bucket{le="0.0001"}"#;
    assert_eq!(value(&text, below), 1.0);
    let all = r#"roomkeeper_publish_duration_seconds_bucket{le="+Inf"}"#;
    assert_eq!(value(&text, all), 2.0);
    assert_eq!(value(&text, r#"roomkeeper_worker_silence_seconds{worker="1"}"#), 4.0);
    assert_eq!(value(&text, "roomkeeper_waiting_bytes"), 7.0);
    assert_eq!(value(&text, "roomkeeper_lost_lines_total"), 3.0);
    assert_eq!(value(&text, r#"roomkeeper_build_info{version="1.2.3"}"#), 1.0);
    assert!(value(&text, "process_resident_memory_bytes") > 0.0);
    assert!(value(&text, "process_open_fds") > 0.0);
}

/// The form that Prometheus reads: each metric described once, before its values, and every
/// value a number.
#[test]
fn every_series_is_described_once_before_its_values() {
    let text = exporter(&node(2)).render();
    let mut described: Vec<(&str, &str)> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(described.iter().all(|(known, _)| *known != name), "{name} comes twice");
            described.push((name, kind));
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let (base, kind) = described.last().unwrap();
            let suffixes: &[&str] =
                if *kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.iter().any(|s| name == format!("{base}{s}")), "{name} under {base}");
            let (_, number) = line.rsplit_once(' ').unwrap();
            assert!(number.parse::<f64>().is_ok(), "{line}");
        }
    }
    assert!(described.len() > 40, "{described:?}");
    for (name, kind) in described {
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
    }
}

#[test]
fn with_as_many_workers_as_there_may_be_a_scrape_stays_below_a_mebibyte() {
    let node = node(1_024);
    for shard in &node.services().metrics.shards {
        shard.opened.add(u64::MAX / 2_048);
        shard.beat_ms.set(1);
        for code in CloseCode::ROWS {
            shard.closed.add(*code, u64::MAX / 65_536);
        }
    }
    let bytes = exporter(&node).render().len();
    assert!(bytes < 1 << 20, "{bytes}");
}
