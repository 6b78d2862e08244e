//! No file descriptors left, or no place under the limit of connections: who is there is not
//! disturbed, who comes is told, and afterwards all is as before.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tests::hosts::{Part, has};
use tests::raw::RawSocket;
use tests::server::Server;

use crate::client::{Client, PATH, SOON, until};

/// What became of one more client.
enum Try {
    In(#[allow(dead_code, reason = "held open")] TcpStream),
    Busy,
    Closed,
}

fn try_to_connect(addr: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect_timeout(&addr, SOON).expect("the kernel answers");
    stream.set_read_timeout(Some(SOON)).unwrap();
    let request = format!(
        "GET {PATH} HTTP/1.1\r\nHost: {addr}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    // One that was turned away at once can't take it any more.
    let _ = stream.write_all(request.as_bytes());
    stream
}

fn outcome(mut stream: TcpStream) -> Try {
    let mut head = [0; 12];
    match stream.read(&mut head) {
        Ok(count) if head[..count].starts_with(b"HTTP/1.1 101") => Try::In(stream),
        Ok(count) if head[..count].starts_with(b"HTTP/1.1 503") => Try::Busy,
        Ok(0) => Try::Closed,
        Ok(count) => panic!("{:?}", String::from_utf8_lossy(&head[..count])),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Try::Closed,
        Err(error) => panic!("left waiting: {error}"),
    }
}

/// Exchanges messages between two clients that were there before, while 200 more try.
fn crowd_at_the_door(server: &Server, room_for: usize) {
    let (mut ann, mut bob) = (Client::open(server), Client::open(server));
    bob.subscribe("public:inside");
    let streams = (0..200).map(|n| {
        ann.publish("public:inside", n);
        try_to_connect(server.addr())
    });
    let streams = streams.collect::<Vec<_>>();
    let (mut inside, mut busy, mut closed) = (Vec::new(), 0, 0);
    for stream in streams {
        match outcome(stream) {
            Try::In(stream) => inside.push(stream),
            Try::Busy => busy += 1,
            Try::Closed => closed += 1,
        }
        ann.publish("public:inside", "between");
    }
    let (n_inside, refused) = (inside.len(), busy + closed);
    assert!(n_inside <= room_for, "{n_inside} came in, {room_for} could");
    assert!(refused >= 200 - room_for, "{n_inside} in, {busy} busy, {closed} closed");
    assert!(busy > 0, "nobody was told: {closed} were just closed");
    assert_eq!(bob.messages(400).last().unwrap()["data"], "between");
    drop(inside);
    until("somebody else comes in", || match outcome(try_to_connect(server.addr())) {
        Try::In(_) => Some(()),
        Try::Busy | Try::Closed => None,
    });
    ann.publish("public:inside", "the end");
    assert_eq!(bob.next()["data"], "the end");
}

/// Leaves the server this many descriptors.
fn leave(server: &Server, count: u64) {
    let limit = server.open_fds() as u64 + count;
    let pid = i32::try_from(server.id()).ok().and_then(Pid::from_raw);
    let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
    prlimit(pid, Resource::Nofile, limit).expect("our child can be limited");
}

/// R05: no descriptor left for this process.
#[test]
fn without_descriptors_the_connected_stay_undisturbed_and_the_others_are_told() {
    let mut server = Server::start(&[]);
    // The two clients inside, and a few more; one is kept back for telling the others.
    leave(&server, 2 + 10);
    crowd_at_the_door(&server, 20);
    assert!(server.is_running());
}

#[test]
fn above_the_limit_of_connections_the_others_are_told() {
    let server = Server::start(&["--set", "server.connections_max=12"]);
    crowd_at_the_door(&server, 10);
}

/// The status of `/readyz` on a connection that was there before. A body stands before the next head,
/// and has no space.
fn readiness(probe: &mut RawSocket) -> String {
    probe.send(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n");
    let head = probe.read_head();
    head.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// R05: how soon, and what health says meanwhile.
#[test]
fn the_first_that_goes_makes_room_for_the_next_within_a_tenth_of_a_second() {
    let server = Server::start(&[]);
    let mut probe = has(Part::ServerApi).then(|| RawSocket::connect(server.addr()));
    if let Some(probe) = &mut probe {
        assert_eq!(readiness(probe), "200");
    }
    leave(&server, 10);
    let mut inside = Vec::new();
    until("the last descriptor is used", || match outcome(try_to_connect(server.addr())) {
        Try::In(stream) => {
            inside.push(stream);
            None
        }
        Try::Busy | Try::Closed => Some(()),
    });
    if let Some(probe) = &mut probe {
        assert_eq!(readiness(probe), "503");
    }
    // A machine that is busy with other tests may take its time; it does not each time.
    let fastest = (0..5).filter_map(|_| {
        drop(inside.pop()?);
        let begun = Instant::now();
        let stream =
            until("somebody else comes in", || match outcome(try_to_connect(server.addr())) {
                Try::In(stream) => Some(stream),
                Try::Busy | Try::Closed => None,
            });
        let took = begun.elapsed();
        inside.insert(0, stream);
        Some(took)
    });
    let fastest = fastest.min().expect("somebody was inside");
    assert!(fastest < Duration::from_millis(100), "{fastest:?}");
}
