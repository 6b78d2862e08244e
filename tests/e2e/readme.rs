//! Who reads only the README can run the server behind nginx with tokens of its own: its settings, and the
//! signing that it points to, are taken from the documents as they stand there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use tests::foreign::{Tool, interpreter, node, node_modules, require};
use tests::process::Process;
use tests::server::Server;

use crate::client::{PATH, SOON};
use crate::first_message::newcomers_server;
use crate::nginx::nginx;

const SECRET: &str = "c2lnbmVkIGJ5IGEgYmFja2VuZCBhbmQgbm9ib2R5IGVsc2U=";
const GRANTS: &str = r#"[{"pattern": "chat:guild/7", "allow": ["subscribe", "publish"]}]"#;

/// The first block in this language behind a heading of a document.
fn block(document: &str, heading: &str, language: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document);
    let text = fs::read_to_string(&path).unwrap();
    let (_, behind) = text.split_once(&format!("\n## {heading}\n")).expect("the heading");
    let (_, behind) = behind.split_once(&format!("```{language}\n")).expect("the block");
    behind.split_once("```").expect("its end").0.to_owned()
}

/// Runs a program of one line and more, and answers what it printed.
fn printed(program: &str, flags: &[&str], text: &str) -> String {
    let mut command = Command::new(program);
    command.args(flags).arg(text);
    let mut process = Process::start(command);
    let exit = process.wait(SOON);
    assert_eq!(exit.code, Some(0), "{}", process.report());
    exit.stdout.trim_end().to_owned()
}

fn signed_in_node(user: &str) -> String {
    let signing = block("docs/tokens.md", "Make one", "js");
    let call = format!("process.stdout.write(token({SECRET:?}, {user:?}, {GRANTS}));");
    printed("node", &["--input-type=module", "--eval"], &format!("{signing}\n{call}"))
}

fn signed_in_python(user: &str) -> String {
    let signing = block("docs/tokens.md", "Make one", "python");
    let call = format!("print(token({SECRET:?}, {user:?}, {GRANTS}), end=\"\")");
    printed("python3", &["-c"], &format!("{signing}\n{call}"))
}

/// The settings of the README, with files of their own and any port.
fn settings(folder: &Path) -> String {
    let mut text = block("README.md", "Behind nginx, with your own tokens", "toml");
    let folder = folder.display();
    for (from, to) in [
        ("127.0.0.1:8000", "127.0.0.1:0".to_owned()),
        ("/etc/roomkeeper", format!("{folder}/etc")),
        ("/var/lib/roomkeeper", format!("{folder}/data")),
    ] {
        assert!(text.contains(from), "{from} is missing in {text}");
        text = text.replace(from, &to);
    }
    text
}

/// Runs a program of the README against a server that was started as it says there.
fn first_message(tool: Tool, language: &str, name: &str) {
    if !require(tool) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = newcomers_server(&folder);
    let text = block("README.md", "A first message", language);
    assert!(text.contains("127.0.0.1:8000"), "{text}");
    let path = folder.path().join(name);
    fs::write(&path, text.replace("127.0.0.1:8000", &server.addr().to_string())).unwrap();
    // `npm install ws` beside it.
    std::os::unix::fs::symlink(node_modules(), folder.path().join("node_modules")).unwrap();
    let mut command = interpreter(tool);
    command.arg(path);
    let mut process = Process::start(command);
    let exit = process.wait(SOON);
    assert_eq!(exit.code, Some(0), "{}", process.report());
    let said = format!("hello from {language}").replace("from js", "from node");
    assert!(exit.stdout.contains(&said), "{}", exit.stdout);
}

#[test]
fn the_first_message_in_node_is_sent_and_heard_as_it_stands_in_the_readme() {
    first_message(Tool::Node, "js", "first.mjs");
}

#[test]
fn the_first_message_in_python_is_sent_and_heard_as_it_stands_in_the_readme() {
    first_message(Tool::Python, "python", "first.py");
}

#[test]
fn who_reads_only_the_readme_has_a_server_behind_nginx_with_tokens_of_its_own() {
    if !(require(Tool::Nginx) && require(Tool::Node) && require(Tool::Python)) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("etc")).unwrap();
    let secret = folder.path().join("etc/hmac-secret");
    fs::write(&secret, format!("{SECRET}\n")).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let config = folder.path().join("etc/roomkeeper.toml");
    fs::write(&config, settings(folder.path())).unwrap();
    let config = config.display().to_string();
    let server = Server::start(&["--profile", "production", "--config", &config]);
    let proxy = nginx(&server);

    let (url, ca) = (proxy.url("wss", PATH), proxy.certificate.ca());
    for token in [signed_in_node("ann"), signed_in_python("bob")] {
        let client = ["--url", &url, "--ca", &ca, "--room", "chat:guild/7", "--token", &token];
        let frames = node("first_message.mjs", &client);
        assert!(frames.contains(r#""type":"message""#), "{frames}");
    }
    // A page of somebody else is not let in, whatever it has in hand.
    let bearer = format!("Authorization: Bearer {}", signed_in_node("ann"));
    for (origin, answer) in [("https://game.example.com", "101"), ("https://evil.example", "403")] {
        let origin = format!("Origin: {origin}");
        let headers = ["--header", &origin, "--header", &bearer];
        let (status, _held) = proxy.upgrade_from("127.0.0.9", &headers);
        assert_eq!(status, answer, "{origin}");
    }
}
