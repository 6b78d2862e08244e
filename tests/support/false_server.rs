//! A server that does one thing wrong: what a load tool has to notice.
//!
//! It speaks as much of the protocol as publishing in rooms and coming back to them needs, in whole frames, since a client
//! may read every field; and must never be right by accident: each lie happens exactly once. A thread for each connection, one
//! lock for all; whoever holds it and waits stalls everybody, as a server with a blocked thread does.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use websocket_codec::handshake::accept_key;
use websocket_codec::{CloseCode, Decoder, Event, Limits, Role, encode_close, encode_text};

const LIMITS: Limits = Limits { message_bytes_max: 1 << 20, fragments_max: 16 };
/// Every room's.
const EPOCH: &str = "000000000000000e";
/// When everything happens.
const NOW: &str = "2026-11-21T09:38:00.123Z";

/// What it does wrong, with the publish (counted from 0) at which it does it.
#[derive(Clone, Copy, Debug)]
pub enum Lie {
    /// Nothing.
    None,
    /// The last member does not get this message.
    Skip(usize),
    /// The last member gets this message twice.
    Double(usize),
    /// Everybody gets this message behind the next one.
    Swap(usize),
    /// Nothing happens for so long before this message is dealt with.
    Stall(usize, Duration),
    /// The last member is closed with this code.
    Close(usize, u16),
    /// Every publish from this one on is refused with this error code.
    Refuse(usize, u16),
    /// Whoever subscribes is refused with this error code.
    RefuseRooms(u16),
    /// The last member gets this message again so long after it, or, where it is brought to those
    /// who come back, the first of them.
    DoubleLate(usize, Duration),
    /// Somebody who is in other rooms gets this message, too.
    Stray(usize),
    /// The first who comes back does not get this message, nor when it comes for it again, and is pinged so often from
    /// then on.
    Withhold(usize, Duration),
    /// The first who comes back does not get this message, but does when it comes for it again.
    Forget(usize),
    /// The first who comes back is sent away, and told to come back after that.
    SendAway(Duration),
    /// The first who comes back gets this message, although it was there before.
    Again(usize),
    /// Nothing: but a publish is acknowledged only when every member has answered a ping.
    AckAfterPongs,
}

struct Member {
    socket: TcpStream,
    room: String,
}

struct State {
    lie: Lie,
    members: Vec<Member>,
    published: usize,
    /// The message that comes behind the next one, with its room.
    held: Option<(String, Vec<u8>)>,
    /// By room: its messages, each with the number of its publish.
    history: BTreeMap<String, Vec<(usize, String)>>,
    /// Whether somebody has come back already.
    came_back: bool,
    /// Pings that members have not answered, and what is acknowledged when they have.
    pings: usize,
    acks: Vec<(TcpStream, Value)>,
}

/// The running server; it ends with its value.
pub struct FalseServer {
    addr: SocketAddr,
    ending: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl FalseServer {
    /// Starts it on a free port.
    #[must_use]
    pub fn start(lie: Lie) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let ending = Arc::new(AtomicBool::new(false));
        let state = Arc::new(Mutex::new(State {
            lie,
            members: Vec::new(),
            published: 0,
            held: None,
            history: BTreeMap::new(),
            came_back: false,
            pings: 0,
            acks: Vec::new(),
        }));
        let end = Arc::clone(&ending);
        let accepting = std::thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                if end.load(Ordering::Acquire) {
                    return;
                }
                let state = Arc::clone(&state);
                std::thread::spawn(move || serve(socket, &state));
            }
        });
        Self { addr, ending, accepting: Some(accepting) }
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}", self.addr)
    }
}

impl Drop for FalseServer {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        // Only to wake it.
        let _ = TcpStream::connect(self.addr);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

/// One connection, until it ends.
fn serve(mut socket: TcpStream, state: &Mutex<State>) {
    socket.set_nodelay(true).expect("a TCP socket");
    let mut buffer = vec![0; 64 << 10];
    let Some(mut rest) = upgrade(&mut socket, &mut buffer) else { return };
    say(&mut socket, &hello());
    let mut decoder = Decoder::new(Role::Server);
    loop {
        let mut used = 0;
        while used < rest.len() {
            let decoded = decoder.decode(&mut rest[used..], &LIMITS).expect("the client is right");
            used += decoded.used;
            match decoded.event {
                Some(Event::Text(text)) => {
                    let command = serde_json::from_str(&text).expect("commands are JSON");
                    obey(&socket, &command, &mut state.lock().unwrap());
                }
                Some(Event::Close(_)) => return,
                Some(_) | None => {}
            }
        }
        match socket.read(&mut buffer) {
            Ok(0) => return,
            Ok(came) => rest = buffer[..came].to_vec(),
            Err(error) if error.kind() == ErrorKind::Interrupted => rest.clear(),
            Err(_) => return,
        }
    }
}

/// The greeting, which answers nobody and brings nothing back.
fn hello() -> Value {
    json!({"type": "hello", "id": null, "accepted_version": 2, "features": ["resume"],
        "request_id": "r", "client_id": "c", "connection_id": "0000000000000001", "user_id": null,
        "rooms": [], "session": null, "resumed": [], "heartbeat_interval_ms": 25000})
}

/// Answers the upgrade; gives what came behind it.
fn upgrade(socket: &mut TcpStream, buffer: &mut [u8]) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    let end = loop {
        if let Some(at) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        match socket.read(buffer) {
            Ok(came @ 1..) => head.extend_from_slice(&buffer[..came]),
            Ok(_) | Err(_) => return None,
        }
    };
    let rest = head.split_off(end);
    let text = String::from_utf8(head).expect("a request is text");
    let key = text.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
    let accept = accept_key(key.expect("an upgrade has a key"));
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    socket.write_all(answer.as_bytes()).ok()?;
    Some(rest)
}

