//! The storm: many clients in many rooms, some of which keep losing their connection; in the end
//! everybody holds every message of their room once and in order.

use std::time::Duration;

use serde_json::Value;
use tests::foreign::{Tool, node_within, python_within, require};
use tests::server::Server;

use crate::client::PATH;

const DEADLINE: Duration = Duration::from_secs(150);

fn assert_clean(report: &str, drops_min: u64) {
    let report: Value = serde_json::from_str(report.trim()).unwrap();
    assert_eq!(report["violations"], Value::Array(Vec::new()), "{report}");
    assert!(report["drops"].as_u64().unwrap() >= drops_min, "{report}");
    assert!(report["recovered"].as_u64().unwrap() > 0, "{report}");
}

#[test]
fn two_hundred_clients_of_node_hold_ten_thousand_messages_while_one_in_ten_keeps_dropping() {
    if !require(Tool::Node) {
        return;
    }
    let server = Server::start(&[]);
    let url = server.ws(PATH);
    let size = ["--clients", "200", "--rooms", "20", "--messages", "10000", "--drop", "0.1"];
    let report = node_within(DEADLINE, "storm.mjs", &[&["--url", &url], &size[..]].concat());
    assert_clean(&report, 20);
}

#[test]
fn forty_clients_of_python_hold_every_message_while_one_in_ten_keeps_dropping() {
    if !require(Tool::Python) {
        return;
    }
    let server = Server::start(&[]);
    let url = server.ws(PATH);
    let size = ["--clients", "40", "--rooms", "4", "--messages", "1000", "--drop", "0.1"];
    let report = python_within(DEADLINE, "storm.py", &[&["--url", &url], &size[..]].concat());
    assert_clean(&report, 4);
}

#[test]
fn the_storm_over_durable_rooms_loses_nothing_either() {
    if !require(Tool::Node) {
        return;
    }
    let server = Server::start_durable(&["--set", "namespaces.public.durable=true"]);
    let url = server.ws(PATH);
    let size = ["--clients", "60", "--rooms", "6", "--messages", "2000", "--drop", "0.2"];
    let report = node_within(DEADLINE, "storm.mjs", &[&["--url", &url], &size[..]].concat());
    assert_clean(&report, 12);
}
