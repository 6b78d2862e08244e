//! The alert rules of `deploy/`, read and evaluated by Prometheus' own tool: each fires on what it is for, with words
//! that name the node, and is silent just below it.
//!
//! Whether their metrics are there is asked in `observe`; no server is started here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tests::skips::has_tool;

/// The node that all samples are of.
const INSTANCE: &str = "a:1";
/// When it is asked what fires: behind every `for` and the longest range.
const ASKED_AT: &str = "70m";

/// A metric with its labels but `instance`, and its samples, one a minute: `a+bxn` is `a`, and `n` more, each larger
/// by `b`.
type Series = (&'static str, &'static str);

/// One rule, and samples on both sides of its threshold.
#[derive(Clone, Copy)]
struct Row {
    alert: &'static str,
    /// Labels of what fires beside `instance` and `severity`.
    labels: &'static [(&'static str, &'static str)],
    fires: &'static [Series],
    silent: &'static [Series],
}

const fn row(alert: &'static str, fires: &'static [Series], silent: &'static [Series]) -> Row {
    Row { alert, labels: &[], fires, silent }
}

const fn labelled(row: Row, labels: &'static [(&'static str, &'static str)]) -> Row {
    Row { labels, ..row }
}

const LOAD: &[Row] = &[
    row("RoomkeeperNotReady", &[("roomkeeper_ready", "0+0x90")], &[("roomkeeper_ready", "1+0x90")]),
    row(
        "RoomkeeperWorkerSilent",
        &[
            ("roomkeeper_worker_silence_seconds{worker=\"0\"}", "0.1+0x90"),
            ("roomkeeper_worker_silence_seconds{worker=\"1\"}", "0.1+0x69 6+60x20"),
        ],
        &[
            ("roomkeeper_worker_silence_seconds{worker=\"0\"}", "4+0x90"),
            ("roomkeeper_worker_silence_seconds{worker=\"1\"}", "4+0x90"),
        ],
    ),
    row(
        "RoomkeeperLoopLag",
        &[
            ("roomkeeper_loop_lag_seconds_bucket{le=\"0.1\"}", "0+97x90"),
            ("roomkeeper_loop_lag_seconds_bucket{le=\"0.25\"}", "0+100x90"),
            ("roomkeeper_loop_lag_seconds_bucket{le=\"+Inf\"}", "0+100x90"),
        ],
        &[
            ("roomkeeper_loop_lag_seconds_bucket{le=\"0.05\"}", "0+90x90"),
            ("roomkeeper_loop_lag_seconds_bucket{le=\"0.1\"}", "0+100x90"),
            ("roomkeeper_loop_lag_seconds_bucket{le=\"+Inf\"}", "0+100x90"),
        ],
    ),
    row(
        "RoomkeeperDescriptorsNearLimit",
        &[("process_open_fds", "910+0x90"), ("process_max_fds", "1000+0x90")],
        &[("process_open_fds", "890+0x90"), ("process_max_fds", "1000+0x90")],
    ),
    row(
        "RoomkeeperMemoryShort",
        &[
            ("roomkeeper_memory_used_bytes", "860+0x90"),
            ("roomkeeper_memory_max_bytes", "1000+0x90"),
        ],
        // A node without a limit.
        &[("roomkeeper_memory_used_bytes", "860+0x90"), ("roomkeeper_memory_max_bytes", "0+0x90")],
    ),
    row(
        "RoomkeeperConnectionsNearLimit",
        &[("roomkeeper_sockets", "91+0x90"), ("roomkeeper_sockets_max", "100+0x90")],
        &[("roomkeeper_sockets", "89+0x90"), ("roomkeeper_sockets_max", "100+0x90")],
    ),
    row(
        "RoomkeeperConnectionsRefused",
        &[
            ("roomkeeper_connections_refused_total{reason=\"connection_limit\"}", "0+40x90"),
            ("roomkeeper_connections_refused_total{reason=\"descriptors\"}", "0+40x90"),
        ],
        &[
            ("roomkeeper_connections_refused_total{reason=\"connection_limit\"}", "0+40x90"),
            ("roomkeeper_connections_refused_total{reason=\"origin\"}", "0+4000x90"),
        ],
    ),
    row(
        "RoomkeeperQueueBudget",
        &[
            ("roomkeeper_outbound_queue_bytes", "81+0x90"),
            ("roomkeeper_outbound_queue_max_bytes", "100+0x90"),
        ],
        &[
            ("roomkeeper_outbound_queue_bytes", "79+0x90"),
            ("roomkeeper_outbound_queue_max_bytes", "100+0x90"),
        ],
    ),
    row(
        "RoomkeeperSlowConsumers",
        &[("roomkeeper_connections_closed_total{reason=\"slow_consumer\"}", "0+70x90")],
        &[
            ("roomkeeper_connections_closed_total{reason=\"slow_consumer\"}", "0+50x90"),
            ("roomkeeper_connections_closed_total{reason=\"no_pong\"}", "0+5000x90"),
        ],
    ),
    row(
        "RoomkeeperMailboxCrowded",
        &[
            ("roomkeeper_mailbox_messages{worker=\"0\"}", "0+0x90"),
            ("roomkeeper_mailbox_messages{worker=\"1\"}", "17000+0x90"),
        ],
        // Together above it, none alone.
        &[
            ("roomkeeper_mailbox_messages{worker=\"0\"}", "16000+0x90"),
            ("roomkeeper_mailbox_messages{worker=\"1\"}", "16000+0x90"),
        ],
    ),
    row(
        "RoomkeeperHoles",
        &[
            ("roomkeeper_holes_total{cause=\"mailbox\"}", "0+4x90"),
            ("roomkeeper_holes_total{cause=\"order\"}", "0+4x90"),
        ],
        &[("roomkeeper_holes_total{cause=\"mailbox\"}", "0+5x90")],
    ),
];