fn obey(socket: &TcpStream, command: &Value, state: &mut State) {
    let mut socket = socket.try_clone().expect("a socket has copies");
    match command["type"].as_str() {
        Some("subscribe") => {
            if let Lie::RefuseRooms(code) = state.lie {
                return say(&mut socket, &error(&command["id"], code));
            }
            let room = command["room"].as_str().expect("a room has a name").to_owned();
            say(
                &mut socket,
                &json!({"type": "subscribed", "id": command["id"], "room": room, "epoch": EPOCH,
                    "offset": 0, "recovered": false, "messages": [], "more": false}),
            );
            state.members.push(Member { socket, room });
        }
        Some("publish") => publish(&mut socket, command, state),
        Some("connect") => bring_back(&mut socket, command, state),
        Some("pong") => {
            state.pings = state.pings.saturating_sub(1);
            if state.pings == 0 {
                state.acks.drain(..).for_each(|(mut socket, ack)| say(&mut socket, &ack));
            }
        }
        _ => {}
    }
}

fn error(id: &Value, code: u16) -> Value {
    json!({"type": "error", "id": id, "code": code, "error": "a_lie", "message": "no",
        "field": null, "retry_after_ms": null})
}

fn publish(socket: &mut TcpStream, command: &Value, state: &mut State) {
    let nth = state.published;
    state.published += 1;
    match state.lie {
        Lie::Stall(at, time) if at == nth => std::thread::sleep(time),
        Lie::Close(at, code) if at == nth => {
            let code = CloseCode::new(code).expect("a code for the wire");
            let mut last = state.members.pop().expect("somebody is there");
            let _ = last.socket.write_all(&encode_close(code, "a lie"));
        }
        Lie::Refuse(at, code) if at <= nth => {
            return say(socket, &error(&command["id"], code));
        }
        _ => {}
    }
    let room = command["room"].as_str().expect("a room has a name").to_owned();
    // As a server writes it, since a load tool may look for the very bytes.
    let data = &command["data"];
    let log = state.history.entry(room.clone()).or_default();
    let offset = log.len() + 1;
    let text = format!(
        r#"{{"type":"message","room":"{room}","epoch":"{EPOCH}","offset":{offset},"sender":{{"user_id":null,"connection_id":null}},"data":{data},"timestamp":"{NOW}"}}"#
    );
    log.push((nth, text.clone()));
    if !command["id"].is_null() {
        let id = &command["id"];
        let ack = json!({"type": "ack", "id": id, "room": room, "epoch": EPOCH, "offset": offset,
            "duplicate": false, "level": "accepted"});
        acknowledge(socket, ack, state);
    }
    let frame = encode_text(text.as_bytes()).to_vec();
    if matches!(state.lie, Lie::Swap(at) if at == nth) {
        state.held = Some((room, frame));
        return;
    }
    deliver(state, nth, &room, &frame);
    if let Some((room, frame)) = state.held.take() {
        deliver(state, usize::MAX, &room, &frame);
    }
}

fn acknowledge(socket: &mut TcpStream, ack: Value, state: &mut State) {
    if !matches!(state.lie, Lie::AckAfterPongs) {
        return say(socket, &ack);
    }
    if state.acks.is_empty() {
        state.pings = state.members.iter().filter(|member| is_there(&member.socket)).count();
        for member in &mut state.members {
            say(&mut member.socket, &json!({"type": "ping"}));
        }
    }
    if state.pings == 0 {
        return say(socket, &ack);
    }
    state.acks.push((socket.try_clone().expect("a socket has copies"), ack));
}

/// Whether the other side has not cut it.
fn is_there(socket: &TcpStream) -> bool {
    socket.peer_addr().is_ok()
}

