//! One connection at a time, waiting for each answer: what has to be known before anything is
//! measured.
//!
//! It must never be part of a figure.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::wire;

const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Connection {
    stream: TcpStream,
    came: Vec<u8>,
}

impl Connection {
    /// Connects and upgrades.
    pub(crate) fn open(addr: SocketAddr, path: &str) -> Self {
        let mut stream = TcpStream::connect(addr).expect("the server listens");
        stream.set_nodelay(true).expect("a TCP socket");
        stream.set_read_timeout(Some(DEADLINE)).expect("a TCP socket");
        let request = wire::upgrade(&addr.to_string(), path);
        stream.write_all(request.as_bytes()).expect("a fresh socket takes a request");
        let mut connection = Self { stream, came: Vec::new() };
        let end = loop {
            if let Some(at) = connection.came.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            connection.read();
        };
        let head = String::from_utf8_lossy(&connection.came[..end]).into_owned();
        assert!(head.starts_with("HTTP/1.1 101 "), "no upgrade: {head}");
        connection.came.drain(..end);
        connection
    }

    pub(crate) fn say(&mut self, text: &str) {
        let mut frame = Vec::new();
        wire::append(&mut frame, wire::TEXT, text.as_bytes());
        self.stream.write_all(&frame).expect("the server reads");
    }

    /// The next text of this `type`; others are passed over.
    pub(crate) fn hear(&mut self, kind: &str) -> String {
        let start = format!(r#"{{"type":"{kind}""#);
        loop {
            let text = self.next_text();
            if let Some(line) = text.lines().find(|line| line.starts_with(&start)) {
                return line.to_owned();
            }
            assert!(!text.starts_with(r#"{"type":"error""#), "refused: {text}");
        }
    }

    fn next_text(&mut self) -> String {
        loop {
            if let Some((opcode, payload, length)) = wire::front(&self.came) {
                let text = String::from_utf8_lossy(payload).into_owned();
                self.came.drain(..length);
                assert!(opcode != wire::CLOSE, "the server closed");
                if opcode == wire::TEXT {
                    return text;
                }
                continue;
            }
            self.read();
        }
    }

    fn read(&mut self) {
        let mut buffer = [0; 16 << 10];
        let came = self.stream.read(&mut buffer).expect("the server answers in time");
        assert!(came > 0, "the server hung up");
        self.came.extend_from_slice(&buffer[..came]);
    }
}

/// The text behind `"name":"`, up to the next quote.
pub(crate) fn text_of<'t>(frame: &'t str, name: &str) -> Option<&'t str> {
    let (_, behind) = frame.split_once(&format!(r#""{name}":""#))?;
    behind.split_once('"').map(|(text, _)| text)
}

/// The number behind `"name":`.
pub(crate) fn number_of(frame: &str, name: &str) -> Option<u64> {
    let (_, behind) = frame.split_once(&format!(r#""{name}":"#))?;
    let end = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
    behind[..end].parse().ok()
}
