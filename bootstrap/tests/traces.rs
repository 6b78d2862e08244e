//! Traces reach a collector: the built server, one publish that names a trace, and a collector
//! that takes everything.
#![cfg(feature = "otel")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed step of a test stops the test, with words"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const KEY: &str = "k7Qp2vXz9LmN4rTs8WbYc3Df6GhJ5KaE";
const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
const PARENT: u64 = 0x00f0_67aa_0ba9_02b7;
const SOON: Duration = Duration::from_secs(30);

/// A request's line and body.
type Request = (String, Vec<u8>);

/// Reads one HTTP message with a length.
fn read_http(stream: &mut impl BufRead) -> Option<Request> {
    let (mut first, mut length) = (String::new(), 0);
    stream.read_line(&mut first).ok().filter(|n| *n > 0)?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((first, body))
}

/// A collector that says yes to everything and tells what came.
fn collector() -> (SocketAddr, Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, requests) = channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let request = read_http(&mut BufReader::new(stream.try_clone().unwrap()));
            let answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\n\
                Content-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(answer);
            if let Some(request) = request
                && sender.send(request).is_err()
            {
                return;
            }
        }
    });
    (address, requests)
}

struct Server(Child, SocketAddr);

impl Server {
    fn start(collector: SocketAddr, sampled_per_million: u32) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roomkeeper"));
        command.args(["serve", "--profile", "testing", "--listen", "127.0.0.1:0"]);
        for setting in [
            format!("api.keys.backend.key={KEY}"),
            format!("traces.endpoint=http://{collector}/v1/traces"),
            format!("traces.sampled_per_million={sampled_per_million}"),
        ] {
            command.args(["--set", &setting]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").unwrap().parse().unwrap();
        Self(child, address)
    }

    fn publish(&self, traceparent: Option<&str>) {
        let body = r#"{"room":"public:traced","data":"payload-that-no-trace-has"}"#;
        let header = traceparent.map(|value| format!("traceparent: {value}\r\n"));
        let mut stream = TcpStream::connect(self.1).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let head = format!(
            "POST /api/v1/publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\
             Connection: close\r\nContent-Length: {}\r\n{}\r\n",
            body.len(),
            header.unwrap_or_default()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// Ends it in order, which sends what is left.
    fn stop(mut self) {
        let id = rustix::process::Pid::from_raw(self.0.id().cast_signed()).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_publish_is_a_span_of_the_trace_that_it_names() {
    let (address, requests) = collector();
    // Only who comes with a trace that is recorded is recorded.
    let server = Server::start(address, 0);
    server.publish(None);
    server.publish(Some(&format!("00-{TRACE:032x}-{PARENT:016x}-01")));
    server.stop();
    let (line, body) = requests.recv_timeout(SOON).unwrap();
    assert!(line.starts_with("POST /v1/traces "), "{line}");
    assert!(contains(&body, &TRACE.to_be_bytes()), "not the trace that was named");
    assert!(contains(&body, &PARENT.to_be_bytes()), "not under the span that was named");
    for part in ["roomkeeper", "api_publish", "public:traced", "backend"] {
        assert!(contains(&body, part.as_bytes()), "{part} is missing");
    }
    assert_eq!(body.windows(11).filter(|w| w == b"api_publish").count(), 1);
    assert!(!contains(&body, b"payload-that") && !contains(&body, KEY.as_bytes()));
}

#[test]
fn a_publish_without_a_trace_is_sampled_by_the_part_that_is_set() {
    let (address, requests) = collector();
    let server = Server::start(address, 1_000_000);
    server.publish(None);
    server.stop();
    let (_, body) = requests.recv_timeout(SOON).unwrap();
    assert!(contains(&body, b"api_publish"));
}

#[test]
fn a_collector_that_is_away_costs_spans_and_not_the_server() {
    let (address, requests) = collector();
    drop(requests);
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    assert_ne!(gone, address);
    let server = Server::start(gone, 1_000_000);
    server.publish(None);
    server.stop();
}
