//! TLS handshakes that are cut into pieces, given up, of another time or for another name: each ends, at the
//! deadline at the latest, and costs nobody else anything.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use tests::raw::{DEADLINE, RawSocket};
use tests::server::Server;
use tests::tls::{Certificate, upgrade};

use crate::client::{PATH, until};

const TIMEOUT: Duration = Duration::from_millis(1_000);
/// The earliest and the latest that an end at the deadline may be seen.
const AT_THE_DEADLINE: std::ops::Range<Duration> =
    Duration::from_millis(950)..Duration::from_millis(1_550);

/// Kinds of records.
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
/// What stands in front of a record's contents.
const HEAD: usize = 5;
const CLOSE_NOTIFY: [u8; 7] = [ALERT, 3, 3, 0, 2, 1, 0];

fn start(certificate: &Certificate) -> Server {
    let mut arguments = certificate.arguments();
    let timeout = format!("server.handshake_timeout_ms={}", TIMEOUT.as_millis());
    arguments.extend(["--set".to_owned(), timeout]);
    Server::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A record of a handshake.
fn record(contents: &[u8]) -> Vec<u8> {
    let length = u16::try_from(contents.len()).unwrap().to_be_bytes();
    [&[HANDSHAKE, 3, 1], &length[..], contents].concat()
}

/// A session that asks for this name, and its first record: a ClientHello.
fn hello(certificate: &Certificate, name: &str) -> (ClientConnection, Vec<u8>) {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut session = ClientConnection::new(Arc::new(certificate.config()), name).unwrap();
    let mut first = Vec::new();
    session.write_tls(&mut first).unwrap();
    assert_eq!(record(&first[HEAD..]), first, "it is one record");
    (session, first)
}

/// The same handshake in records of so many bytes.
fn cut(first: &[u8], bytes: usize) -> Vec<Vec<u8>> {
    first[HEAD..].chunks(bytes).map(record).collect()
}

/// Goes on with a session whose first record was sent, to the end of the handshake.
fn shake_hands(
    mut session: ClientConnection,
    mut socket: TcpStream,
) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    socket.set_read_timeout(Some(DEADLINE))?;
    while session.is_handshaking() {
        session.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(session, socket))
}

/// Whatever was done to it, it runs, has not panicked, and lets the next one in.
#[track_caller]
fn assert_unharmed(mut server: Server, certificate: &Certificate) {
    let mut stream = certificate.connect(server.addr()).expect("a session");
    assert!(upgrade(&mut stream, PATH).starts_with("HTTP/1.1 101 "));
    assert!(server.is_running());
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
}

/// P13: a fragmented ClientHello.
#[test]
fn a_client_hello_in_many_records_and_packets_is_one() {
    use std::io::Write;

    let certificate = Certificate::new();
    let server = start(&certificate);
    for bytes in [1, 3, 100] {
        let (session, first) = hello(&certificate, "localhost");
        let mut socket = TcpStream::connect(server.addr()).unwrap();
        socket.set_nodelay(true).unwrap();
        for record in cut(&first, bytes) {
            let (front, back) = record.split_at(HEAD - 2);
            socket.write_all(front).unwrap();
            socket.write_all(back).unwrap();
        }
        let mut stream = shake_hands(session, socket).expect("a session");
        assert!(upgrade(&mut stream, PATH).starts_with("HTTP/1.1 101 "), "{bytes}");
    }
    assert_unharmed(server, &certificate);
}

/// P13: a close_notify in the handshake.
#[test]
fn a_close_notify_anywhere_in_the_handshake_ends_it_and_nothing_spins() {
    let certificate = Certificate::new();
    let server = start(&certificate);
    let (before, begun) = (server.cpu_time(), Instant::now());
    let (_, first) = hello(&certificate, "localhost");
    let records = cut(&first, 60);
    let sockets = (0..=records.len()).map(|n_records| {
        let mut socket = RawSocket::connect(server.addr());
        socket.try_send(&records[..n_records].concat());
        socket.try_send(&CLOSE_NOTIFY);
        socket
    });
    // The sockets stay open on this side.
    for mut socket in sockets.collect::<Vec<_>>() {
        socket.read_until_closed();
    }
    assert!(begun.elapsed() < AT_THE_DEADLINE.end, "{:?}", begun.elapsed());
    let took = server.cpu_time() - before;
    assert!(took < Duration::from_millis(500), "{took:?} for a few that gave up");
    assert_unharmed(server, &certificate);
}

