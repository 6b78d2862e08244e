//! A server that is killed and comes back: a durable room goes on where it was, a room in memory
//! says that it began anew.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::server::Server;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::{interval, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::client::{Client, PATH, data_of, offsets_of, values_of};

const ROOM: &str = "public:survivor";
const PUBLISHERS: u64 = 4;
const READERS: u64 = 3;
/// Of each publisher.
const SHARE: u64 = 300;
const TOTAL: u64 = PUBLISHERS * SHARE;
const KILLS: u64 = 6;
/// Publishes under way per publisher.
const WINDOW: usize = 8;
/// Between attempts to connect.
const PACE: Duration = Duration::from_millis(20);
/// Longer than this without anything new is a failure.
const DEADLINE: Duration = Duration::from_secs(60);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Connects as often as it takes, and is greeted.
async fn connected(url: &str) -> Socket {
    let mut pace = interval(PACE);
    loop {
        pace.tick().await;
        let Ok((mut socket, _)) = connect_async(url).await else { continue };
        if let Some(values) = next(&mut socket).await
            && values[0]["type"] == "hello"
        {
            return socket;
        }
    }
}

/// The values of the next text; none when the connection is lost.
async fn next(socket: &mut Socket) -> Option<Vec<Value>> {
    match within(socket.next()).await {
        Some(Ok(Message::Text(text))) => Some(values_of(text.as_bytes())),
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Some(Vec::new()),
        Some(Ok(_) | Err(_)) | None => None,
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(DEADLINE, work).await.expect("traffic goes on")
}

async fn send(socket: &mut Socket, value: Value) -> bool {
    socket.send(Message::text(value.to_string())).await.is_ok()
}

/// Publishes its share and gives where each message was acknowledged. What was not answered is
/// published again under its `msg_id`.
async fn publish_all(url: String, number: u64, acks: watch::Sender<u64>) -> BTreeMap<u64, Value> {
    let url = format!("{url}?client_id=publisher-{number}");
    let mut left = (number * SHARE..(number + 1) * SHARE).collect::<VecDeque<_>>();
    let mut acked = BTreeMap::new();
    'connection: while !left.is_empty() {
        let mut socket = connected(&url).await;
        let mut under_way = VecDeque::new();
        loop {
            while under_way.len() < WINDOW && under_way.len() < left.len() {
                let n = left[under_way.len()];
                let publish = json!({
                    "type": "publish", "id": n + 1, "room": ROOM, "data": n,
                    "msg_id": format!("m-{n}"),
                });
                under_way.push_back(n);
                if !send(&mut socket, publish).await {
                    continue 'connection;
                }
            }
            if under_way.is_empty() {
                break;
            }
            let Some(values) = next(&mut socket).await else { continue 'connection };
            for value in values {
                match value["type"].as_str() {
                    Some("ack") => {
                        let n = value["id"].as_u64().unwrap() - 1;
                        assert_eq!(under_way.pop_front(), Some(n), "acks come in order");
                        assert_eq!(value["level"], "durable");
                        left.pop_front();
                        acked.insert(n, value);
                        acks.send_modify(|count| *count += 1);
                    }
                    Some("ping") => drop(send(&mut socket, json!({"type": "pong"})).await),
                    // The close follows; answers may still come before it.
                    Some("disconnect") => assert_eq!(value["code"], 1012),
                    // Only a refusal with a time may come, and then all of it is sent again.
                    Some("error") => {
                        assert!(value["retry_after_ms"].is_u64(), "{value}");
                        continue 'connection;
                    }
                    _ => panic!("{value}"),
                }
            }
        }
    }
    acked
}

/// Reads from the room's beginning, over every break, until it holds everything.
async fn read_all(url: String, epoch: Value) -> Vec<Value> {
    let mut held = Vec::<Value>::new();
    while held.len() < TOTAL as usize {
        let mut socket = connected(&url).await;
        let since = json!({"epoch": epoch, "offset": held.len()});
        let subscribe = json!({"type": "subscribe", "id": 1, "room": ROOM, "since": since});
        if !send(&mut socket, subscribe).await {
            continue;
        }
        while held.len() < TOTAL as usize {
            let Some(values) = next(&mut socket).await else { break };
            for value in values {
                let messages = match value["type"].as_str() {
                    Some("message") => vec![value],
                    Some("subscribed" | "page") => {
                        assert_ne!(value["recovered"], false, "{value}");
                        value["messages"].as_array().unwrap().clone()
                    }
                    Some("disconnect") => {
                        assert_eq!(value["code"], 1012);
                        continue;
                    }
                    Some("ping") => {
                        send(&mut socket, json!({"type": "pong"})).await;
                        continue;
                    }
                    _ => panic!("{value}"),
                };
                for message in messages {
                    assert_eq!(message["offset"], held.len() + 1, "{message}");
                    assert_eq!(message["epoch"], epoch);
                    held.push(message);
                }
            }
        }
    }
    held
}

/// A seeded sequence (xorshift).
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Publishes and reads while the server ends again and again, and looks at what is left.
fn traffic_over_many_ends(mut end: impl FnMut(&mut Server)) {
    let mut server = Server::start_durable(&[
        "--set",
        "namespaces.public.durable=true",
        "--set",
        "namespaces.public.history_messages_max=5000",
    ]);
    let epoch = Client::open(&server).subscribe(ROOM)["epoch"].clone();
    let url = server.ws(PATH);
    let runtime = Runtime::new().unwrap();
    let (acks, mut acked) = watch::channel(0_u64);
    let readers = (0..READERS).map(|_| runtime.spawn(read_all(url.clone(), epoch.clone())));
    let readers = readers.collect::<Vec<_>>();
    let publishers =
        (0..PUBLISHERS).map(|n| runtime.spawn(publish_all(url.clone(), n, acks.clone())));
    let publishers = publishers.collect::<Vec<_>>();

    let mut state = 0x5eed_u64;
    for round in 0..KILLS {
        // Sometimes soon after a start, sometimes late; always with publishes under way.
        let part = TOTAL / (KILLS + 1);
        let at = round * part + random(&mut state) % part;
        runtime.block_on(within(acked.wait_for(|count| *count > at))).unwrap();
        end(&mut server);
        server.restart();
    }

    let mut positions = BTreeMap::new();
    for publisher in publishers {
        for (n, ack) in runtime.block_on(within(publisher)).unwrap() {
            assert_eq!(ack["epoch"], epoch);
            let other = positions.insert(ack["offset"].as_u64().unwrap(), json!(n));
            assert_eq!(other, None, "an offset was acknowledged for two messages: {ack}");
        }
    }
    assert_eq!(positions.len() as u64, TOTAL);
    let log = Client::open(&server).log(ROOM, 1_000);
    assert_eq!(offsets_of(&log), (1..=TOTAL).collect::<Vec<_>>());
    assert_eq!(data_of(&log), positions.into_values().collect::<Vec<_>>());
    for reader in readers {
        let held = runtime.block_on(within(reader)).unwrap();
        assert_eq!(data_of(&held), data_of(&log));
    }
}

#[test]
fn a_durable_room_loses_nothing_acknowledged_and_uses_no_offset_twice_over_many_kills() {
    traffic_over_many_ends(Server::kill);
}

/// N11: an abort (which an exhausted stack ends in, too) and an illegal instruction. Each is an end that the unit in
/// `deploy/` starts it again after. A bad address that another process signals would be survived once: Rust's handler
/// gives it back to the instruction, and there is none.
#[test]
fn whatever_fault_ends_the_process_is_one_for_its_supervisor_and_loses_nothing_acknowledged() {
    let unit = include_str!("../../deploy/roomkeeper.service");
    assert!(unit.lines().any(|line| line == "Restart=on-failure"));
    let faults = [Signal::ABORT, Signal::ILL];
    let mut next = faults.iter().cycle();
    traffic_over_many_ends(|server| {
        server.fault(*next.next().unwrap());
        assert_eq!(server.wait().code, None, "a signal has ended it");
    });
}

#[test]
fn a_durable_room_goes_on_as_if_nothing_had_happened_over_many_orderly_restarts() {
    traffic_over_many_ends(|server| {
        server.terminate();
        assert_eq!(server.wait().code, Some(0));
    });
}

#[test]
fn a_room_in_memory_says_after_a_kill_that_its_log_began_anew() {
    let mut server = Server::start(&[]);
    let mut ann = Client::open(&server);
    let before = ann.subscribe(ROOM);
    for n in 0..5 {
        ann.publish(ROOM, n);
    }
    server.kill();
    server.restart();
    let mut ann = Client::open(&server);
    Client::open(&server).publish(ROOM, "new");
    let after = ann.subscribe_since(ROOM, &before["epoch"], 5);
    assert_ne!(after["epoch"], before["epoch"]);
    assert_eq!(after["recovered"], false);
    assert_eq!(data_of(after["messages"].as_array().unwrap()), ["new"]);
    let gap = ann.next();
    assert_eq!((&gap["type"], &gap["reason"]), (&json!("gap"), &json!("epoch_changed")));
    assert_eq!(gap["epoch"], after["epoch"]);
    Client::open(&server).publish(ROOM, "live");
    assert_eq!(ann.next()["data"], "live");
}

#[test]
fn a_durable_room_keeps_its_epoch_over_an_orderly_restart_too_and_repeats_are_still_known() {
    let mut server = Server::start_durable(&["--set", "namespaces.public.durable=true"]);
    let command = json!({"type": "publish", "room": ROOM, "data": 1, "msg_id": "once"});
    let path = format!("{PATH}?client_id=same");
    let first = Client::open_at(server.addr(), &path).call_for("ack", command.clone());
    server.terminate();
    assert_eq!(server.wait().code, Some(0));
    server.restart();
    let again = Client::open_at(server.addr(), &path).call_for("ack", command);
    assert_eq!((&again["offset"], &again["epoch"]), (&first["offset"], &first["epoch"]));
    assert_eq!(again["duplicate"], true);
    assert_eq!(Client::open(&server).publish(ROOM, 2)["offset"], 2);
}
