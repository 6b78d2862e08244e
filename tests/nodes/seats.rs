//! Seats of users over several nodes on one Redis: how many there are, and which connection may act.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use application::ports::{PublishError, SeatError, Seats, Standing, Taken};
use application::testing::broker_contract::publish;
use application::testing::seats_contract::SeatsContract;
use broker_redis::RedisSeats;
use domain::id::{ConnectionId, UserId};
use domain::message::Publish;
use domain::seats::{Fence, SeatRule};
use tests::redis::Redis;
use tokio::task::JoinHandle;

use crate::brokers::{Node, ROOM, in_time};

/// Short, so that nobody has to wait; long beside the 200 ms in which it is renewed.
const LEASE: Duration = Duration::from_secs(1);

/// Those of one node, while they run.
struct Seated {
    node: Node,
    seats: Arc<RedisSeats>,
    running: JoinHandle<()>,
    ended: Arc<Mutex<Vec<ConnectionId>>>,
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn ann() -> UserId {
    UserId::parse("ann").unwrap()
}

fn id(bits: u64) -> ConnectionId {
    ConnectionId::from_bits(bits)
}

impl Seated {
    async fn start(redis: &Redis) -> Self {
        let node = Node::with_lease(redis, LEASE, Duration::ZERO).await;
        let seats = RedisSeats::build(&node.broker);
        let running = tokio::spawn(Arc::clone(&seats).run());
        let ended: Arc<Mutex<Vec<_>>> = Arc::default();
        let ends = Arc::clone(&ended);
        seats.on_replaced(Box::new(move |connection| ends.lock().unwrap().push(connection)));
        let this = Self { node, seats, running, ended };
        this.until_it_can_be_asked().await;
        this
    }

