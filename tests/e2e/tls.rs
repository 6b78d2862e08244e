//! TLS of the server's own: clients that others wrote speak it, who does not is told so, slow ones
//! are let go, certificates are replaced while it runs, and faults are named at the start.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, HandshakeKind, StreamOwned};
use serde_json::Value;
use tests::foreign::{Tool, node, python, require};
use tests::frame::Frame;
use tests::process::Process;
use tests::raw::RawSocket;
use tests::server::{Server, command, exit_of};
use tests::tls::{Certificate, upgrade};

use crate::client::{PATH, SOON, until};

/// The fatal alert internal_error, before any session.
const TURNED_AWAY: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x50];

fn start(certificate: &Certificate, more: &[&str]) -> Server {
    let mut arguments = certificate.arguments();
    arguments.extend(more.iter().map(|&word| word.to_owned()));
    Server::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Runs curl without its own settings; gives the answer with its head, and how it ended.
pub(crate) fn curl(words: &[&str]) -> (String, Option<i32>) {
    let mut curl = Command::new("curl");
    curl.args([
        "-q",
        "--silent",
        "--show-error",
        "--include",
        "--max-time",
        "10",
        "--noproxy",
        "*",
    ]);
    let output = curl.args(words).output().expect("curl runs");
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&said).into_owned(), output.status.code())
}

