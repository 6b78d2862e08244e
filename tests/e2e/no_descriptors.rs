//! No file descriptors left, or no place under the limit of connections: who is there is not
//! disturbed, who comes is told, and afterwards all is as before.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
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

/// R05: no descriptor left for this process; how soon others come in is not measured.
#[test]
fn without_descriptors_the_connected_stay_undisturbed_and_the_others_are_told() {
    let mut server = Server::start(&[]);
    // The two clients inside, and a few more; one is kept back for telling the others.
    let limit = server.open_fds() as u64 + 2 + 10;
    let pid = i32::try_from(server.id()).ok().and_then(Pid::from_raw);
    let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
    prlimit(pid, Resource::Nofile, limit).expect("our child can be limited");
    crowd_at_the_door(&server, 20);
    assert!(server.is_running());
}

#[test]
fn above_the_limit_of_connections_the_others_are_told() {
    let server = Server::start(&["--set", "server.connections_max=12"]);
    crowd_at_the_door(&server, 10);
}