/// A ClientHello as it was before TLS 1.2, without the extension that names versions.
fn old_hello(minor: u8) -> Vec<u8> {
    let suites = [0, 4, 0xc0, 0x13, 0x00, 0x2f];
    let groups = [0, 10, 0, 4, 0, 2, 0, 23];
    let formats = [0, 11, 0, 2, 1, 0];
    let extensions = [&[0, 14][..], &groups, &formats].concat();
    let body = [&[3, minor][..], &[7; 32], &[0], &suites, &[1, 0], &extensions].concat();
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    record(&[&[1, 0][..], &length, &body].concat())
}

/// P13: TLS 1.1.
#[test]
fn versions_before_1_2_are_refused_at_once_with_an_alert() {
    const FATAL: u8 = 2;
    const HANDSHAKE_FAILURE: u8 = 40;
    const PROTOCOL_VERSION: u8 = 70;
    let certificate = Certificate::new();
    let server = start(&certificate);
    for minor in 0..3 {
        let mut socket = RawSocket::connect(server.addr());
        let begun = Instant::now();
        socket.send(&old_hello(minor));
        let answer = socket.read_until_closed();
        // Which of the two depends on what else such a client does not say.
        let why = [HANDSHAKE_FAILURE, PROTOCOL_VERSION].contains(&answer[HEAD + 1]);
        assert!(answer[0] == ALERT && answer[HEAD] == FATAL && why, "3.{minor}: {answer:x?}");
        assert!(begun.elapsed() < TIMEOUT, "{:?}", begun.elapsed());
    }
    assert_unharmed(server, &certificate);
}

/// P13: a wrong name.
#[test]
fn whoever_asks_for_another_name_sees_the_one_certificate_and_what_is_no_name_ends_the_handshake() {
    use std::io::Write;

    let certificate = Certificate::new();
    let server = start(&certificate);
    // There is one certificate, and whether it is the right one is for the client to say.
    let (session, first) = hello(&certificate, "elsewhere.example");
    let mut socket = TcpStream::connect(server.addr()).unwrap();
    socket.write_all(&first).unwrap();
    let refused = shake_hands(session, socket).unwrap_err();
    assert!(refused.to_string().contains("not valid for name"), "{refused}");
    let mut nameless = certificate.config();
    nameless.enable_sni = false;
    let mut stream = certificate.connect_with(server.addr(), nameless).expect("a session");
    assert!(upgrade(&mut stream, PATH).starts_with("HTTP/1.1 101 "));

    let (_, first) = hello(&certificate, "localhost");
    let at = first.windows(9).position(|bytes| bytes == b"localhost").unwrap();
    for name in [*b"local\0ost", *b"local ost", *b"127.0.0.1", [0xff; 9]] {
        let mut bad = first.clone();
        bad[at..at + name.len()].copy_from_slice(&name);
        let mut socket = RawSocket::connect(server.addr());
        let begun = Instant::now();
        socket.send(&bad);
        socket.read_until_closed();
        assert!(begun.elapsed() < AT_THE_DEADLINE.end, "{name:x?}: {:?}", begun.elapsed());
    }
    assert_unharmed(server, &certificate);
}

/// P13: a client that stops.
#[test]
fn whoever_stops_in_the_middle_of_a_handshake_is_gone_at_the_deadline() {
    let certificate = Certificate::new();
    let server = start(&certificate);
    assert!(certificate.connect(server.addr()).is_ok(), "what the first one costs is paid");
    let baseline = server.open_fds();
    let (_, first) = hello(&certificate, "localhost");
    let begun = Instant::now();
    // The last has all that the server says, and does not answer it.
    let cuts = [1, HEAD - 1, HEAD, HEAD + 1, first.len() / 2, first.len() - 1, first.len()];
    let sockets = cuts.map(|bytes| {
        let mut socket = RawSocket::connect(server.addr());
        socket.send(&first[..bytes]);
        socket
    });
    for (mut socket, bytes) in sockets.into_iter().zip(cuts) {
        socket.read_until_closed();
        let took = begun.elapsed();
        assert!(AT_THE_DEADLINE.contains(&took), "after {bytes} bytes: {took:?}");
    }
    until("the descriptors are back", || (server.open_fds() <= baseline).then_some(()));
    until("it is counted", || server.log().contains("a TLS handshake took too long").then_some(()));
    assert_unharmed(server, &certificate);
}
