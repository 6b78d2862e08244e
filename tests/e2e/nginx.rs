//! The proxies that `deploy/` has settings for, run with just those, in front of the built binary:
//! TLS ends at them, and everything else goes through as if they were not there.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::foreign::{Tool, node, require};
use tests::frame::Frame;
use tests::process::Process;
use tests::server::Server;
use tests::skips::has_tool;
use tests::tls::{Certificate, upgrade};

use crate::client::{PATH, SOON, until};
use crate::tls::{TlsClient, curl};

/// A proxy with its folder.
pub(crate) struct Proxy {
    process: Process,
    pub(crate) certificate: Certificate,
    pub(crate) addr: SocketAddr,
    folder: tempfile::TempDir,
}

impl Proxy {
    /// Starts what `command` makes of the settings, and waits until it listens.
    fn start(file: &str, replaced: &[(&str, String)], command: fn(&Path) -> Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let certificate = Certificate::new();
        // Given back at once; nobody else on this machine asks for this one meanwhile.
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file);
        let mut text = fs::read_to_string(&path).unwrap();
        let own = [
            ("PORT", addr.port().to_string()),
            ("FOLDER", folder.path().display().to_string()),
            ("CERTIFICATE", certificate.ca()),
            ("KEY", certificate.key_file().display().to_string()),
        ];
        for (from, to) in replaced {
            assert!(text.contains(from), "{from} is missing in {}", path.display());
            let to = own.iter().fold(to.clone(), |to, (name, value)| to.replace(name, value));
            text = text.replace(from, &to);
        }
        fs::write(folder.path().join(file), text).unwrap();
        let process = Process::start(command(folder.path()));
        let mut proxy = Self { process, certificate, addr, folder };
        until("the proxy listens", || {
            assert!(proxy.process.is_running(), "{}", proxy.process.report());
            TcpStream::connect(addr).ok()
        });
        proxy
    }

    pub(crate) fn url(&self, scheme: &str, path: &str) -> String {
        format!("{scheme}://localhost:{}{path}", self.addr.port())
    }

    fn log(&self, file: &str) -> String {
        fs::read_to_string(self.folder.path().join(file)).unwrap_or_default()
    }

    /// An upgrade from this address of the machine; curl holds what it opened until it is dropped.
    pub(crate) fn upgrade_from(&self, address: &str, more: &[&str]) -> (String, Process) {
        let mut curl = Command::new("curl");
        curl.args(["-q", "--silent", "--include", "--no-buffer", "--http1.1", "--max-time", "30"]);
        curl.args(["--noproxy", "*", "--interface", address, "--cacert", &self.certificate.ca()]);
        for header in [
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ] {
            curl.args(["--header", header]);
        }
        let mut process = Process::start({
            curl.args(more).arg(self.url("https", PATH));
            curl
        });
        let line = process.next_line(SOON).unwrap_or_else(|| panic!("{}", process.report()));
        (line.split(' ').nth(1).unwrap_or_default().to_owned(), process)
    }
}

/// One address of the machine is the proxy's; clients come from others.
fn behind(more: &[&str]) -> Server {
    let behind = ["--set", "server.trusted_proxies=127.0.0.1", "--set", "server.behind_proxy=true"];
    Server::start(&[&behind[..], more].concat())
}

pub(crate) fn nginx(server: &Server) -> Proxy {
    nginx_by("nginx.conf", &[("server 127.0.0.1:8000;", format!("server {};", server.addr()))])
}

/// nginx by one of the files in `deploy/`, with these nodes.
pub(crate) fn nginx_by(file: &str, nodes: &[(&str, String)]) -> Proxy {
    let replaced = [
        ("listen 443 ssl;", "listen 127.0.0.1:PORT ssl;".to_owned()),
        ("    listen [::]:443 ssl;\n", String::new()),
        ("server_name rooms.example.com;", "server_name localhost;".to_owned()),
        ("/etc/ssl/rooms.example.com/fullchain.pem", "CERTIFICATE".to_owned()),
        ("/etc/ssl/rooms.example.com/privkey.pem", "KEY".to_owned()),
        ("/var/log/nginx/roomkeeper.log", "FOLDER/access.log".to_owned()),
    ];
    let proxy = Proxy::start(file, &[nodes, &replaced].concat(), |folder| {
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let main = folder.join("main.conf");
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {}/{name};", folder.display()))
            .concat();
        let text = format!(
            "daemon off; master_process off; {user} pid {0}/nginx.pid; error_log stderr; worker_processes 1;\n\
                 events {{ }}\nhttp {{ {temporary} include {0}/nginx*.conf; }}\n",
            folder.display()
        );
        fs::write(&main, text).unwrap();
        let mut nginx = Command::new("nginx");
        nginx.arg("-p").arg(folder).arg("-e").arg("stderr").arg("-c").arg(main);
        nginx
    });
    assert!(!proxy.process.stderr().contains("[warn]"), "{}", proxy.process.report());
    proxy
}

