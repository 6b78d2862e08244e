//! A newcomer's first minutes: the server, then a client in a language of one's own.

use serde_json::Value;
use tests::foreign::{Tool, node, python, require};
use tests::leaks;
use tests::server::Server;

use crate::client::{Client, PATH};

/// In the profile that a plain start has, with nothing else configured.
pub(crate) fn newcomers_server(data: &tempfile::TempDir) -> Server {
    let data = data.path().to_str().unwrap();
    Server::start(&["--profile", "development", "--data-dir", data])
}

fn assert_first_message(lines: &str, text: &str) {
    let frames = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let frames = frames.collect::<Vec<_>>();
    assert_eq!(frames[0]["type"], "hello");
    assert_eq!(frames[0]["user_id"], Value::Null);
    assert_eq!(frames[1]["type"], "subscribed");
    let message = frames.iter().find(|frame| frame["type"] == "message").expect("the message");
    assert_eq!(message["data"]["text"], text);
    // What a client of another language says is known to whoever searches the server's log.
    assert!(leaks::find(&format!("INFO {text}")).is_some(), "{text}");
    let ack = frames.iter().find(|frame| frame["type"] == "ack");
    if let Some(ack) = ack {
        assert_eq!((&ack["offset"], &ack["epoch"]), (&message["offset"], &message["epoch"]));
    }
}

#[test]
fn a_first_message_goes_through_the_ws_library_of_node_without_a_token() {
    if !require(Tool::Node) {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let server = newcomers_server(&data);
    let lines = node("first_message.mjs", &["--url", &server.ws(PATH), "--text", "hi there"]);
    assert_first_message(&lines, "hi there");
}

#[test]
fn a_first_message_goes_through_the_websockets_library_of_python_without_a_token() {
    if !require(Tool::Python) {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let server = newcomers_server(&data);
    let lines = python("first_message.py", &["--url", &server.ws(PATH), "--text", "grüße an alle"]);
    assert_first_message(&lines, "grüße an alle");
}

#[test]
fn node_and_python_read_each_other_in_one_room() {
    if !require(Tool::Node) || !require(Tool::Python) {
        return;
    }
    let server = Server::start(&[]);
    let mut watcher = Client::open(&server);
    watcher.subscribe("public:hello");
    let url = server.ws(PATH);
    let _ = node("first_message.mjs", &["--url", &url, "--text", "first of two"]);
    let _ = python("first_message.py", &["--url", &url, "--text", "second of two"]);
    let messages = watcher.messages(2);
    assert_eq!(messages[0]["data"]["text"], "first of two");
    assert_eq!(messages[1]["data"]["text"], "second of two");
    assert_eq!(messages[1]["offset"], 2);
}

#[test]
fn data_of_every_shape_comes_back_byte_for_byte_whole_or_in_fragments() {
    if !require(Tool::Node) {
        return;
    }
    let server = Server::start(&[]);
    let lines = node("echo.mjs", &["--url", &server.ws(PATH)]);
    assert!(lines.lines().count() > 10, "{lines}");
}
