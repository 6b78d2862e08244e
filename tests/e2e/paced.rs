//! A node of several that stops: its clients go one by one, whether they obey or not.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tests::frame::{self, CLOSE};
use tests::hosts::{Part, has};
use tests::raw::RawSocket;
use tests::server::Server;

use crate::client::{Client, PATH, until};

const CLIENTS: usize = 1_000;
const WINDOW: Duration = Duration::from_secs(5);

/// The end of one connection, as the server told it.
struct End {
    /// Milliseconds of the server's clock, within an hour.
    at_ms: u64,
    reconnect_after_ms: u64,
    code: u16,
}

/// Reads to the end of what comes.
fn end_of(mut socket: TcpStream) -> End {
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).expect("an end in order, and no reset");
    let (mut told, mut code) = (None, None);
    while let Some(received) = frame::take(&mut bytes) {
        if received.opcode == CLOSE {
            code = received.payload.first_chunk().map(|two| u16::from_be_bytes(*two));
            continue;
        }
        for line in received.payload.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let value: Value = serde_json::from_slice(line).unwrap();
            told = (value["type"] == "disconnect").then_some(value).or(told);
        }
    }
    let told = told.expect("it was told to go");
    let timestamp = told["timestamp"].as_str().unwrap();
    let number = |at: std::ops::Range<usize>| timestamp[at].parse::<u64>().unwrap();
    End {
        at_ms: (number(14..16) * 60 + number(17..19)) * 1_000 + number(20..23),
        reconnect_after_ms: told["reconnect_after_ms"].as_u64().expect("when to come back"),
        code: code.expect("a close frame"),
    }
}

/// The most within any span of this length.
fn peak(times: &[u64], span_ms: u64) -> usize {
    let within = |from: u64| times.iter().filter(|at| (from..from + span_ms).contains(at)).count();
    times.iter().map(|from| within(*from)).max().unwrap_or(0)
}

/// Room for both ends of everybody.
fn raise_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

/// N02: by the times at which the server told them. Whoever comes back as soon as it is told makes no storm,
/// and nobody sees an end without a close frame.
#[test]
#[allow(clippy::print_stdout, reason = "figures for whoever runs it")]
fn a_thousand_go_one_by_one_over_the_window_and_each_is_told() {
    raise_descriptors();
    let window = format!("server.drain_window_ms={}", WINDOW.as_millis());
    let mut server = Server::start(&["--set", &window, "--set", "server.drain_mode=paced"]);
    let sockets: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut socket = RawSocket::open(server.addr(), PATH);
            socket.expect_json("hello");
            socket.into_stream()
        })
        .collect();
    let begun = Instant::now();
    server.terminate();
    let ends: Vec<_> = sockets.into_iter().map(end_of).collect();
    let exit = server.wait();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let took = begun.elapsed();
    assert!(took < WINDOW + Duration::from_secs(7), "{took:?}");
    assert!(ends.iter().all(|end| (end.code, end.reconnect_after_ms) == (1012, 0)));
    // Past a full hour everybody behind it counts on.
    let first = ends.iter().map(|end| end.at_ms).min().unwrap();
    let is_past_the_hour = ends.iter().any(|end| end.at_ms > first + 1_800_000);
    let at = |end: &End| match end.at_ms {
        ms if is_past_the_hour && ms < 1_800_000 => ms + 3_600_000,
        ms => ms,
    };
    let mut times: Vec<_> = ends.iter().map(at).collect();
    times.sort_unstable();
    let even = CLIENTS as f64 / WINDOW.as_secs_f64();
    let (second, tenth) = (peak(&times, 1_000), peak(&times, 100));
    println!("{{\"of_a_second\":{second},\"of_a_tenth\":{tenth},\"even_of_a_second\":{even}}}");
    assert!(second as f64 <= 1.2 * even, "{second} went in one second");
    let span = times[CLIENTS - 1] - times[0];
    assert!(span > 4_000, "all went in {span} ms");
}

/// N02: what is said and answered while others go.
#[test]
fn until_its_time_a_connection_publishes_and_hears_as_ever() {
    let window = ["--set", "server.drain_window_ms=3000", "--set", "server.drain_mode=paced"];
    let mut server = Server::start(&window);
    let mut clients: Vec<_> = (0..8).map(|_| Client::open(&server)).collect();
    clients.iter_mut().for_each(|client| drop(client.subscribe("public:end")));
    server.terminate();
    until("it says that it stops", || server.log().contains("stopping").then_some(()));
    let mut said = 0_u64;
    let mut all: Vec<Vec<Value>> = Vec::new();
    // Each says something whenever it is looked at; nobody waits for anybody's answer.
    for client in &mut clients {
        for _ in 0..20 {
            client.socket.try_send(
                &frame::Frame::text(
                    &json!({"type": "publish", "id": 9, "room": "public:end", "data": said})
                        .to_string(),
                )
                .bytes(),
            );
            said += 1;
        }
    }
    for client in &mut clients {
        let (values, code) = client.until_closed();
        assert_eq!(code, 1012);
        all.push(values);
    }
    assert_eq!(server.wait().code, Some(0));
    let of = |kind: &str, values: &[Value]| -> BTreeSet<u64> {
        let chosen = values.iter().filter(|value| value["type"] == kind);
        chosen.map(|value| value["offset"].as_u64().unwrap()).collect()
    };
    let acked: BTreeSet<_> = all.iter().flat_map(|values| of("ack", values)).collect();
    assert!(acked.len() > 20, "who was still there published: {acked:?}");
    // Who went last heard everything that anybody was told is taken.
    let heard = all.iter().map(|values| of("message", values)).max_by_key(BTreeSet::len).unwrap();
    assert!(acked.is_subset(&heard), "{acked:?} {heard:?}");
}

/// N02, N04: without anybody there is nothing to wait for, and with a few it takes no longer than the window.
#[test]
fn a_paced_drain_ends_with_its_last_connection() {
    if !has(Part::ServerApi) {
        return;
    }
    let set = ["--set", "server.drain_mode=paced", "--set", "server.drain_window_ms=60000"];
    let mut server = Server::start(&set);
    let leaving: Vec<_> = (0..3).map(|_| Client::open(&server)).collect();
    let begun = Instant::now();
    server.terminate();
    until("it says that it stops", || server.log().contains("stopping").then_some(()));
    drop(leaving);
    assert_eq!(server.wait().code, Some(0));
    assert!(begun.elapsed() < Duration::from_secs(20), "it took {:?}", begun.elapsed());
}