const KEEPING: &[Row] = &[
    row(
        "RoomkeeperGaps",
        &[
            ("roomkeeper_gaps_total{reason=\"retention\"}", "0+0x60 6+0x30"),
            ("roomkeeper_gaps_total{reason=\"overflow\"}", "0+0x60 6+0x30"),
        ],
        &[
            ("roomkeeper_gaps_total{reason=\"retention\"}", "0+0x60 6+0x30"),
            ("roomkeeper_gaps_total{reason=\"epoch_changed\"}", "0+100x90"),
        ],
    ),
    // One is enough.
    row(
        "RoomkeeperArchiveFailures",
        &[("roomkeeper_archive_failures_total", "0+0x66 1+0x30")],
        &[("roomkeeper_archive_failures_total", "0+0x50 1+0x40")],
    ),
    row(
        "RoomkeeperCommitSlow",
        &[
            ("roomkeeper_archive_commit_duration_seconds_bucket{le=\"0.5\"}", "0+97x90"),
            ("roomkeeper_archive_commit_duration_seconds_bucket{le=\"1.0\"}", "0+100x90"),
            ("roomkeeper_archive_commit_duration_seconds_bucket{le=\"+Inf\"}", "0+100x90"),
        ],
        &[
            ("roomkeeper_archive_commit_duration_seconds_bucket{le=\"0.5\"}", "0+100x90"),
            ("roomkeeper_archive_commit_duration_seconds_bucket{le=\"1.0\"}", "0+100x90"),
            ("roomkeeper_archive_commit_duration_seconds_bucket{le=\"+Inf\"}", "0+100x90"),
        ],
    ),
    // All of them longer than the last bucket that has an end.
    row(
        "RoomkeeperPublishSlow",
        &[
            ("roomkeeper_publish_duration_seconds_bucket{le=\"1.0\"}", "0+0x90"),
            ("roomkeeper_publish_duration_seconds_bucket{le=\"5.0\"}", "0+0x90"),
            ("roomkeeper_publish_duration_seconds_bucket{le=\"+Inf\"}", "0+100x90"),
        ],
        &[
            ("roomkeeper_publish_duration_seconds_bucket{le=\"1.0\"}", "0+100x90"),
            ("roomkeeper_publish_duration_seconds_bucket{le=\"5.0\"}", "0+100x90"),
            ("roomkeeper_publish_duration_seconds_bucket{le=\"+Inf\"}", "0+100x90"),
        ],
    ),
    row(
        "RoomkeeperPanics",
        &[("roomkeeper_calls_panicked_total", "0+0x60 1+0x30")],
        &[("roomkeeper_calls_panicked_total", "0+0x5 1+0x85")],
    ),
    row(
        "RoomkeeperLogLinesLost",
        &[("roomkeeper_log_lines_lost_total", "0+0x66 1+0x30")],
        &[("roomkeeper_log_lines_lost_total", "0+0x50 1+0x40")],
    ),
];

const TRUST: &[Row] = &[
    row(
        "RoomkeeperAuthenticationFailures",
        &[
            ("roomkeeper_token_verifications_total{outcome=\"signature\"}", "0+200x90"),
            ("roomkeeper_token_verifications_total{outcome=\"unknown_key\"}", "0+200x90"),
        ],
        &[
            ("roomkeeper_token_verifications_total{outcome=\"signature\"}", "0+200x90"),
            ("roomkeeper_token_verifications_total{outcome=\"accepted\"}", "0+20000x90"),
            ("roomkeeper_token_verifications_total{outcome=\"expired\"}", "0+20000x90"),
        ],
    ),
    row(
        "RoomkeeperTokenKeysAge",
        &[("roomkeeper_jwks_keys_left_seconds", "590+0x90")],
        &[("roomkeeper_jwks_keys_left_seconds", "610+0x90")],
    ),
    row(
        "RoomkeeperAuthorizerSilent",
        &[
            ("roomkeeper_authorizer_answers_total{outcome=\"timeout\"}", "0+40x90"),
            ("roomkeeper_authorizer_answers_total{outcome=\"busy\"}", "0+40x90"),
        ],
        &[
            ("roomkeeper_authorizer_answers_total{outcome=\"timeout\"}", "0+40x90"),
            ("roomkeeper_authorizer_answers_total{outcome=\"denied\"}", "0+4000x90"),
        ],
    ),
    labelled(
        row(
            "RoomkeeperRevocationsNotKept",
            &[
                ("roomkeeper_revocation_orders_total{outcome=\"kept\"}", "0+9x90"),
                ("roomkeeper_revocation_orders_total{outcome=\"not_stored\"}", "0+0x66 1+0x30"),
                ("roomkeeper_revocations", "1000+0x90"),
            ],
            &[
                ("roomkeeper_revocation_orders_total{outcome=\"kept\"}", "0+9x90"),
                ("roomkeeper_revocation_orders_total{outcome=\"not_stored\"}", "0+0x90"),
                ("roomkeeper_revocations", "79000+0x90"),
            ],
        ),
        &[("outcome", "not_stored")],
    ),
    // Its other half.
    row("RoomkeeperRevocationsNotKept", &[("roomkeeper_revocations", "80001+0x90")], &[]),
    row(
        "RoomkeeperApiKeysRefused",
        &[("roomkeeper_security_events_total{event=\"api_key_refused\"}", "0+70x90")],
        &[
            ("roomkeeper_security_events_total{event=\"api_key_refused\"}", "0+50x90"),
            ("roomkeeper_security_events_total{event=\"rate_limited\"}", "0+5000x90"),
        ],
    ),
];

