//! One HTTP request on a connection of its own, and one that takes no answer.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::hosts::{Part, has};
use tests::raw::RawSocket;
use tests::server::Server;

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e} in {self:?}"))
    }
}

pub(crate) fn get(addr: SocketAddr, path: &str) -> Answer {
    ask(addr, "GET", path, &[], "")
}

/// The value of one series of the metrics.
pub(crate) fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let value = line.unwrap_or_else(|| panic!("no {series} in\n{text}"));
    value.parse().unwrap()
}

/// What `/metrics` says.
pub(crate) fn metrics(addr: SocketAddr) -> String {
    let answer = get(addr, "/metrics");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

pub(crate) fn ask(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut socket = RawSocket::connect(addr);
    let own = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
    let own = own.collect::<String>();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\
         Content-Length: {length}\r\n{own}\r\n"
    );
    // The server may refuse before it has read everything.
    socket.try_send(&[head.as_bytes(), body.as_bytes()].concat());
    let head = socket.read_head();
    let body = String::from_utf8(socket.read_until_closed()).expect("the body is text");
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    Answer { status: status.unwrap_or_else(|| panic!("no status in {head}")), head, body }
}

#[test]
fn who_asks_and_asks_and_takes_no_answer_loses_its_place() {
    if !has(Part::ServerApi) {
        return;
    }
    let server = Server::start(&["--set", "server.handshake_timeout_ms=1000"]);
    let mut socket = TcpStream::connect(server.addr()).unwrap();
    socket.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let requests = "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
    // At first both sides' buffers fill, and then nothing moves until the server has had enough.
    let end = Instant::now() + Duration::from_secs(30);
    let ended = loop {
        match socket.write(requests.as_bytes()) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => break error,
        }
        assert!(Instant::now() < end, "it is still there");
    };
    assert!(
        matches!(ended.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe),
        "{ended}"
    );
}
