//! One of several nodes is stopped where it stands, for less time than its lease or for more, and goes on.
//!
//! `ROOMKEEPER_STOPPED_SECONDS=120` has it stand still for so long. That what waited in its sockets is refused where its
//! user has gone on elsewhere is shown in `rules`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::raw::RawSocket;
use tests::redis::Redis;
use tests::server::Server;
use tests::token::{SECRET, claims, hs256};

use crate::fleet::until_status;
use crate::postgres_stores::SOON;

const LEASE: Duration = Duration::from_secs(3);
const GRACE: Duration = Duration::from_secs(1);
const ROOM: &str = "public:still";

/// Nobody is refused for asking again and again.
pub(crate) const ASKED_ALL_THE_TIME: [&str; 4] = [
    "limits.commands_per_second=100000",
    "limits.commands_burst=100000",
    "limits.commands_of_user_per_second=100000",
    "limits.commands_of_user_burst=100000",
];

fn nodes(redis: &Redis) -> [Server; 3] {
    let set = [
        format!("redis.url={}", redis.url()),
        "redis.answer_timeout_ms=1000".to_owned(),
        format!("redis.lease_ms={}", LEASE.as_millis()),
        format!("redis.leave_grace_ms={}", GRACE.as_millis()),
        format!("auth.hmac_secret={SECRET}"),
    ];
    let set: Vec<_> = set.into_iter().chain(ASKED_ALL_THE_TIME.map(str::to_owned)).collect();
    let words: Vec<_> = set.iter().flat_map(|set| ["--set", set]).collect();
    let nodes = [(); 3].map(|()| Server::start(&words));
    nodes.iter().for_each(|node| until_status(node, 200));
    nodes
}

/// Somebody in the room, with what was heard so far.
struct Member {
    user: &'static str,
    socket: RawSocket,
    /// The numbers that were said, with their places.
    said: Vec<(u64, u64)>,
    /// Who came and who left.
    seen: Vec<String>,
    asked: u64,
}

impl Member {
    fn join(node: &Server, user: &'static str) -> Self {
        let token = hs256(SECRET, &claims(user, "public:*"));
        let path = format!("/ws/v2/connect?token={token}");
        let mut socket = RawSocket::open(node.addr(), &path).with_deadline(SOON + SOON);
        socket.expect_json("hello");
        let subscribe = json!({"type": "subscribe", "id": 1, "room": ROOM, "presence": true});
        socket.send_json(&subscribe);
        socket.expect_json("subscribed");
        Self { user, socket, said: Vec::new(), seen: Vec::new(), asked: 1 }
    }

    fn hear(&mut self) -> Value {
        let next = self.socket.next_json();
        match next["type"].as_str().unwrap() {
            "message" => {
                let place = (next["offset"].as_u64().unwrap(), next["data"]["n"].as_u64().unwrap());
                self.said.push(place);
            }
            "presence_event" => {
                let (event, user) =
                    (next["event"].as_str().unwrap(), next["user_id"].as_str().unwrap());
                self.seen.push(format!("{event} {user}"));
            }
            // Right behind the wake Redis may be away for a moment: whoever publishes comes again.
            "error" if next["code"] == json!(114) => {}
            "gap" | "unsubscribed" | "error" => panic!("{} hears {next}", self.user),
            _ => {}
        }
        next
    }

    fn send(&mut self, command: &Value) {
        self.socket.send_json(command);
    }

    /// What is answered to a command.
    fn ask(&mut self, mut command: Value) -> Value {
        self.asked += 1;
        command["id"] = json!(self.asked);
        self.send(&command);
        loop {
            let next = self.hear();
            if next["id"] == json!(self.asked) {
                return next;
            }
        }
    }

    fn say(&mut self, n: u64) {
        let ack = self.ask(json!({"type": "publish", "room": ROOM, "data": {"n": n}}));
        assert_eq!(ack["type"], "ack", "{ack}");
    }

    fn listed(&mut self) -> Vec<String> {
        let list = loop {
            let list = self.ask(json!({"type": "presence", "room": ROOM}));
            if list["type"] == "presence" {
                break list;
            }
        };
        let names = list["members"].as_array().unwrap().iter();
        names.map(|member| member["user_id"].as_str().unwrap().to_owned()).collect()
    }

    fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let begun = Instant::now();
        while !is_so(self) {
            assert!(begun.elapsed() < SOON, "in vain: {what}: {:?} {:?}", self.said, self.seen);
        }
    }

    /// Looks at who is there for a while.
    fn look(&mut self, span: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < span {
            drop(self.listed());
        }
    }
}