    /// A node has no name among others in its first moments, and none while Redis is away.
    async fn until_it_can_be_asked(&self) {
        let asked = async {
            let nobody = UserId::parse("nobody").unwrap();
            loop {
                let taken = self.seats.take(&nobody, id(u64::MAX), SeatRule::NewestWins).await;
                self.seats.leave(&nobody, id(u64::MAX));
                if taken.is_ok() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        in_time("seats can be taken", asked).await;
    }

    async fn take(&self, bits: u64, max: u32) -> Result<Taken, SeatError> {
        in_time("an answer", self.seats.take(&ann(), id(bits), SeatRule::AtMost(max))).await
    }

    async fn take_over(&self, bits: u64) -> Fence {
        let user = ann();
        let taken = self.seats.take(&user, id(bits), SeatRule::NewestWins);
        in_time("an answer", taken).await.unwrap().fence.unwrap()
    }

    async fn say(&self, text: &str, fence: Fence) -> Result<(), PublishError> {
        let publish = Publish { fence: Some(fence), ..publish(ROOM, "ann", text) };
        self.node.publish(publish).await.map(drop)
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        in_time(what, async {
            while !is_so(self) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn seats_keep_the_contract() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let one = Seated::start(&redis).await;
    in_time("the contract", SeatsContract { seats: &*one.seats }.check()).await;
}

#[tokio::test]
async fn connections_are_counted_over_all_nodes_and_those_of_a_killed_one_free_within_its_lease() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let (one, two) = (Seated::start(&redis).await, Seated::start(&redis).await);
    for bits in [1, 2] {
        assert!(one.take(bits, 3).await.is_ok());
    }
    assert!(two.take(3, 3).await.is_ok());
    assert_eq!(two.take(4, 3).await.unwrap_err(), SeatError::Full);
    assert_eq!(one.take(5, 3).await.unwrap_err(), SeatError::Full);
    one.seats.leave(&ann(), id(1));
    in_time("a seat that was left is free", async { while two.take(4, 3).await.is_err() {} }).await;
    assert_eq!(one.take(5, 3).await.unwrap_err(), SeatError::Full);
    // Without a word, and its lease with it.
    drop(one);
    let killed = Instant::now();
    in_time("its seats are free", async { while two.take(6, 3).await.is_err() {} }).await;
    assert!(killed.elapsed() <= LEASE + Duration::from_millis(500), "{:?}", killed.elapsed());
}

#[tokio::test]
async fn who_comes_back_from_a_node_that_was_just_killed_is_told_to_come_later_and_not_to_stop() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let (one, two) = (Seated::start(&redis).await, Seated::start(&redis).await);
    for bits in [1, 2] {
        assert!(one.take(bits, 3).await.is_ok());
    }
    assert!(two.take(3, 3).await.is_ok());
    assert_eq!(two.take(4, 3).await.unwrap_err(), SeatError::Full, "the other is there");
    two.seats.leave(&ann(), id(4));
    drop(one);
    // Its lease was renewed a moment ago.
    let refused = two.take(5, 3).await.unwrap_err();
    two.seats.leave(&ann(), id(5));
    let SeatError::Unavailable { retry_after } = refused else { panic!("{refused:?}") };
    assert!(!retry_after.is_zero() && retry_after <= LEASE, "{retry_after:?}");
    // What its own node alone has is never in doubt.
    assert_eq!(two.take(6, 1).await.unwrap_err(), SeatError::Full);
    two.seats.leave(&ann(), id(6));
    in_time("its seats are free", async { while two.take(7, 3).await.is_err() {} }).await;
}

#[tokio::test]
async fn a_node_that_has_another_name_counts_nobody_twice() {
    if !Redis::is_here() {
        return;
    }
    let mut redis = Redis::start_on_disk();
    let one = Seated::start(&redis).await;
    for bits in [1, 2] {
        assert!(one.take(bits, 3).await.is_ok());
    }
    // Another life of Redis, which has lost nothing: what was said under the old name stands there.
    redis.kill();
    one.node.until_down().await;
    redis.start_again();
    in_time("a seat can be asked for", async {
        loop {
            let taken = one.take(3, 3).await;
            assert_ne!(taken.as_ref().err(), Some(&SeatError::Full), "it has two");
            one.seats.leave(&ann(), id(3));
            if one.node.broker.status().is_up() && taken.is_ok() {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(one.take(3, 2).await.unwrap_err(), SeatError::Full);
    let names = redis.ask(&["ZRANGEBYSCORE", "roomkeeper:{all}:nodes", "2", "+inf"]);
    assert_eq!(names.lines().count(), 1, "nobody waits for the old one: {names}");
}

#[tokio::test]
async fn a_user_s_share_of_its_rate_follows_over_how_many_nodes_it_is() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let (one, two) = (Seated::start(&redis).await, Seated::start(&redis).await);
    let here = one.take(1, 9).await.unwrap().spread;
    assert_eq!(here.nodes(), 1);
    let there = two.take(2, 9).await.unwrap().spread;
    assert_eq!(there.nodes(), 2, "the answer tells");
    one.until("the other is told", |_| here.nodes() == 2).await;
    two.seats.leave(&ann(), id(2));
    one.until("it has the whole rate again", |_| here.nodes() == 1).await;
    two.take(3, 9).await.unwrap();
    one.until("the other is told", |_| here.nodes() == 2).await;
    // A node that dies tells nobody.
    drop(two);
    one.until("its share is free with its lease", |_| here.nodes() == 1).await;
}

/// D01, with publishes.
#[tokio::test]
async fn what_an_older_connection_publishes_is_refused_in_the_step_that_would_publish_it() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let (one, two) = (Seated::start(&redis).await, Seated::start(&redis).await);
    let older = one.take_over(1).await;
    assert_eq!(one.say("first", older).await, Ok(()));
    let newer = two.take_over(2).await;
    assert!(newer > older);
    // Nothing that the node itself knows is asked here, only what Redis compares.
    assert_eq!(one.say("too late", older).await, Err(PublishError::Fenced));
    assert_eq!(two.say("second", newer).await, Ok(()));
    one.until("it is told", |one| *one.ended.lock().unwrap() == [id(1)]).await;
    assert_eq!(one.seats.standing(&ann(), older), Standing::Replaced);
    assert_eq!(one.seats.confirm(&ann(), older).await, Standing::Replaced);
    assert_eq!(two.seats.confirm(&ann(), newer).await, Standing::Holds);
    assert!(two.ended.lock().unwrap().is_empty());
    let page = one.node.read(0).await;
    let texts: Vec<_> = page.messages.iter().map(|one| one.publication.data.clone()).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
}

/// D01, at the same instant.
#[tokio::test]
async fn of_two_that_come_at_the_same_instant_over_two_nodes_exactly_one_may_act() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let (one, two) = (Seated::start(&redis).await, Seated::start(&redis).await);
    for round in 0..50 {
        let (here, there) = (100 + 2 * round, 101 + 2 * round);
        let (of_one, of_two) = tokio::join!(one.take_over(here), two.take_over(there));
        let said = tokio::join!(one.say("here", of_one), two.say("there", of_two));
        let one_only = matches!(said, (Ok(()), Err(PublishError::Fenced)))
            || matches!(said, (Err(PublishError::Fenced), Ok(())));
        assert!(one_only, "{said:?}");
        let (loser, ended) = if of_one < of_two { (&one, here) } else { (&two, there) };
        loser
            .until("who lost is told", |loser| loser.ended.lock().unwrap().contains(&id(ended)))
            .await;
        one.seats.leave(&ann(), id(here));
        two.seats.leave(&ann(), id(there));
    }
}

#[tokio::test]
async fn a_redis_that_has_lost_everything_is_told_again_and_the_number_goes_on_growing() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let (one, two) = (Seated::start(&redis).await, Seated::start(&redis).await);
    let first = one.take_over(1).await;
    let second = two.take_over(2).await;
    one.until("it is told", |one| !one.ended.lock().unwrap().is_empty()).await;
    redis.tell(&["FLUSHALL"]);
    in_time("the newest speaks again", async {
        while let Err(error) = two.say("again", second).await {
            assert!(matches!(error, PublishError::Unavailable { .. }), "{error}");
        }
    })
    .await;
    assert_eq!(one.say("too late", first).await, Err(PublishError::Fenced));
    assert!(one.take_over(3).await > second);
}

/// A Redis that has lost everything may be told first of a connection that had been replaced.
#[tokio::test]
async fn who_is_newer_than_redis_knows_is_told_of_again_and_not_taken_for_replaced() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let one = Seated::start(&redis).await;
    let first = one.take_over(1).await;
    let second = one.take_over(2).await;
    redis.tell(&["HSET", &one.node.broker.seats_key(&ann()), "f", &first.to_string()]);
    in_time("the newest speaks again", async {
        while let Err(error) = one.say("again", second).await {
            assert!(matches!(error, PublishError::Unavailable { .. }), "{error}");
        }
    })
    .await;
    assert_eq!(one.say("too late", first).await, Err(PublishError::Fenced));
}

#[tokio::test]
async fn a_node_that_is_out_of_touch_for_a_lease_lets_nobody_act_under_a_number() {
    if !Redis::is_here() {
        return;
    }
    let mut redis = Redis::start();
    let one = Seated::start(&redis).await;
    let fence = one.take_over(1).await;
    assert_eq!(one.seats.standing(&ann(), fence), Standing::Holds);
    redis.suspend();
    let begin = Instant::now();
    one.until("nobody can know", |one| one.seats.standing(&ann(), fence) == Standing::Unknown)
        .await;
    assert!(begin.elapsed() <= LEASE + Duration::from_millis(500), "{:?}", begin.elapsed());
    assert_eq!(one.seats.confirm(&ann(), fence).await, Standing::Unknown);
    let refused = one.seats.take(&ann(), id(2), SeatRule::NewestWins).await;
    assert!(matches!(refused, Err(SeatError::Unavailable { .. })), "{refused:?}");
    one.seats.leave(&ann(), id(2));
    redis.go_on();
    one.until("it holds again", |one| one.seats.standing(&ann(), fence) == Standing::Holds).await;
}

#[tokio::test]
async fn while_redis_is_away_a_node_counts_its_own_and_tells_of_them_later() {
    if !Redis::is_here() {
        return;
    }
    let mut redis = Redis::start();
    let (one, two) = (Seated::start(&redis).await, Seated::start(&redis).await);
    redis.kill();
    one.node.until_down().await;
    assert!(one.take(1, 2).await.is_ok() && one.take(2, 2).await.is_ok());
    assert_eq!(one.take(3, 2).await.unwrap_err(), SeatError::Full);
    redis.start_again();
    two.node.until_up().await;
    in_time("the other counts them", async {
        loop {
            let taken = two.take(4, 3).await;
            two.seats.leave(&ann(), id(4));
            // With one more it would fit as long as nobody has told of the two.
            let more = two.take(5, 2).await;
            two.seats.leave(&ann(), id(5));
            if taken.is_ok() && matches!(more, Err(SeatError::Full)) {
                return;
            }
        }
    })
    .await;
}