#[test]
fn clients_in_node_and_python_send_their_first_message_over_tls() {
    let certificate = Certificate::new();
    let server = start(&certificate, &[]);
    let (url, ca) = (server.wss(PATH), certificate.ca());
    if require(Tool::Node) {
        let words = ["--url", &url, "--ca", &ca];
        let said = node("first_message.mjs", &words);
        assert!(said.contains("hello from node"), "{said}");
        // Every shape and size, in fragments, and in records that cut them anywhere.
        let said = node("echo.mjs", &words);
        assert!(said.contains(r#""bytes":60002"#), "{said}");
    }
    if require(Tool::Python) {
        let said = python("first_message.py", &["--url", &url, "--ca", &ca]);
        assert!(said.contains("hello from python"), "{said}");
    }
}

#[test]
fn the_terminal_speaks_tls_and_trusts_who_it_is_told_to_and_nobody_else() {
    let certificate = Certificate::new();
    let server = start(&certificate, &[]);
    let publish = |ca: Option<&Certificate>, url: &str| {
        let mut publish = command();
        publish.args(["publish", "public:lobby", "1", "--url", url]);
        if let Some(ca) = ca {
            publish.args(["--ca-file", &ca.ca()]);
        }
        Process::start(publish).wait(SOON)
    };
    let exit = publish(Some(&certificate), &server.wss(PATH));
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let ack: Value = serde_json::from_str(exit.stdout.trim()).unwrap();
    assert_eq!(ack["room"], "public:lobby");
    for ca in [None, Some(&Certificate::new())] {
        let exit = publish(ca, &server.wss(PATH));
        assert_eq!(exit.code, Some(1), "{}", exit.stdout);
        assert!(exit.stderr.contains("the server is not trusted"), "{}", exit.stderr);
        assert!(exit.stderr.contains("--ca-file"), "{}", exit.stderr);
    }
    // Another name than the certificate's.
    let elsewhere = Certificate::with(|params| {
        params.subject_alt_names.retain(|name| !format!("{name:?}").contains("localhost"));
    });
    let server = start(&elsewhere, &[]);
    let exit = publish(Some(&elsewhere), &server.wss(PATH));
    assert!(exit.stderr.contains("the server is not trusted"), "{}", exit.stderr);
}

#[test]
fn its_health_is_asked_over_tls_with_the_certificate_of_the_settings() {
    let certificate = Certificate::new();
    let server = start(&certificate, &[]);
    let health = |certificate: &Certificate| {
        let listen = server.addr().to_string();
        let mut words = vec!["health".to_owned(), "--listen".to_owned(), listen];
        words.extend(certificate.arguments());
        let (code, out, error) = exit_of(&words.iter().map(String::as_str).collect::<Vec<_>>());
        (code, format!("{out}{error}"))
    };
    assert_eq!(health(&certificate), (Some(0), "ok\n".to_owned()));
    let (code, said) = health(&Certificate::new());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("certificate"), "{said}");
}

#[test]
fn answers_over_https_have_the_security_headers_and_say_that_tls_is_to_stay() {
    let certificate = Certificate::new();
    let server = start(&certificate, &[]);
    for (path, status) in [("/healthz", "200"), ("/nothing", "404"), ("/ws/v2/connect", "426")] {
        let (said, code) = curl(&["--cacert", &certificate.ca(), &server.https(path)]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{said}");
        let said = said.to_lowercase();
        for header in [
            "x-content-type-options: nosniff\r\n",
            "cache-control: no-store\r\n",
            "content-security-policy: default-src 'none'; frame-ancestors 'none'\r\n",
            "referrer-policy: no-referrer\r\n",
            "strict-transport-security: max-age=31536000\r\n",
        ] {
            assert!(said.contains(header), "{header} is missing in {said}");
        }
    }
    // Two requests on one connection, and its end is said.
    let (first, second) = (server.https("/healthz"), server.https("/readyz"));
    let (said, _) = curl(&["--verbose", "--cacert", &certificate.ca(), &first, &second]);
    assert!(said.contains("Re-using existing connection"), "{said}");
    assert!(said.contains("ALPN") && said.contains("http/1.1"), "{said}");
}

#[test]
fn without_tls_answers_have_the_same_headers_but_one() {
    let server = Server::start(&[]);
    let (said, _) = curl(&[&server.http("/healthz")]);
    let said = said.to_lowercase();
    assert!(said.contains("x-content-type-options: nosniff\r\n"), "{said}");
    assert!(!said.contains("strict-transport-security"), "{said}");
}

/// C09.
#[test]
fn who_speaks_plain_http_is_told_and_what_is_neither_gets_an_alert() {
    let certificate = Certificate::new();
    let server = start(&certificate, &[]);
    let (said, _) = curl(&[&server.http("/healthz")]);
    assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
    assert!(said.contains("this port speaks TLS"), "{said}");
    let mut rubbish = RawSocket::connect(server.addr());
    rubbish.send(&[0; 100]);
    assert_eq!(rubbish.read_until_closed().first(), Some(&0x15));
    until("both are in the log", || {
        let log = server.log();
        let told = ["plain HTTP came where TLS is spoken", "no TLS session came about"];
        told.iter().all(|what| log.matches(what).count() == 1).then_some(())
    });
}

#[test]
fn versions_and_protocols_that_are_not_spoken_are_refused_in_the_handshake() {
    let certificate = Certificate::new();
    let server = start(&certificate, &["--set", "server.tls.min_version=1.3"]);
    let ca = certificate.ca();
    let (said, code) = curl(&["--tls-max", "1.2", "--cacert", &ca, &server.https("/healthz")]);
    assert_eq!(code, Some(35), "{said}");
    let mut config = certificate.config();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let refused = certificate.connect_with(server.addr(), config).unwrap_err();
    assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
    assert_eq!(
        certificate.connect(server.addr()).unwrap().conn.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
    let older = start(&certificate, &[]);
    let (said, code) = curl(&["--tls-max", "1.2", "--cacert", &ca, &older.https("/healthz")]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn who_comes_back_resumes_its_session_without_a_signature() {
    let certificate = Certificate::new();
    let server = start(&certificate, &[]);
    let config = Arc::new(certificate.config());
    let kind = || {
        let mut stream = certificate.connect_with(server.addr(), (*config).clone()).unwrap();
        // The ticket comes behind the handshake.
        assert!(upgrade(&mut stream, PATH).starts_with("HTTP/1.1 101 "));
        stream.conn.handshake_kind().unwrap()
    };
    assert_eq!(kind(), HandshakeKind::Full);
    assert_eq!(kind(), HandshakeKind::Resumed);
}

/// A client that speaks protocol v2 over TLS: one frame at a time.
pub(crate) struct TlsClient(pub(crate) StreamOwned<ClientConnection, TcpStream>);

impl TlsClient {
    pub(crate) fn open(certificate: &Certificate, addr: SocketAddr) -> Self {
        let mut stream = certificate.connect(addr).expect("a session");
        let head = upgrade(&mut stream, PATH);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let mut client = Self(stream);
        assert!(client.frame().1.contains("hello"));
        client
    }

    /// The kind and the text of the next frame.
    pub(crate) fn frame(&mut self) -> (u8, String) {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).expect("a frame");
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.0.read_exact(&mut length).expect("its length");
                u16::from_be_bytes(length).into()
            }
            length => usize::from(length),
        };
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).expect("a payload");
        (head[0] & 0x0f, String::from_utf8_lossy(&payload).into_owned())
    }

    pub(crate) fn call(&mut self, command: &str) -> String {
        self.0.write_all(&Frame::text(command).bytes()).unwrap();
        self.0.flush().unwrap();
        self.frame().1
    }
}

#[test]
fn a_connection_ends_with_a_close_frame_and_the_end_of_its_session() {
    let certificate = Certificate::new();
    let mut server = start(&certificate, &["--set", "server.drain_window_ms=100"]);
    let mut client = TlsClient::open(&certificate, server.addr());
    server.terminate();
    assert!(client.frame().1.contains(r#""type":"disconnect""#));
    assert_eq!(client.frame().0, 8);
    // Without the notice of its end this would be an error: something may have been cut off.
    let mut rest = Vec::new();
    client.0.read_to_end(&mut rest).expect("the session ends in order");
    assert!(rest.is_empty());
    drop(client);
    let exit = server.wait();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
}

/// P13: clients that stop.
#[test]
fn a_handshake_and_a_first_request_have_one_deadline_together() {
    let certificate = Certificate::new();
    let server = start(&certificate, &["--set", "server.handshake_timeout_ms=1000"]);
    let begun = Instant::now();
    let mut silent = RawSocket::connect(server.addr());
    let mut half = RawSocket::connect(server.addr());
    half.send(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]);
    // Shakes hands late and then says nothing: no second deadline begins there.
    let late = TcpStream::connect(server.addr()).unwrap();
    until("half of the time is over", || {
        (begun.elapsed() > Duration::from_millis(600)).then_some(())
    });
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let session = ClientConnection::new(Arc::new(certificate.config()), name).unwrap();
    let mut late = StreamOwned::new(session, late);
    late.write_all(b"GET /heal").unwrap();
    late.flush().unwrap();
    silent.read_until_closed();
    half.read_until_closed();
    // However it ends, it ends.
    let _ = late.read_to_end(&mut Vec::new());
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(950), "{took:?}");
    assert!(took < Duration::from_millis(1_550), "the deadlines were added: {took:?}");
    until("it is counted", || server.log().contains("a TLS handshake took too long").then_some(()));
}

/// R07.
#[test]
fn who_still_shakes_hands_counts_among_the_connections() {
    let certificate = Certificate::new();
    let server = start(&certificate, &["--set", "server.connections_max=2"]);
    let first = RawSocket::connect(server.addr());
    let second = RawSocket::connect(server.addr());
    let mut third = RawSocket::connect(server.addr());
    assert_eq!(third.read_until_closed(), TURNED_AWAY);
    drop((first, second));
    until("there is room again", || {
        certificate.connect(server.addr()).ok().map(|mut stream| {
            assert!(upgrade(&mut stream, PATH).starts_with("HTTP/1.1 101 "));
        })
    });
}

/// S04: stuck in a TLS write.
#[test]
fn a_client_that_does_not_read_is_closed_over_tls_as_well_and_hurts_nobody() {
    let certificate = Certificate::new();
    let server = start(
        &certificate,
        &[
            "--set",
            "limits.outbound_queue_bytes_max=200000",
            "--set",
            "limits.message_bytes_max=100000",
            "--set",
            "server.close_timeout_ms=700",
        ],
    );
    let mut slow = TlsClient::open(&certificate, server.addr());
    assert!(slow.call(r#"{"type":"subscribe","id":1,"room":"public:a"}"#).contains("subscribed"));
    let mut fast = TlsClient::open(&certificate, server.addr());
    let data = "x".repeat(50_000);
    let publish = format!(r#"{{"type":"publish","id":2,"room":"public:a","data":"{data}"}}"#);
    let (before, with_both) = (server.rss_bytes(), server.open_fds());
    until("the slow one is closed", || {
        assert!(fast.call(&publish).contains(r#""ack""#));
        server.log().contains("slow_consumer").then_some(())
    });
    let grown = server.rss_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more");
    // It still reads nothing, not even its close.
    let closed = Instant::now();
    until("its socket is freed", || (server.open_fds() < with_both).then_some(()));
    assert!(closed.elapsed() < Duration::from_secs(3), "{:?}", closed.elapsed());
    drop(slow);
}

/// Whether a client that trusts this certificate gets in.
fn shown_to_newcomers(certificate: &Certificate, addr: SocketAddr) -> bool {
    certificate.connect(addr).is_ok()
}

const REPLACED: &str = "the certificate was replaced";
const KEPT: &str = "the certificate was not replaced; the one from before still counts";

/// C06.
#[test]
fn a_certificate_that_changes_is_shown_to_newcomers_and_who_is_there_stays() {
    let (certificate, next) = (Certificate::new(), Certificate::new());
    let server = start(&certificate, &[]);
    let mut there = TlsClient::open(&certificate, server.addr());
    // As certbot does it: new files are moved to the old names, one after the other.
    for (from, to) in [(next.file(), certificate.file()), (next.key_file(), certificate.key_file())]
    {
        let draft = to.with_extension("new");
        fs::copy(from, &draft).unwrap();
        fs::rename(draft, to).unwrap();
    }
    until(REPLACED, || server.log().contains(REPLACED).then_some(()));
    assert!(shown_to_newcomers(&next, server.addr()));
    assert!(!shown_to_newcomers(&certificate, server.addr()));
    assert!(there.call(r#"{"type":"ping","id":3}"#).contains("pong"));
}

/// C06.
#[test]
fn a_pair_that_does_not_fit_changes_nothing_and_is_named_until_it_does() {
    let (certificate, next) = (Certificate::new(), Certificate::new());
    let mut server = start(&certificate, &[]);
    fs::copy(next.key_file(), certificate.key_file()).unwrap();
    until(KEPT, || server.log().contains(KEPT).then_some(()));
    let log = server.log();
    assert!(log.contains("key.pem does not match the certificate in"), "{log}");
    assert!(shown_to_newcomers(&certificate, server.addr()));
    // A reload says the same, and changes nothing either.
    server.hang_up();
    let refused = "the settings were not reloaded";
    until(refused, || server.log().contains(refused).then_some(()));
    assert!(shown_to_newcomers(&certificate, server.addr()));
    // One that is cut, then none at all.
    let whole = fs::read(next.file()).unwrap();
    fs::write(certificate.file(), &whole[..whole.len() / 2]).unwrap();
    until("it is cut", || server.log().contains("cert.pem is no PEM file").then_some(()));
    fs::remove_file(certificate.file()).unwrap();
    until("it is gone", || server.log().contains("cert.pem cannot be read").then_some(()));
    assert!(shown_to_newcomers(&certificate, server.addr()));
    // The rest comes, and a reload takes it at once.
    fs::write(certificate.file(), whole).unwrap();
    server.hang_up();
    until(REPLACED, || server.log().contains(REPLACED).then_some(()));
    assert!(shown_to_newcomers(&next, server.addr()));
}

/// C03, C05.
#[test]
fn a_certificate_that_cannot_be_used_stops_the_start_and_the_check_with_its_name() {
    let (certificate, other) = (Certificate::new(), Certificate::new());
    let cert = format!("server.tls.cert_file={}", certificate.ca());
    let set = |key: &str, path: &std::path::Path| format!("server.tls.{key}={}", path.display());
    let missing = certificate.file().with_file_name("missing.pem");
    let rows = [
        (vec![cert.clone()], "server.tls.key_file", "must be set, since server.tls.cert_file"),
        (vec![set("key_file", &certificate.key_file())], "server.tls.cert_file", "must be set"),
        (
            vec![cert.clone(), set("key_file", &missing)],
            "server.tls.key_file",
            "missing.pem cannot be read",
        ),
        (
            vec![cert.clone(), set("key_file", &other.key_file())],
            "server.tls.key_file",
            "does not match",
        ),
        (
            vec![cert, set("key_file", &certificate.file())],
            "server.tls.key_file",
            "holds no private key",
        ),
        (
            vec![
                set("cert_file", &certificate.key_file()),
                set("key_file", &certificate.key_file()),
            ],
            "server.tls.cert_file",
            "holds no certificate",
        ),
    ];
    for (sets, key, what) in rows {
        for verb in [&["serve"][..], &["config", "check"]] {
            let mut words = verb.to_vec();
            words.extend(["--profile", "testing", "--listen", "127.0.0.1:0"]);
            words.extend(sets.iter().flat_map(|set| ["--set", set]));
            let (code, _, said) = exit_of(&words);
            assert_eq!(code, Some(78), "{words:?}: {said}");
            assert!(said.contains(key) && said.contains(what), "{words:?}: {said}");
        }
    }
}

/// N14: an expired certificate.
#[test]
fn an_expired_certificate_is_a_warning() {
    let expired = Certificate::with(|params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let mut words = vec!["config".to_owned(), "check".to_owned()];
    words.extend(expired.arguments());
    let (code, out, _) = exit_of(&words.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(code, Some(0));
    assert!(out.contains("warning: the certificate in server.tls.cert_file has expired"), "{out}");
    let server = start(&expired, &[]);
    assert!(server.log().contains("has expired"), "{}", server.log());
    // It serves all the same; refusing it is the clients' part.
    let (said, code) = curl(&["--cacert", &expired.ca(), &server.https("/healthz")]);
    assert_eq!(code, Some(60), "{said}");
}