/// Answers pings for as long as it takes to hear this many.
fn hear_pings(client: &mut TlsClient, n_pings: usize) {
    for _ in 0..n_pings {
        let (kind, text) = client.frame();
        assert!(kind == 1 && text.contains(r#""type":"ping""#), "{kind} {text}");
        client.0.write_all(&Frame::text(r#"{"type":"pong"}"#).bytes()).unwrap();
        client.0.flush().unwrap();
    }
}

fn seconds_of(text: &str, name: &str) -> u64 {
    let lines = text.lines().map(str::trim).filter_map(|line| line.strip_prefix(name));
    let values = lines.filter_map(|rest| rest.trim().strip_suffix("s;")?.parse().ok());
    values.max().unwrap_or_else(|| panic!("no {name} in seconds"))
}

fn deployed(file: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file);
    fs::read_to_string(path).unwrap()
}

#[test]
fn through_nginx_a_foreign_client_speaks_and_an_idle_one_stays() {
    if !require(Tool::Nginx) {
        return;
    }
    let server = behind(&["--set", "heartbeat.interval_ms=300"]);
    let proxy = nginx(&server);
    if require(Tool::Node) {
        let (url, ca) = (proxy.url("wss", PATH), proxy.certificate.ca());
        let said = node("echo.mjs", &["--url", &url, "--ca", &ca]);
        assert!(said.contains(r#""bytes":60002"#), "{said}");
    }
    let mut idle = TlsClient::open(&proxy.certificate, proxy.addr);
    hear_pings(&mut idle, 4);
    // With the settings as they are shipped nginx waits longer than the server does.
    let silence_ms = 2 * 25_000;
    let text = deployed("nginx.conf");
    assert!(seconds_of(&text, "proxy_read_timeout") * 1_000 > silence_ms);
    assert!(seconds_of(&text, "proxy_send_timeout") * 1_000 > silence_ms);
    let (ready, _) = curl(&["--cacert", &proxy.certificate.ca(), &proxy.url("https", "/readyz")]);
    assert!(ready.starts_with("HTTP/1.1 200 ") && ready.ends_with("ok\n"), "{ready}");
    let (other, _) = curl(&["--cacert", &proxy.certificate.ca(), &proxy.url("https", "/metrics")]);
    assert!(other.starts_with("HTTP/1.1 404 "), "{other}");
}

/// R06, R09.
#[test]
fn through_nginx_the_server_sees_each_clients_own_address_and_no_spoofed_one() {
    if !require(Tool::Nginx) {
        return;
    }
    let server = behind(&["--set", "limits.connections_per_address_max=1"]);
    let proxy = nginx(&server);
    let (status, _first) = proxy.upgrade_from("127.0.0.9", &[]);
    assert_eq!(status, "101");
    let spoofed =
        ["--header", "X-Forwarded-For: 198.51.100.1", "--header", "Forwarded: for=198.51.100.2"];
    let (status, _) = proxy.upgrade_from("127.0.0.9", &spoofed);
    assert_eq!(status, "429");
    let (status, _other) = proxy.upgrade_from("127.0.0.10", &[]);
    assert_eq!(status, "101");
    until("the log has the client's address", || {
        server.log().contains("address=127.0.0.9").then_some(())
    });
    assert!(!server.log().contains("198.51.100."), "{}", server.log());
}

#[test]
fn through_nginx_a_drain_is_told_and_a_restart_is_found_again_and_no_token_is_logged() {
    if !require(Tool::Nginx) {
        return;
    }
    let mut server = behind(&["--set", "server.drain_window_ms=500"]);
    let proxy = nginx(&server);
    let mut client = TlsClient::open(&proxy.certificate, proxy.addr);
    server.terminate();
    let (_, text) = client.frame();
    assert!(text.contains(r#""type":"disconnect""#) && text.contains("1012"), "{text}");
    let (kind, payload) = client.frame();
    assert!(kind == 8 && payload.ends_with("restart"), "{kind} {payload}");
    drop(client);
    assert_eq!(server.wait().code, Some(0));
    let head = upgrade(&mut proxy.certificate.connect(proxy.addr).unwrap(), PATH);
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    server.restart();
    TlsClient::open(&proxy.certificate, proxy.addr);
    let mut stream = proxy.certificate.connect(proxy.addr).unwrap();
    upgrade(&mut stream, &format!("{PATH}?token=a-very-private-token"));
    drop(stream);
    until("nginx has logged it", || proxy.log("access.log").lines().count().ge(&4).then_some(()));
    let log = proxy.log("access.log");
    assert!(log.contains(PATH) && !log.contains("private"), "{log}");
}

/// R06, R09.
#[test]
fn through_caddy_a_client_speaks_and_its_own_address_is_seen() {
    if !has_tool("caddy", "version") {
        return;
    }
    let server = behind(&["--set", "limits.connections_per_address_max=1"]);
    let proxy = Proxy::start(
        "Caddyfile",
        &[
            (
                "rooms.example.com {",
                "{\n\tadmin off\n\tauto_https off\n}\n\nhttps://localhost:PORT {\n\tbind 127.0.0.1\n\
                 \ttls CERTIFICATE KEY"
                    .to_owned(),
            ),
            ("127.0.0.1:8000", server.addr().to_string()),
        ],
        |folder| {
            let mut caddy = Command::new("caddy");
            caddy.args(["run", "--adapter", "caddyfile", "--config"]).arg(folder.join("Caddyfile"));
            caddy.env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder).env("HOME", folder);
            caddy
        },
    );
    let spoofed = ["--header", "X-Forwarded-For: 198.51.100.1"];
    let (status, _first) = proxy.upgrade_from("127.0.0.9", &spoofed);
    assert_eq!(status, "101");
    let (status, _) = proxy.upgrade_from("127.0.0.9", &spoofed);
    assert_eq!(status, "429");
    let mut client = TlsClient::open(&proxy.certificate, proxy.addr);
    assert!(client.call(r#"{"type":"ping","id":1}"#).contains("pong"));
    assert!(server.log().contains("address=127.0.0.9"), "{}", server.log());
}