/// T05, below the deadline: its clients stay, miss nothing, and are missed by nobody.
#[test]
fn a_node_that_stands_still_for_less_than_its_lease_is_missed_by_nobody() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let mut nodes = nodes(&redis);
    let mut ann = Member::join(&nodes[0], "ann");
    let mut bob = Member::join(&nodes[1], "bob");
    for round in 0..3 {
        nodes[0].suspend();
        (1..=5).for_each(|n| bob.say(round * 5 + n));
        bob.look(LEASE / 3);
        nodes[0].go_on();
        let last = round * 5 + 5;
        ann.until("all was heard", |ann| {
            ann.hear();
            ann.said.len() as u64 == last
        });
    }
    bob.look(LEASE + GRACE);
    assert!(bob.seen.iter().all(|seen| seen == "join bob"), "{:?}", bob.seen);
    assert_eq!(ann.said, (1..=15).map(|n| (n, n)).collect::<Vec<_>>());
    assert_eq!(
        (ann.listed(), bob.listed()),
        (vec!["ann".to_owned(), "bob".to_owned()], ann.listed())
    );
}

/// T05, above: others see its members leave, and it speaks under another name when it goes on: each is there once, and
/// what was said meanwhile comes in order, once, before anything that its clients say then.
#[test]
fn a_node_that_stands_still_for_longer_than_its_lease_is_taken_for_gone_and_comes_back_as_another()
{
    if !Redis::is_here() {
        return;
    }
    let span = std::env::var("ROOMKEEPER_STOPPED_SECONDS").ok();
    let span = span.map_or(2 * LEASE, |seconds| Duration::from_secs(seconds.parse().unwrap()));
    let redis = Redis::start();
    let mut nodes = nodes(&redis);
    let mut ann = Member::join(&nodes[0], "ann");
    let mut bob = Member::join(&nodes[1], "bob");
    let mut carl = Member::join(&nodes[2], "carl");
    ann.say(1);
    nodes[0].suspend();
    let stopped = Instant::now();
    (2..=6).for_each(|n| bob.say(n));
    // What its client says lies in its socket.
    let word = json!({
        "type": "publish", "id": 77, "room": ROOM, "data": {"n": 77}, "msg_id": "from-the-past",
    });
    ann.send(&word);
    for other in [&mut bob, &mut carl] {
        other.until("she is gone", |other| {
            drop(other.listed());
            other.seen.iter().any(|seen| seen == "leave ann")
        });
        assert!(stopped.elapsed() > LEASE / 2, "{:?}", stopped.elapsed());
        assert_eq!(other.listed(), ["bob", "carl"]);
    }
    bob.look(span.saturating_sub(stopped.elapsed()));
    (7..=9).for_each(|n| carl.say(n));
    nodes[0].go_on();
    ann.until("her word is taken", |ann| {
        let answer = ann.hear();
        let is_its = answer["id"] == json!(77);
        if is_its && answer["type"] == "error" {
            ann.send(&word);
        }
        is_its && answer["type"] == "ack"
    });
    for other in [&mut bob, &mut carl] {
        other.until("she is back", |other| {
            drop(other.listed());
            other.seen.last().is_some_and(|seen| seen == "join ann")
        });
        other.until("her word is heard", |other| {
            drop(other.listed());
            other.said.iter().any(|(_, n)| *n == 77)
        });
    }
    bob.say(10);
    for member in [&mut ann, &mut bob, &mut carl] {
        member.until("the last is heard", |member| {
            drop(member.listed());
            member.said.last().is_some_and(|(_, n)| *n == 10)
        });
    }
    let order = [1, 2, 3, 4, 5, 6, 7, 8, 9, 77, 10];
    let all: Vec<_> = (1..).zip(order).collect();
    assert_eq!(ann.said, all);
    assert_eq!((&bob.said, &carl.said), (&all, &all));
    // Nobody is there twice, and who leaves is gone.
    until_status(&nodes[0], 200);
    bob.look(LEASE + GRACE);
    for member in [&mut ann, &mut bob, &mut carl] {
        assert_eq!(member.listed(), ["ann", "bob", "carl"]);
    }
    let of_ann: Vec<_> = bob.seen.iter().filter(|seen| seen.ends_with(" ann")).collect();
    assert_eq!(of_ann, ["leave ann", "join ann"]);
    drop(ann);
    bob.until("she has left", |bob| bob.listed() == ["bob", "carl"]);
}
