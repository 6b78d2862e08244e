//! What all nodes have to know: what was taken back, and which tokens are used up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use application::ports::{Revocations, SpendError, Spending, SpentTokens};
use application::testing::revocations_contract::RevocationsContract;
use application::testing::spent_tokens_contract::SpentTokensContract;
use broker_redis::{RedisRevocations, RedisSpentTokens};
use domain::id::{ConnectionId, TokenId, UserId};
use domain::principal::{Credential, Principal};
use domain::revocation::Revocation;
use domain::time::Wall;
use serde_json::json;
use tests::raw::RawSocket;
use tests::redis::Redis;
use tests::server::Server;
use tests::token::{SECRET, claims, hs256, with_claim};
use tokio::task::JoinHandle;

use crate::brokers::{Node, in_time};
use crate::fleet::until_status;
use crate::passage::Passage;

const SPAN: Duration = Duration::from_secs(3_600);

/// Those of one node, while they run.
struct Known {
    revocations: Arc<RedisRevocations>,
    running: JoinHandle<()>,
}

impl Drop for Known {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Known {
    async fn of(node: &Node) -> Self {
        let revocations = RedisRevocations::build(&node.broker, SPAN);
        let running = tokio::spawn(Arc::clone(&revocations).run());
        let this = Self { revocations, running };
        in_time("they are read", async {
            while !this.revocations.is_known() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        this
    }

    async fn until_revoked(&self, user: &str, is_so: bool) {
        let who = bearer(user);
        in_time("it is known", async {
            while self.revocations.concerns(&who, ConnectionId::from_bits(1)) != is_so {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

fn bearer(user: &str) -> Principal {
    let credential = Credential { issued_at: Some(now()), ..Credential::default() };
    Principal { user: UserId::parse(user).ok(), credential, ..Principal::default() }
}

fn now() -> Wall {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Wall::from_millis(i64::try_from(since.as_millis()).unwrap())
}

fn all_of(user: &str) -> Revocation {
    Revocation::User { user: UserId::parse(user).unwrap(), issued_until: now().after(SPAN) }
}

#[tokio::test]
async fn revocations_keep_the_contract() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let node = Node::start(&redis).await;
    let known = Known::of(&node).await;
    let contract = RevocationsContract { revocations: &*known.revocations, span: SPAN, now: now() };
    in_time("the contract", contract.check()).await;
}

#[tokio::test]
async fn spent_tokens_keep_the_contract() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let node = Node::start(&redis).await;
    let spent_tokens = RedisSpentTokens::new(&node.broker);
    let contract =
        SpentTokensContract { spent_tokens: &spent_tokens, entries_max: None, now: now() };
    in_time("the contract", contract.check()).await;
}

/// A18: what was taken back over one node counts on all, on those that start later, and over the loss of
/// all that Redis had.
#[tokio::test]
async fn what_is_taken_back_over_one_node_counts_on_all_and_survives_a_redis_that_loses_it() {
    if !Redis::is_here() {
        return;
    }
    let mut redis = Redis::start();
    let (one, two) = (Node::impatient(&redis).await, Node::impatient(&redis).await);
    let (at_one, at_two) = (Known::of(&one).await, Known::of(&two).await);
    let heard = Arc::new(tokio::sync::Notify::new());
    let ring = Arc::clone(&heard);
    at_two.revocations.on_heard(move |_| ring.notify_one());
    at_one.revocations.add(&all_of("ann"), now()).await.unwrap();
    in_time("the other node is told", heard.notified()).await;
    at_two.until_revoked("ann", true).await;
    at_two.until_revoked("bob", false).await;
    redis.kill();
    two.until_down().await;
    let stored = in_time("it gives up", at_one.revocations.add(&all_of("bob"), now())).await;
    assert!(stored.is_err(), "nobody else can know");
    at_one.until_revoked("bob", true).await;
    redis.start_again();
    // Both give back what they know, and so both know all of it.
    at_two.until_revoked("bob", true).await;
    let three = Node::start(&redis).await;
    let at_three = Known::of(&three).await;
    at_three.until_revoked("ann", true).await;
}

#[tokio::test]
async fn until_a_node_has_read_what_was_taken_back_nobody_counts() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let node = Node::start(&redis).await;
    let unread = RedisRevocations::build(&node.broker, SPAN);
    assert!(unread.concerns(&bearer("ann"), ConnectionId::from_bits(1)));
}

/// A20: on another node, and while Redis is away.
#[tokio::test]
async fn a_token_that_counts_once_is_used_up_on_all_nodes_and_by_nobody_while_redis_is_away() {
    if !Redis::is_here() {
        return;
    }
    let mut redis = Redis::start();
    let (one, two) = (Node::impatient(&redis).await, Node::impatient(&redis).await);
    let (at_one, at_two) = (RedisSpentTokens::new(&one.broker), RedisSpentTokens::new(&two.broker));
    let id = TokenId::parse("once").unwrap();
    let until = now().after(SPAN);
    assert_eq!(at_one.spend(&id, until, now()).await, Ok(Spending::First));
    assert_eq!(at_two.spend(&id, until, now()).await, Ok(Spending::Again));
    redis.kill();
    one.until_down().await;
    let other = TokenId::parse("other").unwrap();
    let answer = at_one.spend(&other, until, now()).await;
    assert!(matches!(answer, Err(SpendError::Storage(_))), "{answer:?}");
}

const KEY: &str = "a-key-of-the-tests-that-is-long-enough";

/// A built server on this Redis, once it is ready.
fn binary(url: &str) -> Server {
    let set = [
        format!("redis.url={url}"),
        format!("auth.hmac_secret={SECRET}"),
        format!("api.keys.backend.key={KEY}"),
        "api.keys.backend.scopes=publish,revoke".to_owned(),
    ];
    let words: Vec<_> = set.iter().flat_map(|set| ["--set", set]).collect();
    let server = Server::start(&words);
    until_status(&server, 200);
    server
}

/// Asks the server API for something that it does.
fn post(server: &Server, path: &str, body: &serde_json::Value) {
    let head = ask_to(server, path, body);
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
}

/// Asks the server API for something; the head of its answer.
fn ask_to(server: &Server, path: &str, body: &serde_json::Value) -> String {
    let body = body.to_string();
    let mut socket = RawSocket::connect(server.addr());
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    socket.send(request.as_bytes());
    socket.read_head()
}

/// RD05: a user's own room is one like any other, though nobody asked for it.
#[test]
fn what_is_sent_to_a_user_over_one_node_is_heard_on_another_also_what_was_missed_in_a_loss() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let proxy = Passage::start(runtime.handle(), redis.port());
    let (one, two) = (binary(&redis.url()), binary(&proxy.url()));
    let token = hs256(SECRET, &claims("ann", "user:ann"));
    // The first that comes is in its room, whatever its worker has heard of so far.
    let mut ann = RawSocket::open(two.addr(), &format!("/ws/v2/connect?token={token}"));
    assert_eq!(ann.expect_json("hello")["rooms"], json!(["user:ann"]));
    let send = |order: &str| {
        post(&one, "/api/v1/send", &json!({"user_id": "ann", "data": {"order": order}}));
    };
    let mut hears = |order: &str| {
        let heard = ann.expect_json("message");
        assert_eq!((&heard["room"], &heard["data"]["order"]), (&json!("user:ann"), &json!(order)));
    };
    send("sent to ann");
    hears("sent to ann");
    for round in 1..=2 {
        proxy.shut();
        until_status(&two, 503);
        let [first, second] = ["first", "second"].map(|nth| format!("the {nth} of round {round}"));
        send(&first);
        send(&second);
        proxy.open();
        until_status(&two, 200);
        hears(&first);
        hears(&second);
        send("sent afterwards");
        hears("sent afterwards");
    }
    // What nobody has any more is named.
    proxy.shut();
    until_status(&two, 503);
    send("lost with the log");
    redis.tell(&["FLUSHALL"]);
    proxy.open();
    until_status(&two, 200);
    assert_eq!(ann.expect_json("gap")["room"], "user:ann");
    // A server that has lost everything is in another life, which this node may be about to learn.
    let last = json!({"user_id": "ann", "data": {"order": "sent in the end"}});
    let begin = Instant::now();
    while !ask_to(&one, "/api/v1/send", &last).starts_with("HTTP/1.1 200") {
        assert!(begin.elapsed() < Duration::from_secs(10), "it takes nothing any more");
    }
    let heard = ann.expect_json("message");
    assert_eq!(heard["data"]["order"], "sent in the end");
}

/// A17: wherever the user is connected, and in under a second.
#[test]
fn a_user_who_is_revoked_over_one_node_is_closed_on_all_within_a_second() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let (one, two) = (binary(&redis.url()), binary(&redis.url()));
    let token = |user: &str| {
        let issued = json!(claims(user, "public:*")["iat"]);
        hs256(SECRET, &with_claim(claims(user, "public:*"), "iat", issued))
    };
    let path = format!("/ws/v2/connect?token={}", token("ann"));
    let mut ann = [&one, &two].map(|node| RawSocket::open(node.addr(), &path));
    ann.iter_mut().for_each(|socket| drop(socket.expect_json("hello")));
    let mut bob = RawSocket::open(two.addr(), &format!("/ws/v2/connect?token={}", token("bob")));
    bob.expect_json("hello");
    let asked = Instant::now();
    post(&one, "/api/v1/revoke", &json!({"user_id": "ann"}));
    let codes = ann.map(|mut socket| socket.read_close_code());
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    assert_eq!(codes, [3507, 3507]);
    bob.send_json(&json!({"type": "ping", "id": 1}));
    bob.expect_json("pong");
    // And the same token opens no node any more.
    for node in [&one, &two] {
        let mut again = RawSocket::open(node.addr(), &path);
        assert_eq!(again.read_close_code(), 3507);
    }
}

#[test]
fn a_node_over_redis_has_the_metrics_that_are_documented_for_it() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let server = binary(&redis.url());
    let document = include_str!("../../docs/observability.md");
    let rows = document.lines().filter(|line| line.starts_with("| `roomkeeper_redis_"));
    let names = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    let listed: BTreeSet<_> = names.filter(|name| name.starts_with("roomkeeper_redis_")).collect();
    let mut socket = RawSocket::connect(server.addr());
    socket.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let text = String::from_utf8(socket.read_until_closed()).unwrap();
    let words = text.lines().filter_map(|line| line.split([' ', '{']).next());
    let shown: BTreeSet<_> = words.filter(|word| word.starts_with("roomkeeper_redis_")).collect();
    assert_eq!(shown, listed);
    let up = text.lines().find(|line| line.starts_with("roomkeeper_redis_up"));
    assert_eq!(up, Some("roomkeeper_redis_up 1.0"));
}