/// A rule as the file has it.
struct Rule<'a> {
    alert: &'a str,
    severity: &'a str,
    summary: &'a str,
    action: &'a str,
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/alerts.yml").canonicalize().unwrap()
}

/// What stands between two words, which have to be there.
fn between<'a>(text: &'a str, before: &str, behind: &str) -> &'a str {
    let found = text.split_once(before).and_then(|(_, rest)| rest.split_once(behind));
    found.unwrap_or_else(|| panic!("no {before}…{behind} in {text}")).0
}

fn rules(text: &str) -> Vec<Rule<'_>> {
    let rules = text.split("- alert: ").skip(1);
    let read = |rule| Rule {
        alert: str::lines(rule).next().unwrap(),
        severity: between(rule, "severity: ", " }"),
        summary: between(rule, "summary: \"", "\"\n"),
        action: between(rule, "action: \"", "\"\n"),
    };
    rules.map(read).collect()
}

fn series((metric, values): &Series) -> Value {
    let (name, labels) = metric.split_once('{').unwrap_or((metric, "}"));
    json!({"series": format!("{name}{{instance=\"{INSTANCE}\",{labels}"), "values": values})
}

/// A story for the tool: with these samples this is what the rule says.
fn story(rule: &Rule<'_>, samples: &[Series], expected: &[Value]) -> Value {
    json!({
        "name": format!("{} on {samples:?}", rule.alert),
        "interval": "1m",
        "input_series": samples.iter().map(series).collect::<Vec<_>>(),
        "alert_rule_test":
            [{"eval_time": ASKED_AT, "alertname": rule.alert, "exp_alerts": expected}],
    })
}

fn stories(rule: &Rule<'_>, row: &Row) -> [Value; 2] {
    let mut labels = json!({"instance": INSTANCE, "severity": rule.severity});
    for (name, value) in row.labels {
        labels[name] = json!(value);
    }
    let summary = rule.summary.replace("{{ $labels.instance }}", INSTANCE);
    assert!(summary.contains(INSTANCE), "{} does not name the node", rule.alert);
    let fired = json!({
        "exp_labels": labels,
        "exp_annotations": {"summary": summary, "action": rule.action},
    });
    [story(rule, row.fires, &[fired]), story(rule, row.silent, &[])]
}

fn promtool(words: &[&str], file: &Path) {
    let output = Command::new("promtool").args(words).arg(file).output().expect("promtool runs");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn prometheus_takes_the_rules() {
    if has_tool("promtool", "--version") {
        promtool(&["check", "rules", "--lint=all", "--lint-fatal"], &file());
    }
}

#[test]
fn each_alert_fires_on_what_it_is_for_and_is_silent_otherwise() {
    let text = fs::read_to_string(file()).unwrap();
    let rules = rules(&text);
    let rows = || [LOAD, KEEPING, TRUST].into_iter().flatten();
    let known = |alert: &str| rules.iter().any(|rule| rule.alert == alert);
    assert!(rows().all(|row| known(row.alert)), "a row is of no rule");
    let mut told = Vec::new();
    for rule in &rules {
        let of_rule: Vec<_> = rows().filter(|row| row.alert == rule.alert).collect();
        assert!(!of_rule.is_empty(), "{} has no row with samples: add one", rule.alert);
        told.extend(of_rule.into_iter().flat_map(|row| stories(rule, row)));
    }
    if !has_tool("promtool", "--version") {
        return;
    }
    // JSON is YAML.
    let stories = json!({"rule_files": [file()], "evaluation_interval": "1m", "tests": told});
    let folder = tempfile::tempdir().unwrap();
    let stories_file = folder.path().join("stories.yml");
    fs::write(&stories_file, stories.to_string()).unwrap();
    promtool(&["test", "rules"], &stories_file);
}
