//! Three nodes as `deploy/` puts them together: the compose file's settings are the binary's, and nginx, run
//! by the file that stands there, hands clients of a node that stops to the others.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tests::foreign::{Tool, require};
use tests::redis::Redis;
use tests::server::{Server, command};
use tests::tls::upgrade;
use tests::token::SECRET;

use crate::client::{Client, PATH, until};
use crate::http::get;
use crate::nginx::{Proxy, nginx_by};
use crate::tls::TlsClient;

fn deployed(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The pairs `NAME: value` of capital letters in the part of a compose file from one line to another.
fn environment<'t>(text: &'t str, from: &str, to: &str) -> Vec<(&'t str, &'t str)> {
    let part = &text[text.find(from).unwrap()..];
    let part = &part[..part.find(to).unwrap()];
    let pairs = part.lines().map(str::trim).filter_map(|line| line.split_once(": "));
    let is_name =
        |name: &str| name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    pairs
        .filter(|(name, _)| is_name(name))
        .map(|(name, value)| (name, value.trim_matches('"')))
        .collect()
}

/// All nodes have the same settings, so each would start.
#[test]
fn the_settings_of_the_nodes_are_right() {
    let compose = deployed("compose.three-nodes.yaml");
    let pairs = environment(&compose, "x-node:", "services:");
    assert!(pairs.len() >= 9, "{pairs:?}");
    let (secret, other) =
        (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
    fs::write(secret.path(), "9f86d081884c7d659a2feaa0c55ad0155b1c2f0e7a").unwrap();
    fs::write(other.path(), "b1c2f0e7a9f86d081884c7d659a2feaa0c55ad0155").unwrap();
    let mut check = Command::new(command().get_program());
    check.args(["config", "check", "--profile", "production"]);
    for (name, value) in &pairs {
        let file = match *value {
            "/run/secrets/hmac-secret" => secret.path().to_str().unwrap(),
            "/run/secrets/ticket-secret" => other.path().to_str().unwrap(),
            value => value,
        };
        check.env(name, file);
    }
    // What the image and the file with passwords add.
    check.env("ROOMKEEPER_SERVER__LISTEN", "0.0.0.0:8000").env("REDIS_PASSWORD", "a-password");
    let output = check.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_the_compose_file_names_is_there_and_a_node_has_time_to_drain() {
    let compose = deployed("compose.three-nodes.yaml");
    let nodes = ["node-1", "node-2", "node-3"];
    let balancer = deployed("nginx.three-nodes.conf");
    for node in nodes {
        assert!(compose.contains(&format!("  {node}:\n    <<: *node\n")), "{node}");
        assert_eq!(balancer.matches(&format!("server {node}:8000 ")).count(), 1, "{node}");
    }
    // Each secret that is used is declared, and each that is declared is used.
    let (_, declared) = compose.split_once("\nsecrets:\n").unwrap();
    let (declared, _) = declared.split_once("\nvolumes:\n").unwrap();
    let declared: BTreeSet<_> =
        declared.lines().filter_map(|line| line.strip_prefix("  ")?.strip_suffix(':')).collect();
    let used: BTreeSet<_> = compose
        .split("/run/secrets/")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next().unwrap())
        .collect();
    assert_eq!(used, declared);
    // The balancer's address is the one that is believed.
    let pairs = environment(&compose, "x-node:", "services:");
    let value = |name: &str| pairs.iter().find(|(known, _)| *known == name).unwrap().1;
    let trusted = value("ROOMKEEPER_SERVER__TRUSTED_PROXIES");
    assert!(compose.contains(&format!("ipv4_address: {trusted}\n")), "{trusted}");
    let window: u64 = value("ROOMKEEPER_SERVER__DRAIN_WINDOW_MS").parse().unwrap();
    let grace = compose.split("stop_grace_period: ").nth(1).unwrap();
    let grace: u64 = grace.split('s').next().unwrap().parse().unwrap();
    // The window, and the six seconds behind it that closing may take.
    assert!(grace * 1_000 > window + 6_000, "{grace} s, {window} ms");
}

/// A node with the settings that the three share; the balancer is on the same machine.
fn node(redis: &Redis) -> Server {
    Server::start(&[
        "--set",
        &format!("redis.url={}", redis.url()),
        "--set",
        &format!("auth.hmac_secret={SECRET}"),
        "--set",
        "auth.ticket_secret=one-secret-for-the-tickets-of-all-three-nodes",
        "--set",
        "server.trusted_proxies=127.0.0.1",
        "--set",
        "server.behind_proxy=true",
        "--set",
        "server.drain_window_ms=3000",
    ])
}

/// Waits until a node is one that Redis has answered.
fn until_ready(node: &Server) {
    until("the node is ready", || (get(node.addr(), "/readyz").status == 200).then_some(()));
}

fn balancer(nodes: &[Server]) -> Proxy {
    let names = ["server node-1:8000", "server node-2:8000", "server node-3:8000"];
    let replaced: Vec<_> = names
        .iter()
        .zip(nodes)
        .map(|(name, node)| (*name, format!("server {}", node.addr())))
        .collect();
    nginx_by("nginx.three-nodes.conf", &replaced)
}

/// N02, N05 with one version: through the balancer's own settings. Whoever asks for a connection while a node
/// stops, is gone or starts is let in at the first attempt.
#[test]
fn through_nginx_nobody_is_refused_while_one_node_after_another_restarts() {
    if !require(Tool::Nginx) || !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let mut nodes: Vec<_> = (0..3).map(|_| node(&redis)).collect();
    nodes.iter().for_each(until_ready);
    let proxy = balancer(&nodes);
    let comes = || {
        let mut stream = proxy.certificate.connect(proxy.addr).expect("a session");
        let head = upgrade(&mut stream, PATH);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        stream
    };
    // Whatever is said over one node is heard over the others, through the balancer.
    let mut hears = TlsClient::open(&proxy.certificate, proxy.addr);
    let subscribed = hears.call(r#"{"type":"subscribe","id":1,"room":"public:a"}"#);
    assert!(subscribed.contains("subscribed"), "{subscribed}");
    for (number, node) in nodes.iter().enumerate() {
        Client::open(node).publish("public:a", json!(format!("over {number}")));
        let (_, heard) = hears.frame();
        assert!(heard.contains(&format!("over {number}")), "{heard}");
    }
    drop(hears);
    for node in &mut nodes {
        // Enough for each node to have some, whose times are spread over its window.
        let mut there: Vec<_> =
            (0..12).map(|_| TlsClient::open(&proxy.certificate, proxy.addr)).collect();
        node.terminate();
        until("it says that it stops", || node.log().contains("stopping").then_some(()));
        let mut n_came = 0;
        while node.is_running() {
            drop(comes());
            n_came += 1;
        }
        assert!(n_came > 10, "{n_came}");
        assert_eq!(node.wait().code, Some(0));
        (0..6).for_each(|_| drop(comes()));
        node.restart();
        until_ready(node);
        // Those of the node that stopped were told so, by its close frame, and nobody else was.
        let n_told = there.iter_mut().map(told).filter(|told| *told).count();
        assert!((1..12).contains(&n_told), "{n_told} were told");
    }
}

/// Whether a client was told that it has to come back.
fn told(client: &mut TlsClient) -> bool {
    client.0.sock.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut head = [0; 2];
    if std::io::Read::read_exact(&mut client.0, &mut head).is_err() {
        return false;
    }
    client.0.sock.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut payload = vec![0; usize::from(head[1] & 0x7f)];
    if head[1] & 0x7f == 126 {
        let mut length = [0; 2];
        std::io::Read::read_exact(&mut client.0, &mut length).unwrap();
        payload = vec![0; u16::from_be_bytes(length).into()];
    }
    std::io::Read::read_exact(&mut client.0, &mut payload).unwrap();
    let text = String::from_utf8_lossy(&payload);
    assert!(text.contains(r#""type":"disconnect""#) && text.contains("1012"), "{text}");
    let (kind, reason) = client.frame();
    assert!(kind == 8 && reason.ends_with("restart"), "{kind} {reason}");
    true
}
