//! Very many come to rooms and leave them, over nodes that die in between or are cut off: in the end each list has those
//! who are there and nobody else, and of the others nothing is left.
//!
//! `ROOMKEEPER_PRESENCE=100000` has so many joins and leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use application::mailbox::{Mail, Mailbox, Post};
use application::ports::Presence;
use application::testing::broker_contract::{MAIL_MAX, room};
use broker_redis::Config;
use domain::id::{ConnectionId, UserId};
use domain::presence::{PresenceChange, PresenceKey};
use futures_util::future::join_all;
use tests::redis::Redis;
use tokio::runtime::Handle;

use crate::brokers::{Node, in_time};
use crate::passage::Passage;

const CHANGES: usize = 20_000;
/// Nodes that die in turn, or are cut off; one more is there all the time.
const MORTAL: usize = 3;
const ROOMS: usize = 8;
const USERS: usize = 60;
/// How many changes of a node are under way at once.
const AT_ONCE: usize = 50;
/// How many there are before something happens to a node.
const ROUND: usize = 2_000;
const LEASE: Duration = Duration::from_secs(1);

fn room_name(number: usize) -> String {
    format!("public:crowd/{number}")
}

fn user(number: usize) -> PresenceKey {
    PresenceKey::User(UserId::parse(&format!("u{number:02}")).unwrap())
}

/// Numbers that look drawn, the same each time.
struct Drawn(u64);

impl Drawn {
    fn below(&mut self, n: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }
}

/// A node and who is where over it: room, user, connection.
struct Place {
    node: Node,
    way: Passage,
    here: Vec<(usize, usize, u64)>,
}

async fn place(redis: &Redis) -> Place {
    let way = Passage::start(&Handle::current(), redis.port());
    let config = Config {
        lease: LEASE,
        leave_grace: Duration::ZERO,
        answer_timeout: LEASE / 3,
        ..Config::new(way.url().into())
    };
    Place { node: Node::start_with(config).await, way, here: Vec::new() }
}

impl Place {
    /// Some come and some leave. What could not be said is not known to have happened: it is taken back, or said again.
    async fn change(&mut self, drawn: &mut Drawn, next: &mut u64) {
        let (mut come, mut go) = (Vec::new(), Vec::new());
        for _ in 0..AT_ONCE {
            // As many are there after a while as are meant to be.
            if self.here.len() > AT_ONCE && drawn.below(2) == 0 {
                go.push(self.here.swap_remove(drawn.below(self.here.len())));
            } else {
                *next += 1;
                come.push((drawn.below(ROOMS), drawn.below(USERS), *next));
            }
        }
        let broker = &*self.node.broker;
        let entering = come.iter().map(|(of, who, id)| async move {
            broker.enter(&room(&room_name(*of)), &user(*who), ConnectionId::from_bits(*id)).await
        });
        let leaving = go.iter().map(|(of, who, id)| async move {
            broker.leave(&room(&room_name(*of)), &user(*who), ConnectionId::from_bits(*id)).await;
        });
        let all = async { tokio::join!(join_all(entering), join_all(leaving)) };
        let (entered, _) = in_time("they come and go", all).await;
        for (one, entered) in come.into_iter().zip(entered) {
            match entered {
                Ok(()) => self.here.push(one),
                // As a connection does that could not join.
                Err(_) => {
                    let (of, who, id) = one;
                    broker
                        .leave(&room(&room_name(of)), &user(who), ConnectionId::from_bits(id))
                        .await;
                }
            }
        }
    }
}

/// What one follower hears: of each member joins and leaves in turn, as long as nothing was missed.
struct Follower {
    mailbox: Arc<Mailbox>,
    here: BTreeMap<(String, String), bool>,
    events: usize,
}

impl Follower {
    fn hear(&mut self) {
        let mut post = Post::default();
        self.mailbox.take(&mut post);
        if post.presence_hole || !post.holes.is_empty() {
            self.here.clear();
        }
        for mail in post.mail {
            let Mail::Presence(room, event) = mail else { continue };
            let is_here = match event.change {
                PresenceChange::Join => true,
                PresenceChange::Leave => false,
                PresenceChange::Update => continue,
            };
            self.events += 1;
            let key = (room.to_string(), event.who.to_string());
            let before = self.here.insert(key.clone(), is_here);
            assert_ne!(before, Some(is_here), "{key:?} twice");
        }
    }
}

