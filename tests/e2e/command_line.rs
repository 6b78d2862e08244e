//! The first message with nothing but the binary: one terminal subscribes, another publishes.

use std::process::Command;

use serde_json::{Value, json};
use tests::leaks::said;
use tests::process::Process;
use tests::server::{Server, command, exit_of_with};

use crate::client::{Client, PATH, SOON, secret};

/// `roomkeeper` with these words, for the server at this address.
fn roomkeeper(server: &Server, words: &[&str]) -> Process {
    let mut command: Command = command();
    command.args(words).env("ROOMKEEPER_URL", server.ws(PATH));
    Process::start(command)
}

/// The lines up to the first of this type.
fn line_of(process: &mut Process, kind: &str) -> Value {
    loop {
        let line = process.next_line(SOON).expect("it goes on");
        let value: Value = serde_json::from_str(&line).expect("each line is JSON");
        if value["type"] == kind {
            return value;
        }
    }
}

#[test]
fn what_one_terminal_publishes_another_that_subscribed_prints() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path().to_str().unwrap();
    let server = Server::start(&["--profile", "development", "--data-dir", data]);
    let mut watching = roomkeeper(&server, &["subscribe", "public:lobby", "--count", "2"]);
    line_of(&mut watching, "subscribed");
    let mut saying =
        roomkeeper(&server, &["publish", "public:lobby", said("\"hello from a terminal\"")]);
    let said = saying.wait(SOON);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let ack: Value = serde_json::from_str(said.stdout.trim()).unwrap();
    assert_eq!((&ack["offset"], &ack["room"]), (&json!(1), &json!("public:lobby")));
    let message = line_of(&mut watching, "message");
    assert_eq!(
        (&message["data"], &message["offset"]),
        (&json!("hello from a terminal"), &json!(1))
    );
    Client::open(&server).publish("public:lobby", "from elsewhere");
    let exit = watching.wait(SOON);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(exit.stdout.contains("from elsewhere"), "{}", exit.stdout);
}

#[test]
fn a_terminal_prints_what_its_filter_or_its_pattern_chooses() {
    let mut server = Server::start_durable(&["--set", "namespaces.public.patterns=true"]);
    let filter = r#"{"eq":{"lang":"de"}}"#;
    let mut choosing =
        roomkeeper(&server, &["subscribe", "public:news", "--filter", filter, "--count", "2"]);
    line_of(&mut choosing, "subscribed");
    let mut following =
        roomkeeper(&server, &["subscribe", "--pattern", "public:*", "--count", "3"]);
    assert_eq!(line_of(&mut following, "following")["pattern"], "public:*");
    let say = |server: &Server, room: &str, data: &str, tags: &[&str]| {
        let tags = tags.iter().flat_map(|tag| ["--tag", *tag]);
        let words: Vec<_> = ["publish", room, data].into_iter().chain(tags).collect();
        let exit = roomkeeper(server, &words).wait(SOON);
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    };
    say(&server, "public:news", "\"eins\"", &["lang=de", "kind=a"]);
    say(&server, "public:news", "\"one\"", &["lang=en"]);
    assert_eq!(line_of(&mut choosing, "message")["data"], "eins");
    for data in ["eins", "one"] {
        let message = line_of(&mut following, "message");
        assert_eq!((&message["data"], &message["pattern"]), (&json!(data), &json!("public:*")));
    }
    server.kill();
    assert_eq!(line_of(&mut following, "pattern_ended")["code"], Value::Null);
    server.restart();
    assert_eq!(line_of(&mut following, "following")["pattern"], "public:*");
    line_of(&mut choosing, "subscribed");
    say(&server, "public:other", "\"zwei\"", &["lang=de"]);
    say(&server, "public:news", "\"drei\"", &["lang=de"]);
    let message = line_of(&mut following, "message");
    assert_eq!((&message["data"], &message["room"]), (&json!("zwei"), &json!("public:other")));
    assert_eq!(line_of(&mut choosing, "message")["data"], "drei");
    for terminal in [&mut choosing, &mut following] {
        assert_eq!(terminal.wait(SOON).code, Some(0));
    }
    let closed = Server::start(&[]);
    let exit = roomkeeper(&closed, &["subscribe", "--pattern", "public:*"]).wait(SOON);
    assert_eq!(exit.code, Some(1));
    assert!(exit.stderr.contains("can't follow public:*"), "{}", exit.stderr);
}

#[test]
fn a_terminal_that_subscribed_gets_what_came_while_the_server_was_killed() {
    let mut server = Server::start_durable(&["--set", "namespaces.public.durable=true"]);
    let mut watching = roomkeeper(&server, &["subscribe", "public:lobby", "--count", "3"]);
    line_of(&mut watching, "subscribed");
    Client::open(&server).publish("public:lobby", 1);
    assert_eq!(line_of(&mut watching, "message")["data"], 1);
    server.kill();
    server.restart();
    let mut ann = Client::open(&server);
    ann.publish("public:lobby", 2);
    ann.publish("public:lobby", 3);
    for n in 2..=3 {
        let message = line_of(&mut watching, "message");
        assert_eq!((&message["data"], &message["offset"]), (&json!(n), &json!(n)));
    }
    assert_eq!(watching.wait(SOON).code, Some(0));
}

#[test]
fn a_terminal_without_a_server_or_without_the_right_says_why() {
    let nowhere = [("ROOMKEEPER_URL", "ws://127.0.0.1:9/ws/v2/connect")];
    let (code, stdout, stderr) = exit_of_with(&["publish", "public:lobby", "1"], &nowhere);
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(stderr.contains("127.0.0.1:9"), "{stderr}");
    let server = Server::start(&["--set", &secret()]);
    let mut denied = roomkeeper(&server, &["publish", "chat:private", "1"]);
    let exit = denied.wait(SOON);
    assert_eq!((exit.code, exit.stdout.as_str()), (Some(1), ""), "{}", exit.stderr);
    assert!(exit.stderr.contains("not allowed"), "{}", exit.stderr);
    let mut nonsense = roomkeeper(&server, &["publish", "nowhere", "1"]);
    let exit = nonsense.wait(SOON);
    assert_ne!(exit.code, Some(0));
    assert!(exit.stderr.contains("nowhere"), "{}", exit.stderr);
}

#[test]
fn a_server_is_healthy_where_its_settings_say_that_it_listens_until_it_ends() {
    let mut server = Server::start(&[]);
    let listen = server.addr().to_string();
    let asked = ["health", "--listen", listen.as_str()];
    assert_eq!(exit_of_with(&asked, &[]), (Some(0), "ok\n".to_owned(), String::new()));
    let url = server.http("/healthz");
    assert_eq!(exit_of_with(&["health", "--url", &url], &[]).0, Some(0));
    let nowhere = server.http("/nowhere");
    let (code, _, stderr) = exit_of_with(&["health", "--url", &nowhere], &[]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("answers 404"), "{stderr}");
    server.kill();
    assert_eq!(exit_of_with(&asked, &[]).0, Some(1));
}
