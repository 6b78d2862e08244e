//! SIGHUP: what may change changes in the running server, connections stay, and a mistake changes
//! nothing.

use std::fs;
use std::path::PathBuf;

use serde_json::json;
use tests::foreign::{Tool, python, require};
use tests::raw::RawSocket;
use tests::server::{Server, command};
use tests::token;

use crate::client::{Client, PATH, until};
use crate::http::ask;

const KEY: &str = "0f3c9a7be2d84615a0c7d9e8b1f24653";
const OTHER_KEY: &str = "7c1e5d90ab3f42868e6f0d1c2b3a4957";

struct Configured {
    server: Server,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Configured {
    fn start(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("roomkeeper.toml");
        fs::write(&file, text).unwrap();
        let server = Server::start(&["--config", file.to_str().unwrap()]);
        Self { server, file, _folder: folder }
    }

    /// Writes the file anew, asks for a reload, and waits until the log says this.
    fn reload(&mut self, text: &str, said: &str) {
        fs::write(&self.file, text).unwrap();
        let before = self.server.log().matches(said).count();
        self.server.hang_up();
        until(said, || (self.server.log().matches(said).count() > before).then_some(()));
    }
}

const RELOADED: &str = "the settings were reloaded";
const REFUSED: &str = "the settings were not reloaded";

fn rooms(max: u32) -> String {
    format!("limits.rooms_per_connection_max = {max}\n")
}

#[test]
fn limits_count_for_who_is_there_and_nobody_is_disconnected() {
    let mut it = Configured::start(&rooms(2));
    let mut ann = Client::open(&it.server);
    ann.subscribe("public:a");
    ann.subscribe("public:b");
    let subscribe = json!({"type": "subscribe", "room": "public:c"});
    assert_eq!(ann.call(subscribe.clone())["code"], 107);
    it.reload(&rooms(3), RELOADED);
    assert_eq!(ann.call(subscribe)["type"], "subscribed");
    assert!(it.server.log().contains("limits.rooms_per_connection_max"), "{}", it.server.log());
    it.reload(&format!("{}limits.message_bytes_max = 5_000\n", rooms(3)), RELOADED);
    ann.publish("public:a", "still here");
    let too_large = "x".repeat(6_000);
    ann.send(&json!({"type": "publish", "id": 99, "room": "public:a", "data": too_large}));
    assert_eq!(ann.socket.read_close_code(), 1009);
}

fn status_of(server: &Server, origin: &str) -> String {
    let mut socket = RawSocket::connect(server.addr());
    let head = socket.upgrade(PATH, &[("Origin", origin)]);
    head.split(' ').nth(1).unwrap().to_owned()
}

fn publish_status(server: &Server, key: &str) -> u16 {
    let authorization = format!("Bearer {key}");
    let headers = [("Authorization", authorization.as_str())];
    let body = r#"{"room":"public:a","data":1}"#;
    ask(server.addr(), "POST", "/api/v1/publish", &headers, body).status
}

#[test]
fn origins_api_keys_and_the_log_level_change_for_what_comes() {
    let with = |origin: &str, key: &str, filter: &str| {
        format!(
            "[server]\nallowed_origins = [\"{origin}\"]\n[api.keys.backend]\nkey = \"{key}\"\n\
             [log]\nfilter = \"{filter}\"\n"
        )
    };
    let mut it = Configured::start(&with("https://a.example", KEY, "warn"));
    assert_eq!(status_of(&it.server, "https://a.example"), "101");
    assert_eq!(status_of(&it.server, "https://b.example"), "403");
    assert_eq!(publish_status(&it.server, KEY), 200);
    assert!(!it.server.log().contains(" INFO "), "{}", it.server.log());
    it.reload(&with("https://b.example", OTHER_KEY, "info"), RELOADED);
    assert_eq!(status_of(&it.server, "https://a.example"), "403");
    assert_eq!(status_of(&it.server, "https://b.example"), "101");
    assert_eq!(publish_status(&it.server, KEY), 401);
    assert_eq!(publish_status(&it.server, OTHER_KEY), 200);
    let log = it.server.log();
    for key in ["server.allowed_origins", "api.keys.backend.key", "log.filter"] {
        assert!(log.contains(&format!("key={key}")), "{key} is missing in {log}");
    }
    assert!(!log.contains(KEY) && !log.contains(OTHER_KEY), "{log}");
}

#[test]
fn who_is_in_stays_when_the_token_key_changes_and_the_next_needs_the_new_one() {
    let other_secret = "another-secret-of-the-tests-that-is-long-enough";
    let with = |secret: &str| format!("[auth]\nhmac_secret = \"{secret}\"\n");
    let claims = token::claims("ann", "chat:*");
    let path = |secret: &str| format!("{PATH}?token={}", token::hs256(secret, &claims));
    let mut it = Configured::start(&with(token::SECRET));
    let addr = it.server.addr();
    let mut ann = Client::open_at(addr, &path(token::SECRET));
    ann.subscribe("chat:a");
    it.reload(&with(other_secret), RELOADED);
    assert_eq!(ann.publish("chat:a", 1)["type"], "ack");
    assert_eq!(RawSocket::open(addr, &path(token::SECRET)).read_close_code(), 3500);
    Client::open_at(addr, &path(other_secret)).subscribe("chat:a");
    assert!(!it.server.log().contains(other_secret));
}

/// C06. N14: a file that was cut in the middle of a line, or is gone.
#[test]
fn a_file_with_a_mistake_changes_nothing_and_each_mistake_is_logged() {
    let mut it = Configured::start(&rooms(2));
    let mut ann = Client::open(&it.server);
    ann.subscribe("public:a");
    let wrong = "limits.rooms_per_connection_max = 1\nlimits.comands_burst = 7\n";
    it.reload(wrong, REFUSED);
    let log = it.server.log();
    assert!(log.contains("limits.comands_burst") && log.contains("limits.commands_burst"), "{log}");
    assert!(log.contains("refused=1"), "{log}");
    ann.subscribe("public:b");
    for contradiction in ["limits.history_page = 5_000\n", "[server", "server.listen = 5\n"] {
        it.reload(contradiction, REFUSED);
    }
    assert!(it.server.log().contains("refused=4"), "{}", it.server.log());
    fs::remove_file(&it.file).unwrap();
    it.server.hang_up();
    until("a file that is gone", || it.server.log().contains("refused=5").then_some(()));
    ann.publish("public:b", "still here");
    it.reload(&rooms(3), RELOADED);
    ann.subscribe("public:c");
}

#[test]
fn what_needs_a_start_is_named_and_left_as_it_was() {
    let mut it = Configured::start(&rooms(2));
    let later = "server.echo_endpoint = false\nheartbeat.interval_ms = 5_000\n";
    it.reload(later, RELOADED);
    let log = it.server.log();
    for key in ["server.echo_endpoint", "heartbeat.interval_ms"] {
        let said = format!("{key} changed; takes effect at the next start");
        assert!(log.contains(&said), "{said} is missing in {log}");
    }
    assert_eq!(Client::open(&it.server).hello["heartbeat_interval_ms"], 25_000);
    // It is said each time until the start.
    it.reload(later, "heartbeat.interval_ms changed; takes effect");
}

#[test]
fn a_changed_ticket_secret_waits_for_the_next_start_and_other_keys_in_a_file_count_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (keys, tickets) = (folder.path().join("keys.json"), folder.path().join("tickets"));
    let other_secret = "another-secret-of-the-tests-that-is-long-enough";
    let write_keys = |secret: &str| {
        let keys_text = json!({"keys": [{"alg": ["HS256"], "secret": secret}]}).to_string();
        fs::write(&keys, keys_text).unwrap();
    };
    write_keys(token::SECRET);
    fs::write(&tickets, "the-first-secret-of-tickets-in-this-test").unwrap();
    let text = format!(
        "[auth]\nkeys_file = \"{}\"\nticket_secret_file = \"{}\"\n",
        keys.display(),
        tickets.display()
    );
    let mut it = Configured::start(&text);
    let path = |secret: &str| {
        format!("{PATH}?token={}", token::hs256(secret, &token::claims("ann", "chat:*")))
    };
    Client::open_at(it.server.addr(), &path(token::SECRET));
    it.reload(&text, "changed=0");
    let before = it.server.log();
    assert!(!before.contains("its keys are others") && !before.contains("next start"), "{before}");
    write_keys(other_secret);
    it.reload(&text, "changed=1");
    let log = it.server.log();
    assert!(log.contains("a setting changed, its keys are others key=auth.keys_file"), "{log}");
    Client::open_at(it.server.addr(), &path(other_secret));
    assert_eq!(RawSocket::open(it.server.addr(), &path(token::SECRET)).read_close_code(), 3500);
    let said = "auth.ticket_secret changed; takes effect at the next start";
    assert!(!it.server.log().contains(said), "{}", it.server.log());
    fs::write(&tickets, "the-second-secret-of-tickets-in-this-test").unwrap();
    it.reload(&text, said);
    // It is said each time until the start.
    it.reload(&text, said);
    let log = it.server.log();
    for secret in [other_secret, token::SECRET, "secret-of-tickets"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn production_stays_safe_over_a_reload() {
    let with = |origin: &str| {
        format!(
            "server.allowed_origins = [\"{origin}\"]\n\
             auth.allow_anonymous = true\nserver.data_dir = \"\"\n\
             namespaces.chat.durable = false\nlog.format = \"text\"\n"
        )
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("roomkeeper.toml");
    fs::write(&file, with("https://a.example")).unwrap();
    let arguments = ["--config", file.to_str().unwrap(), "--profile", "production"];
    let server = Server::start(&arguments);
    let mut it = Configured { server, file, _folder: folder };
    it.reload(&with("*"), REFUSED);
    assert_eq!(status_of(&it.server, "https://b.example"), "403");
    it.reload(&with("https://b.example"), RELOADED);
    assert_eq!(status_of(&it.server, "https://b.example"), "101");
    // A page of this machine is no friend in production.
    assert_eq!(status_of(&it.server, "http://localhost:3000"), "403");
}

#[test]
fn many_reloads_under_traffic_lose_nothing() {
    let mut it = Configured::start(&rooms(2));
    let (mut ann, mut bob) = (Client::open(&it.server), Client::open(&it.server));
    bob.subscribe("public:a");
    let reloads = |log: &str| log.matches(RELOADED).count();
    for n in 0..20u32 {
        let before = reloads(&it.server.log());
        fs::write(&it.file, rooms(3 + n)).unwrap();
        it.server.hang_up();
        for m in 0..20 {
            ann.publish("public:a", n * 20 + m);
        }
        until("each is done", || (reloads(&it.server.log()) > before).then_some(()));
    }
    let data: Vec<u64> =
        bob.messages(400).iter().map(|message| message["data"].as_u64().unwrap()).collect();
    assert_eq!(data, (0..400).collect::<Vec<u64>>());
    assert!(!it.server.log().contains(REFUSED), "{}", it.server.log());
    // The last limit counts: bob is in one room of 22.
    for n in 1..22 {
        bob.subscribe(&format!("public:more-{n}"));
    }
    let one_too_many = json!({"type": "subscribe", "room": "public:one-too-many"});
    assert_eq!(bob.call(one_too_many)["code"], 107);
}

#[test]
fn in_a_terminal_a_hangup_reloads_and_the_end_of_the_terminal_ends_the_server() {
    if !require(Tool::Python) {
        return;
    }
    let program = command().get_program().to_str().unwrap().to_owned();
    let serve = ["serve", "--profile", "testing", "--listen", "127.0.0.1:0"];
    let said = python("terminal.py", &[&[program.as_str()], &serve[..]].concat());
    assert_eq!(said, "exit 0\n");
}