/// Waits until a node lists in each room just these, over so many connections.
async fn until_true(node: &Node, places: &[&Place]) -> Duration {
    let begun = Instant::now();
    for of in 0..ROOMS {
        let here: Vec<_> =
            places.iter().flat_map(|place| &place.here).filter(|one| one.0 == of).collect();
        let who: BTreeSet<_> = here.iter().map(|(_, who, _)| user(*who).to_string()).collect();
        let look = async {
            loop {
                if let Ok(list) = node.broker.list(&room(&room_name(of)), 1_000).await {
                    let names: BTreeSet<_> =
                        list.members.iter().map(|member| member.who.to_string()).collect();
                    if names == who && list.connections == here.len() {
                        return;
                    }
                }
                tokio::task::yield_now().await;
            }
        };
        in_time("the list is right", look).await;
    }
    begun.elapsed()
}

/// All leave, and nothing is left of anybody.
async fn all_leave<'p>(redis: &Redis, places: impl Iterator<Item = &'p mut Place>) {
    let mut last = None;
    for place in places {
        for (of, who, id) in std::mem::take(&mut place.here) {
            let (of, who, id) = (room(&room_name(of)), user(who), ConnectionId::from_bits(id));
            place.node.broker.leave(&of, &who, id).await;
        }
        last = Some(place);
    }
    until_true(&last.unwrap().node, &[]).await;
    let left = || {
        let keys = |part| redis.ask(&["KEYS", &format!("*{part}*")]);
        ["over:", "names", "counts", "data"].map(keys)
    };
    in_time("all is gone", async {
        while left().iter().any(|keys| !keys.is_empty()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// D08, N01: a hundred thousand where the variable says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stdout, reason = "figures for whoever runs it")]
async fn of_a_crowd_that_comes_and_goes_over_nodes_that_die_each_list_has_who_is_there_and_no_ghost()
 {
    if !Redis::is_here() {
        return;
    }
    let changes = std::env::var("ROOMKEEPER_PRESENCE").map_or(CHANGES, |n| n.parse().unwrap());
    let redis = Redis::start();
    let (mut drawn, mut next) = (Drawn(7), 0);
    let mut stays = place(&redis).await;
    let mut mortal = Vec::new();
    for _ in 0..MORTAL {
        mortal.push(place(&redis).await);
    }
    let mut follower =
        Follower { mailbox: Arc::new(Mailbox::new(1, MAIL_MAX)), here: BTreeMap::new(), events: 0 };
    for of in 0..ROOMS {
        stays.node.subscribe(&follower.mailbox, &room_name(of), 1).await.unwrap();
    }
    let (mut done, mut round, mut slowest) = (0, 0, Duration::ZERO);
    while done < changes {
        while done < (round + 1) * ROUND {
            for place in mortal.iter_mut().chain([&mut stays]) {
                place.change(&mut drawn, &mut next).await;
                done += AT_ONCE;
                follower.hear();
            }
        }
        let of = round % MORTAL;
        if round % 3 == 2 {
            // Cut off, for longer than a lease: its members have left, and are said again when it is back.
            mortal[of].way.silence();
            let others: Vec<_> = mortal
                .iter()
                .enumerate()
                .filter(|(n, _)| *n != of)
                .map(|(_, place)| place)
                .collect();
            slowest =
                slowest.max(until_true(&stays.node, &[&others[..], &[&stays]].concat()).await);
            mortal[of].way.open();
            in_time("it is back", mortal[of].node.broker.status().until_up()).await;
        } else {
            // Without a word.
            mortal[of] = place(&redis).await;
        }
        let all: Vec<_> = mortal.iter().chain([&stays]).collect();
        slowest = slowest.max(until_true(&stays.node, &all).await);
        follower.hear();
        round += 1;
    }
    for place in &mortal {
        let all: Vec<_> = mortal.iter().chain([&stays]).collect();
        until_true(&place.node, &all).await;
    }
    all_leave(&redis, mortal.iter_mut().chain([&mut stays])).await;
    println!(
        "{{\"fault\":\"presence churn\",\"changes\":{done},\"events\":{},\"rounds\":{round},\"true_after_s\":{:.1}}}",
        follower.events,
        slowest.as_secs_f64()
    );
    assert!(follower.events > changes / 20, "{}", follower.events);
    assert!(slowest < 6 * LEASE, "{slowest:?}");
}
