//! Publishes over HTTP: some connections that are kept alive, one request under way on each.
//!
//! All requests of a round are written before any answer of it is read, so that the server always
//! has as many as there are connections. It must never count a round with an answer that is not 200.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::Report;
use crate::arguments::{Arguments, Length};
use crate::usage::Process;

const DEADLINE: Duration = Duration::from_secs(60);

struct Backend {
    stream: TcpStream,
    request: Vec<u8>,
}

impl Backend {
    fn open(arguments: &Arguments, n: usize) -> Self {
        let stream = TcpStream::connect(arguments.addr).expect("the server listens");
        stream.set_nodelay(true).expect("a TCP socket");
        stream.set_read_timeout(Some(DEADLINE)).expect("a TCP socket");
        let room = n % arguments.rooms;
        let data = "x".repeat(arguments.size);
        let body = format!(r#"{{"room":"public:r{room}","data":"{data}"}}"#);
        let key = arguments.target.token.as_deref().unwrap_or_default();
        let head = format!(
            "POST /api/v1/publish HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {key}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            arguments.addr,
            body.len()
        );
        Self { stream, request: [head.as_bytes(), body.as_bytes()].concat() }
    }

    fn ask(&mut self) {
        self.stream.write_all(&self.request).expect("the server reads");
    }

    /// Reads one answer; says what is wrong with it, if anything.
    fn hear(&mut self) -> Option<String> {
        let (mut came, mut buffer) = (Vec::new(), [0; 4 << 10]);
        loop {
            if let Some(length) = whole(&came) {
                let is_good = came.starts_with(b"HTTP/1.1 200 ") && length == came.len();
                return (!is_good).then(|| String::from_utf8_lossy(&came).into_owned());
            }
            match self.stream.read(&mut buffer) {
                Ok(0) | Err(_) => return Some("the server hung up".to_owned()),
                Ok(n) => came.extend_from_slice(&buffer[..n]),
            }
        }
    }
}

/// How long an answer is, head and body, once both are there.
fn whole(came: &[u8]) -> Option<usize> {
    let head = came.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&came[..head]).to_ascii_lowercase();
    let (_, length) = text.split_once("content-length: ")?;
    let length: usize = length.split("\r\n").next()?.parse().ok()?;
    (came.len() >= head + length).then_some(head + length)
}

fn round(backends: &mut [Backend], faults: &mut Vec<String>) {
    for backend in &mut *backends {
        backend.ask();
    }
    for backend in backends {
        faults.extend(backend.hear());
    }
}

pub(crate) fn run(arguments: &Arguments) -> Report {
    let process = Process(arguments.pid);
    let mut faults = Vec::new();
    let mut backends: Vec<_> =
        (0..arguments.connections).map(|n| Backend::open(arguments, n)).collect();
    let warm = Instant::now();
    while warm.elapsed() < arguments.warm && faults.is_empty() {
        round(&mut backends, &mut faults);
    }
    let (start, before, mut rounds) = (Instant::now(), process.cpu(), 0_u64);
    let is_over = |rounds: u64| match arguments.length {
        Length::Time(time) => start.elapsed() >= time,
        Length::Messages(messages) => rounds * arguments.connections as u64 >= messages,
    };
    while !is_over(rounds) && faults.is_empty() {
        round(&mut backends, &mut faults);
        rounds += 1;
    }
    let (seconds, spent) = (start.elapsed().as_secs_f64(), process.cpu() - before);
    let publishes = rounds * arguments.connections as u64;
    let json = format!(
        "{{\"mode\":\"http\",\"connections\":{},\"rooms\":{},\"publishes\":{publishes},\
         \"seconds\":{seconds:.3},\"publish_per_s\":{:.0},\"cpu_us_per_publish\":{:.2}}}",
        arguments.connections,
        arguments.rooms,
        publishes as f64 / seconds,
        spent.as_secs_f64() * 1e6 / publishes.max(1) as f64,
    );
    faults.truncate(1);
    Report { json, faults }
}