fn deliver(state: &mut State, nth: usize, room: &str, frame: &[u8]) {
    let last = state.members.len().saturating_sub(1);
    for (place, member) in state.members.iter_mut().enumerate() {
        let times = match state.lie {
            Lie::Skip(at) if at == nth && place == last => 0,
            Lie::Double(at) if at == nth && place == last => 2,
            _ => 1,
        };
        if member.room == room {
            for _ in 0..times {
                // Whoever is gone gets nothing.
                let _ = member.socket.write_all(frame);
            }
        }
        match state.lie {
            Lie::DoubleLate(at, time) if at == nth && place == last => {
                write_late(&member.socket, time, frame);
            }
            Lie::Stray(at) if at == nth && member.room != room => {
                state.lie = Lie::None;
                let _ = member.socket.write_all(frame);
            }
            _ => {}
        }
    }
}

/// Writes a frame once, after so long.
fn write_late(socket: &TcpStream, time: Duration, frame: &[u8]) {
    let mut socket = socket.try_clone().expect("a socket has copies");
    let frame = frame.to_vec();
    std::thread::spawn(move || {
        std::thread::sleep(time);
        let _ = socket.write_all(&frame);
    });
}

/// Answers `connect` with what came in each room behind the position that it names.
fn bring_back(socket: &mut TcpStream, command: &Value, state: &mut State) {
    let is_first = !std::mem::replace(&mut state.came_back, true);
    if let (true, Lie::SendAway(time)) = (is_first, state.lie) {
        return send_away(socket, time);
    }
    let (mut rooms, mut pings) = (Vec::new(), None);
    for entry in command["resume"].as_array().expect("whoever comes back names rooms") {
        let room = entry["room"].as_str().expect("a room has a name");
        let from = entry["offset"].as_u64().expect("a position is a number") as usize;
        let log = state.history.get(room).map_or(&[][..], Vec::as_slice);
        let lie = match state.lie {
            // Nobody else stands right before it.
            Lie::Withhold(at, every) if log.get(from).is_some_and(|(nth, _)| *nth == at) => {
                Lie::Withhold(at, every)
            }
            lie if is_first => lie,
            _ => Lie::None,
        };
        if let Lie::Withhold(_, every) = lie {
            pings = Some(every);
        }
        let brought = log.iter().enumerate().filter(|(place, (nth, _))| match lie {
            Lie::Withhold(at, _) | Lie::Forget(at) if at == *nth => false,
            Lie::Again(at) if at == *nth => true,
            _ => *place >= from,
        });
        let brought = brought.map(|(_, (nth, text))| {
            if let Lie::DoubleLate(at, time) = lie
                && at == *nth
            {
                write_late(socket, time, &encode_text(text.as_bytes()));
            }
            text.as_str()
        });
        // As a server writes it, too.
        rooms.push(format!(
            r#"{{"room":"{room}","epoch":"{EPOCH}","offset":{},"recovered":true,"gap":null,"messages":[{}],"more":false}}"#,
            log.len(),
            brought.collect::<Vec<_>>().join(","),
        ));
    }
    let mut hello = hello();
    hello["id"] = command["id"].clone();
    let text = text_of(&hello).replacen(
        r#""resumed":[]"#,
        &format!(r#""resumed":[{}]"#, rooms.join(",")),
        1,
    );
    let _ = socket.write_all(&encode_text(text.as_bytes()));
    if let Some(every) = pings {
        ping(socket, every);
    }
}

/// Ends a connection in order, and says when to come back.
fn send_away(socket: &mut TcpStream, time: Duration) {
    let code = CloseCode::new(1012).expect("a code for the wire");
    let words = json!({"type": "disconnect", "code": code.get(), "reason": "a lie",
        "reconnect": true, "reconnect_after_ms": time.as_millis() as u64});
    say(socket, &words);
    let _ = socket.write_all(&encode_close(code, "a lie"));
}

/// Pings so often until the other side is gone.
fn ping(socket: &TcpStream, every: Duration) {
    let mut socket = socket.try_clone().expect("a socket has copies");
    std::thread::spawn(move || {
        let text = text_of(&json!({"type": "ping"}));
        while socket.write_all(&encode_text(text.as_bytes())).is_ok() {
            std::thread::sleep(every);
        }
    });
}

fn say(socket: &mut TcpStream, frame: &Value) {
    let _ = socket.write_all(&encode_text(text_of(frame).as_bytes()));
}

/// A frame as a server writes it: its type comes first.
fn text_of(frame: &Value) -> String {
    let kind = frame["type"].as_str().expect("a frame has a type");
    let rest = serde_json::to_string(frame).expect("JSON");
    let rest = rest.replacen(&format!(r#""type":"{kind}""#), &format!(r#""timestamp":"{NOW}""#), 1);
    format!(r#"{{"type":"{kind}",{}"#, &rest[1..])
}
