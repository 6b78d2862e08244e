//! Seeing inside: metrics and who may see them, the security log, a log that nobody reads.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Stdio};

use serde_json::{Value, json};
use tests::raw::RawSocket;
use tests::server::{self, Server};
use tests::token::{self, SECRET};

use crate::client::{Client, PATH, until};
use crate::http::{ask, get, metrics, value};

const KEY: &str = "k7Qp2vXz9LmN4rTs8WbYc3Df6GhJ5KaE";

/// Scrapes until a series has this value: a client hears of a message before the walk that
/// brought it is counted.
fn scrape_until(addr: SocketAddr, series: &str, wanted: f64) -> String {
    until(series, || {
        let text = metrics(addr);
        (value(&text, series) == wanted).then_some(text)
    })
}

#[test]
fn what_clients_do_shows_in_the_metrics_and_no_room_is_named() {
    let server = Server::start(&[]);
    let (mut ann, mut bob) = (Client::open(&server), Client::open(&server));
    ann.subscribe("public:seen-from-outside");
    bob.subscribe("public:seen-from-outside");
    for n in 0..3 {
        ann.publish("public:seen-from-outside", n);
    }
    for _ in 0..3 {
        bob.expect("message");
    }
    ann.call(json!({"type": "subscribe", "room": "nowhere:x"}));
    // Looked at once a second, for the first time a moment after the start.
    let _ = scrape_until(server.addr(), "roomkeeper_ready", 1.0);
    let text = scrape_until(server.addr(), "roomkeeper_deliveries_total", 6.0);
    for (series, wanted) in [
        ("roomkeeper_connections", 2.0),
        ("roomkeeper_connections_opened_total", 2.0),
        ("roomkeeper_members", 2.0),
        ("roomkeeper_rooms", 1.0),
        (r#"roomkeeper_commands_total{type="publish"}"#, 3.0),
        (r#"roomkeeper_commands_total{type="subscribe"}"#, 3.0),
        (r#"roomkeeper_command_errors_total{error="unknown_room"}"#, 1.0),
        (r#"roomkeeper_publishes_total{outcome="accepted"}"#, 3.0),
        (r#"roomkeeper_joins_total{outcome="fresh"}"#, 2.0),
        ("roomkeeper_publish_duration_seconds_count", 3.0),
        ("roomkeeper_received_messages_total", 6.0),
        ("roomkeeper_ready", 1.0),
        ("roomkeeper_calls_in_flight", 0.0),
    ] {
        assert_eq!(value(&text, series), wanted, "{series}");
    }
    assert!(value(&text, "roomkeeper_delivered_bytes_total") > 6.0 * 100.0);
    assert!(value(&text, "process_open_fds") >= 2.0);
    assert!(!text.contains("seen-from-outside"));
    drop(bob);
    let text = scrape_until(server.addr(), "roomkeeper_connections", 1.0);
    assert_eq!(value(&text, r#"roomkeeper_connections_closed_total{reason="going_away"}"#), 1.0);
    assert_eq!(value(&text, "roomkeeper_members"), 1.0);
}

/// R15, with as many names as a test has time for; the labels are closed sets.
#[test]
fn thousands_of_rooms_add_nothing_to_the_metrics() {
    let server = Server::start(&[]);
    let before = metrics(server.addr()).lines().count();
    let mut clients: Vec<Client> = (0..20).map(|_| Client::open(&server)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        for k in 0..100 {
            client.ask(json!({"type": "subscribe", "room": format!("public:tally-{n}-{k}")}));
        }
        let last = client.ask(json!({"type": "ping"}));
        client.answer(last);
    }
    let text = scrape_until(server.addr(), "roomkeeper_rooms", 2_000.0);
    assert!(!text.contains("tally-"));
    assert_eq!(text.lines().count(), before);
    assert!(text.len() < 1 << 20, "{}", text.len());
}

fn production(more: &[&str]) -> Server {
    let secret =
        "auth.hmac_secret=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let key = format!("api.keys.ops.key={KEY}");
    let mut arguments = vec!["--profile", "production", "--set", secret, "--set", &key];
    arguments.extend(["--set", "auth.issuer=login", "--set", "auth.audience=rooms"]);
    arguments.extend(more);
    Server::start_durable(&arguments)
}

#[test]
fn in_production_metrics_and_the_api_need_a_key_and_health_does_not() {
    let server = production(&[]);
    assert_eq!(get(server.addr(), "/metrics").status, 401);
    let wrong = [("Authorization", "Bearer 0123456789abcdef0123456789abcdef")];
    assert_eq!(ask(server.addr(), "GET", "/metrics", &wrong, "").status, 401);
    let authorization = format!("Bearer {KEY}");
    let right = [("Authorization", authorization.as_str())];
    let shown = ask(server.addr(), "GET", "/metrics", &right, "");
    assert_eq!(shown.status, 200);
    assert!(shown.head.contains("text/plain; version=0.0.4"), "{}", shown.head);
    assert_eq!(ask(server.addr(), "POST", "/api/v1/publish", &[], "{}").status, 401);
    assert_eq!(get(server.addr(), "/healthz").status, 200);
    assert_eq!(get(server.addr(), "/readyz").status, 200);
    let events = r#"roomkeeper_security_events_total{event="api_key_refused"}"#;
    assert_eq!(value(&shown.body, events), 2.0);
}

/// Where the start screen says that the internal address is.
pub(crate) fn internal_address(server: &Server) -> SocketAddr {
    until("the internal address", || {
        let log = server.log();
        let line = log.lines().find_map(|line| line.trim().strip_prefix("internal"))?;
        let address = line.trim().strip_prefix("http://")?.trim_end_matches('/');
        Some(address.parse().unwrap())
    })
}

#[test]
fn an_internal_address_has_what_operators_need_and_the_public_one_has_it_no_more() {
    let mut server = production(&["--set", "server.internal_listen=127.0.0.1:0"]);
    let internal = internal_address(&server);
    let authorization = format!("Bearer {KEY}");
    let right = [("Authorization", authorization.as_str())];
    assert_eq!(ask(server.addr(), "GET", "/metrics", &right, "").status, 404);
    assert_eq!(ask(server.addr(), "POST", "/api/v1/publish", &right, "{}").status, 404);
    assert!(metrics(internal).contains("roomkeeper_build_info"));
    assert_eq!(ask(internal, "POST", "/api/v1/publish", &[], "{}").status, 401);
    let body = r#"{"room":"chat:global","data":"by-the-internal-address"}"#;
    assert_eq!(ask(internal, "POST", "/api/v1/publish", &right, body).status, 200);
    assert_eq!(get(internal, "/healthz").status, 200);
    let ready = get(internal, "/readyz");
    assert_eq!((ready.status, &ready.json()["ready"]), (200, &json!(true)));
    // A client that does not answer the close keeps the drain going for a while.
    let claims = token::claims("ann", "chat:*");
    let claims = token::with_claim(claims, "iss", json!("login"));
    let claims = token::with_claim(claims, "aud", json!("rooms"));
    let secret = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let path = format!("{PATH}?token={}", token::hs256(secret, &claims));
    let mut client = RawSocket::open(server.addr(), &path);
    client.expect_json("hello");
    server.terminate();
    client.expect_json("disconnect");
    let draining = get(internal, "/readyz");
    assert_eq!((draining.status, &draining.json()["reason"]), (503, &json!("stopping")));
    drop(client);
    assert_eq!(server.wait().code, Some(0));
}

/// The security events in a log of JSON lines, in their order.
fn events(log: &str) -> Vec<Value> {
    let values = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    values.filter(|value| value["target"] == "security").collect()
}

/// One of everything that guards are told of over a connection.
fn misbehave(server: &Server) {
    let claims = token::claims("eve", "chat:read/*");
    let forged = token::hs256("another-secret-that-is-long-enough-for-hs256", &claims);
    let mut socket = RawSocket::open(server.addr(), &format!("{PATH}?token={forged}"));
    assert_eq!(socket.read_close_code(), 3500);

    let good = token::hs256(SECRET, &claims);
    let mut eve = Client::open_at(server.addr(), &format!("{PATH}?token={good}"));
    eve.call_for("error", json!({"type": "publish", "room": "chat:vip", "data": "secret-payload"}));

    let mut socket = RawSocket::connect(server.addr());
    let head = socket.upgrade(PATH, &[("Origin", "https://evil.example")]);
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");

    let wrong = [("Authorization", "Bearer 0123456789abcdef0123456789abcdef")];
    assert_eq!(ask(server.addr(), "POST", "/api/v1/publish", &wrong, "{}").status, 401);

    let mut socket = RawSocket::open(server.addr(), PATH);
    for _ in 0..21 {
        socket.send_text("no-json-of-the-protocol");
    }
    assert_eq!(socket.read_close_code(), 3503);
}

fn assert_told(events: &[Value]) {
    let find = |name: &str| {
        let event = events.iter().find(|event| event["event"] == name);
        event.unwrap_or_else(|| panic!("no {name} in {events:?}"))
    };
    let failed = find("authentication_failed");
    assert_eq!((&failed["reason"], &failed["alg"]), (&json!("signature"), &json!("HS256")));
    assert!(failed["request_id"].as_str().unwrap().starts_with("r-"), "{failed}");
    let denied = find("permission_denied");
    assert_eq!((&denied["user"], &denied["action"]), (&json!("eve"), &json!("publish")));
    assert_eq!(denied["room"], "chat:vip");
    let refused = find("connection_refused");
    assert_eq!(refused["reason"], "origin");
    assert_eq!(refused["origin"], "https://evil.example");
    assert_eq!(find("api_key_refused")["what"], "publish");
    find("malformed_messages");
    assert!(events.iter().all(|event| event["level"] == "warn" && event["left_out"] == 0));
}

#[test]
fn guards_are_told_who_was_refused_what_and_why() {
    let secret = format!("auth.hmac_secret={SECRET}");
    let mut server = Server::start(&["--set", &secret, "--set", "log.format=json"]);
    misbehave(&server);
    server.terminate();
    assert_told(&events(&server.wait().stderr));
}

#[test]
fn guards_are_told_who_took_what_back_whom_it_ended_and_who_came_with_it_again() {
    let secret = format!("auth.hmac_secret={SECRET}");
    let key = format!("api.keys.backend.key={KEY}");
    let scopes = "api.keys.backend.scopes=revoke";
    let settings = ["--set", &secret, "--set", &key, "--set", scopes, "--set", "log.format=json"];
    let mut server = Server::start(&settings);
    let token = token::hs256(SECRET, &token::claims("eve", "chat:read/*"));
    let path = format!("{PATH}?token={token}");
    let mut eve = Client::open_at(server.addr(), &path);
    let body = r#"{"user_id":"eve"}"#;
    assert_eq!(ask(server.addr(), "POST", "/api/v1/revoke", &[], body).status, 401);
    let authorization = format!("Bearer {KEY}");
    let right = [("Authorization", authorization.as_str())];
    assert_eq!(ask(server.addr(), "POST", "/api/v1/revoke", &right, body).status, 200);
    assert_eq!(eve.until_closed().1, 3507);
    assert_eq!(RawSocket::open(server.addr(), &path).read_close_code(), 3507);
    let text = scrape_until(server.addr(), "roomkeeper_connections", 0.0);
    for (series, wanted) in [
        ("roomkeeper_revocations", 1.0),
        (r#"roomkeeper_revocation_orders_total{outcome="kept"}"#, 1.0),
        (r#"roomkeeper_connections_closed_total{reason="revoked"}"#, 2.0),
        (r#"roomkeeper_token_verifications_total{outcome="revoked"}"#, 1.0),
        (r#"roomkeeper_security_events_total{event="revoked"}"#, 1.0),
        ("roomkeeper_api_requests_total", 1.0),
    ] {
        assert_eq!(value(&text, series), wanted, "{series}");
    }
    server.terminate();
    let events = events(&server.wait().stderr);
    let of = |event: &Value| match event["event"].as_str() {
        Some("api_key_refused") => event["what"].clone(),
        Some("revocation_ordered") => {
            json!([event["key"], event["what"], event["subject"], event["outcome"]])
        }
        Some("revoked") => event["user"].clone(),
        _ => event["reason"].clone(),
    };
    let told: Vec<_> = events.iter().map(of).collect();
    let ordered = json!(["backend", "user", "eve", "kept"]);
    // The order and what it does are written by different threads.
    assert_eq!(told.len(), 4, "{events:?}");
    for wanted in [json!("revoke"), ordered, json!("eve"), json!("revoked")] {
        assert!(told.contains(&wanted), "no {wanted} in {told:?}");
    }
}

#[test]
fn the_security_log_has_a_file_of_its_own_where_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("security.log");
    let file = format!("log.security_file={}", path.display());
    let secret = format!("auth.hmac_secret={SECRET}");
    let quiet = ["--set", "log.filter=error", "--set", "log.format=json"];
    let mut server = Server::start(&[&["--set", &secret, "--set", &file], &quiet[..]].concat());
    misbehave(&server);
    server.terminate();
    assert_eq!(events(&server.wait().stderr), Vec::<Value>::new());
    let written = std::fs::read_to_string(&path).unwrap();
    assert_told(&events(&written));
    assert_eq!(tests::leaks::find(&written), None);
}

/// A server whose standard error nobody reads, through a pipe of one page.
struct Unread {
    child: Child,
    addr: SocketAddr,
}

const PIPE_BYTES: usize = 4_096;

impl Unread {
    fn start() -> Self {
        let mut command = server::command();
        command.args(["serve", "--profile", "testing", "--listen", "127.0.0.1:0"]);
        command.args(["--set", "log.filter=debug"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let pipe = child.stderr.as_ref().unwrap();
        rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addr = line.trim().strip_prefix("listening on http://").unwrap().parse().unwrap();
        Self { child, addr }
    }

    /// Makes it log a line.
    fn break_the_framing(&self) {
        let mut socket = RawSocket::open(self.addr, PATH);
        socket.send_frame(1, true, false, b"without a mask");
        assert_eq!(socket.read_close_code(), 1002);
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// R14, a reader that stopped. What waits beyond the pipe, and what is lost then, is a test of the
/// log's own.
#[test]
fn a_log_that_nobody_reads_does_not_stop_the_server() {
    let server = Unread::start();
    for _ in 0..100 {
        server.break_the_framing();
    }
    let waiting = rustix::io::ioctl_fionread(server.child.stderr.as_ref().unwrap()).unwrap();
    assert!(waiting + 256 > PIPE_BYTES as u64, "only {waiting} bytes wait: nothing was blocked");
    let mut client = Client::open_at(server.addr, PATH);
    client.subscribe("public:after");
    client.publish("public:after", 1);
    assert_eq!(get(server.addr, "/healthz").status, 200);
}

/// R14, a pipe that is closed.
#[test]
fn a_log_whose_reader_is_gone_costs_lines_and_not_the_server() {
    let mut server = Unread::start();
    drop(server.child.stderr.take());
    until("lines are lost", || {
        server.break_the_framing();
        let lost = value(&metrics(server.addr), "roomkeeper_log_lines_lost_total");
        (lost > 0.0).then_some(())
    });
    assert_eq!(get(server.addr, "/healthz").status, 200);
}

fn document(path: &str) -> String {
    let path = format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// All metrics of a node that has an archive and fetches keys.
fn metric_names() -> BTreeSet<String> {
    // Published keys that can't be fetched have metrics, too.
    let server = Server::start_durable(&["--set", "auth.jwks_url=http://127.0.0.1:1/keys"]);
    let text = metrics(server.addr());
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn alerts_and_the_document_name_the_metrics_that_there_are() {
    let names = metric_names();
    let rules = document("deploy/alerts.yml");
    let mut asked = BTreeSet::new();
    for line in rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")) {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for word in line.split(|c| !is_name(c)) {
            if word.starts_with("roomkeeper_") || word.starts_with("process_") {
                asked.insert(word.strip_suffix("_bucket").unwrap_or(word).to_owned());
            }
        }
    }
    assert!(asked.len() > 10, "the rules ask for {asked:?}");
    let unknown: Vec<_> = asked.difference(&names).collect();
    assert!(unknown.is_empty(), "alerts.yml asks for what is not there: {unknown:?}");

    let text = document("docs/observability.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    // Those of Redis and Postgres are there where one is: `tests/nodes` looks at them.
    let listed: BTreeSet<String> = rows
        .filter(|name| {
            !name.starts_with("roomkeeper_redis_") && !name.starts_with("roomkeeper_postgres_")
        })
        .filter(|name| name.starts_with("roomkeeper_") || name.starts_with("process_"))
        .map(str::to_owned)
        .collect();
    let missing: Vec<_> = names.symmetric_difference(&listed).collect();
    assert!(missing.is_empty(), "observability.md and /metrics differ in {missing:?}");
}

#[test]
fn the_document_lists_every_security_event() {
    let text = document("docs/observability.md");
    for event in [
        "connection_refused",
        "authentication_failed",
        "permission_denied",
        "rights_lost",
        "revocation_ordered",
        "revoked",
        "api_key_refused",
        "api_not_allowed",
        "disconnect_ordered",
        "malformed_messages",
        "moderation",
        "rate_limited",
        "slow_consumer",
    ] {
        assert!(text.contains(&format!("| `{event}` |")), "{event} is not listed");
    }
    // As many as the metrics know, so that the list above is whole.
    let server = Server::start(&[]);
    let shown = metrics(server.addr());
    let known = shown.lines().filter(|l| l.starts_with("roomkeeper_security_events_total{"));
    assert_eq!(known.count(), 13);
}

#[test]
fn members_get_the_trace_that_a_publish_names_and_none_where_none_is_named() {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let key = format!("api.keys.backend.key={KEY}");
    let server = Server::start(&["--set", &key]);
    let (mut ann, mut bob) = (Client::open(&server), Client::open(&server));
    bob.subscribe("public:traced");
    let publish = json!({"type": "publish", "room": "public:traced", "data": 1});
    ann.call_for("ack", publish.clone());
    assert_eq!(bob.expect("message").get("traceparent"), None);
    let traced = |value: Value| {
        let mut command = publish.clone();
        command["traceparent"] = value;
        command
    };
    ann.call_for("ack", traced(TRACE.into()));
    assert_eq!(bob.expect("message")["traceparent"], TRACE);
    let refused = ann.call_for("error", traced("00-abc".into()));
    assert_eq!((&refused["code"], &refused["field"]), (&json!(102), &json!("traceparent")));

    let authorization = format!("Bearer {KEY}");
    let body = r#"{"room":"public:traced","data":2}"#;
    for (header, wanted) in [(TRACE, Some(&json!(TRACE))), ("not of the form", None)] {
        let headers = [("Authorization", authorization.as_str()), ("traceparent", header)];
        let answer = ask(server.addr(), "POST", "/api/v1/publish", &headers, body);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(bob.expect("message").get("traceparent"), wanted);
    }
    // Who comes later reads it in the log.
    let mut eve = Client::open(&server);
    let log = eve.log("public:traced", 10);
    assert_eq!(log[1]["traceparent"], TRACE);
}
