//! The example as a process, talked to by clients that others wrote.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed step of a test stops the test, with words"
)]

use std::process::Command;
use std::time::Duration;

use tests::foreign::{Tool, node, python, require};
use tests::process::Process;

const DEADLINE: Duration = Duration::from_secs(30);

#[test]
fn clients_of_node_and_python_talk_over_it_and_it_ends_in_order() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bare_tcp"));
    command.arg("127.0.0.1:0");
    let mut process = Process::start(command);
    let line = process.next_line(DEADLINE).expect("it says where it listens");
    let addr = line.strip_prefix("listening on http://").expect("an address");
    let url = format!("ws://{addr}/ws/v2/connect");
    if require(Tool::Node) {
        let said = node("first_message.mjs", &["--url", &url, "--text", "over bare TCP"]);
        assert!(said.contains("over bare TCP"), "{said}");
    }
    if require(Tool::Python) {
        let said = python("first_message.py", &["--url", &url, "--text", "over bare TCP"]);
        assert!(said.contains("over bare TCP"), "{said}");
    }
    process.terminate();
    assert_eq!(process.wait(DEADLINE).code, Some(0), "{}", process.report());
}
