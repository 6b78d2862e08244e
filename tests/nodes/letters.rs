//! What is said to one user, over several nodes: whoever is there hears it at once, on whichever node; and what
//! waits is given once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use application::ports::{Inbox as _, InboxError, Letter, LetterId, LetterLimits};
use bytes::Bytes;
use domain::id::UserId;
use domain::message::Sender;
use domain::time::Wall;
use serde_json::{Value, json};
use store_postgres::{Config, PostgresArchive, PostgresInbox, Sharing};
use tests::postgres::Postgres;
use tests::raw::RawSocket;
use tests::redis::Redis;
use tests::server::Server;
use tests::token::{SECRET, claims, hs256};

use crate::fleet::until_status;
use crate::passage::Passage;
use crate::postgres_faults::Cutter;
use crate::postgres_stores::{SOON, build, config, impatient, in_time};

const KEY: &str = "a-key-of-the-tests-that-is-long-enough";
const LIMITS: LetterLimits =
    LetterLimits { of_user: 999, of_pair: 999, of_sender: 999, of_all: 9_999 };

fn ann() -> UserId {
    UserId::parse("ann").unwrap()
}

fn letter(n: usize) -> Letter {
    let data = Bytes::from(format!(r#"{{"type":"chat_message","content":"m{n}"}}"#));
    let sender = Sender { user: UserId::parse("bob").ok(), ..Sender::default() };
    Letter { sender, data, at: Wall::from_millis(1) }
}

fn texts(letters: &[(LetterId, Letter)]) -> Vec<String> {
    let text = |letter: &Letter| {
        let said: Value = serde_json::from_slice(&letter.data).unwrap();
        said["content"].as_str().unwrap().to_owned()
    };
    letters.iter().map(|(_, letter)| text(letter)).collect()
}

async fn two(postgres: &Postgres) -> [Arc<PostgresArchive>; 2] {
    let settings = Config { sharing: Sharing::Shared, ..config(postgres) };
    [build(settings.clone()).await, build(settings).await]
}

async fn inbox(store: &Arc<PostgresArchive>) -> PostgresInbox {
    PostgresInbox::load(Arc::clone(store)).await.unwrap()
}

type Page = Vec<(LetterId, Letter)>;

async fn read(inbox: &PostgresInbox) -> Result<Page, InboxError> {
    inbox.read(&ann(), None, 9, usize::MAX).await
}

/// Reads until it is answered something else than that another node has the turn.
async fn in_turn(inbox: &PostgresInbox) -> Vec<String> {
    let reading = async {
        loop {
            match read(inbox).await {
                Err(InboxError::Elsewhere) => tokio::task::yield_now().await,
                page => return texts(&page.unwrap()),
            }
        }
    };
    in_time("the turn comes", reading).await
}

#[tokio::test]
async fn one_node_at_a_time_is_answered_what_waits_for_a_user() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let stores = two(&postgres).await;
    let (one, other) = (inbox(&stores[0]).await, inbox(&stores[1]).await);
    assert_eq!(read(&one).await, Ok(Vec::new()));
    assert_eq!(read(&other).await, Ok(Vec::new()), "of nothing nobody has the turn");
    for n in 0..2 {
        other.put(&ann(), letter(n), LIMITS).await.unwrap();
    }
    let page = read(&one).await.unwrap();
    assert_eq!(texts(&page), ["m0", "m1"]);
    assert_eq!(read(&other).await, Err(InboxError::Elsewhere));
    one.remove(&ann(), page[0].0).await.unwrap();
    assert_eq!(read(&other).await, Err(InboxError::Elsewhere));
    assert_eq!(texts(&read(&one).await.unwrap()), ["m1"], "whoever has it goes on");
    // What one could not give the other gives.
    one.release(&ann());
    assert_eq!(in_turn(&other).await, ["m1"]);
    assert_eq!(read(&one).await, Err(InboxError::Elsewhere));
    other.remove(&ann(), page[1].0).await.unwrap();
    assert_eq!(read(&other).await, Ok(Vec::new()));
    assert_eq!(in_turn(&one).await, Vec::<String>::new(), "and lets it go behind the last");
    one.put(&ann(), letter(2), LIMITS).await.unwrap();
    assert_eq!(in_turn(&one).await, ["m2"]);
    for store in stores {
        store.close().await;
    }
}

#[tokio::test]
async fn the_turn_of_a_node_that_is_gone_is_over_within_seconds_and_that_of_one_that_is_slow_is_not()
 {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let stores = two(&postgres).await;
    let (gone, other) = (inbox(&stores[0]).await, inbox(&stores[1]).await);
    gone.put(&ann(), letter(0), LIMITS).await.unwrap();
    assert_eq!(in_turn(&gone).await, ["m0"]);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(12) {
        assert_eq!(read(&other).await, Err(InboxError::Elsewhere), "its client is slow to take it");
    }
    drop(gone);
    let begun = Instant::now();
    assert_eq!(in_turn(&other).await, ["m0"]);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    for store in stores {
        store.close().await;
    }
}

/// PG05, of letters: the answer to a commit is lost, again and again, and whoever was told so says it again, also when it
/// was given and removed meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_letter_whose_commit_had_no_answer_is_there_once() {
    const RUNS: usize = 50;
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let cutter = Cutter::before(&postgres).await;
    let url = postgres.url_at(cutter.port);
    let settings = Config { url: url.into(), writers: 1, ..impatient(&postgres) };
    let settings = Config { sharing: Sharing::Shared, ..settings };
    let schema = settings.schema.clone();
    let store = build(settings).await;
    let inbox = inbox(&store).await;
    let mut given = 0;
    for n in 0..RUNS {
        // The store's own second try has no answer either.
        cutter.armed.store(usize::MAX, Ordering::SeqCst);
        let put = in_time("it has an answer", inbox.put(&ann(), letter(n), LIMITS)).await;
        assert!(matches!(put, Err(InboxError::Unsure(_))), "{put:?}");
        cutter.armed.store(0, Ordering::SeqCst);
        // Whoever it is for comes meanwhile, and is given it.
        if n % 2 == 0 {
            let page = in_time("it is read", async {
                loop {
                    match read(&inbox).await {
                        Ok(page) if !page.is_empty() => return page,
                        _ => tokio::task::yield_now().await,
                    }
                }
            })
            .await;
            let last = page[page.len() - 1].0;
            while inbox.remove(&ann(), last).await.is_err() {
                tokio::task::yield_now().await;
            }
            given = n + 1;
        }
        let put = async {
            while inbox.put(&ann(), letter(n), LIMITS).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        in_time("it is taken", put).await;
    }
    let left = RUNS - given;
    let all = postgres.ask(&format!("SELECT count(*) FROM {schema}.letters"));
    let counted = postgres.ask(&format!("SELECT coalesce(sum(n), 0) FROM {schema}.letter_pairs"));
    assert_eq!((all, counted), (left.to_string(), left.to_string()));
    // Said twice it is there twice.
    for _ in 0..2 {
        inbox.put(&ann(), letter(RUNS), LIMITS).await.unwrap();
    }
    let all = postgres.ask(&format!("SELECT count(*) FROM {schema}.letters"));
    assert_eq!(all, (left + 2).to_string());
    store.close().await;
}

/// Whose turn it is while a page is on its way is known however many others are given back meanwhile.
#[tokio::test]
async fn a_turn_that_is_given_back_is_free_at_once_also_when_others_were_given_back_before() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let settings = Config { sharing: Sharing::Shared, ..config(&postgres) };
    let table = format!("{}.letter_turns", settings.schema);
    let stores = [build(settings.clone()).await, build(settings).await];
    let (one, other) = (inbox(&stores[0]).await, inbox(&stores[1]).await);
    let bob = UserId::parse("bob").unwrap();
    for user in [&ann(), &bob] {
        one.put(user, letter(0), LIMITS).await.unwrap();
        assert_eq!(one.read(user, None, 9, usize::MAX).await.unwrap().len(), 1);
    }
    // As if it had been given back between what is to be put off and that.
    postgres.tell(&format!("DELETE FROM {table} WHERE recipient = 'bob'"));
    let end = "SELECT until_ms FROM ";
    let before = postgres.ask(&format!("{end}{table}"));
    in_time("it is put off", async {
        while postgres.ask(&format!("{end}{table}")) == before {
            tokio::task::yield_now().await;
        }
    })
    .await;
    one.release(&ann());
    let begun = Instant::now();
    assert_eq!(in_turn(&other).await, ["m0"]);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    for store in stores {
        store.close().await;
    }
}

/// Nodes on one Redis, with a Postgres if there is one.
fn nodes(redis: &Redis, postgres: Option<&Postgres>, count: usize) -> Vec<Server> {
    nodes_at(&vec![redis.url(); count], postgres)
}

/// A node at each of these addresses of one Redis.
fn nodes_at(urls: &[String], postgres: Option<&Postgres>) -> Vec<Server> {
    let ticket_secret = "a-ticket-secret-of-the-tests".repeat(2);
    let url = postgres.map(Postgres::url);
    let environment: Vec<_> = url.iter().map(|url| ("DATABASE_URL", url.as_str())).collect();
    let start = |redis: &String| {
        let set = [
            format!("redis.url={redis}"),
            "redis.answer_timeout_ms=1000".to_owned(),
            "redis.lease_ms=3000".to_owned(),
            format!("auth.hmac_secret={SECRET}"),
            format!("auth.ticket_secret={ticket_secret}"),
            format!("api.keys.backend.key={KEY}"),
            "api.keys.backend.scopes=publish".to_owned(),
            "limits.commands_per_second=1000".to_owned(),
            "limits.commands_burst=1000".to_owned(),
            "limits.commands_of_user_per_second=1000".to_owned(),
            "limits.commands_of_user_burst=1000".to_owned(),
        ];
        let words: Vec<_> = set.iter().flat_map(|set| ["--set", set]).collect();
        Server::start_with(&words, &environment)
    };
    let nodes: Vec<_> = urls.iter().map(start).collect();
    nodes.iter().for_each(|node| until_status(node, 200));
    nodes
}

/// A connection of this user by this endpoint, greeted.
fn by(node: &Server, endpoint: &str, user: &str) -> RawSocket {
    let token = hs256(SECRET, &claims(user, "chat:*"));
    let mut socket = RawSocket::open(node.addr(), &format!("{endpoint}?token={token}"));
    socket.expect_json(if endpoint == "/ws" { "welcome" } else { "connected" });
    socket
}

/// Says something to one user alone, and waits until it is taken.
fn whisper(socket: &mut RawSocket, to: &str, text: &str) {
    socket.send_json(&json!({
        "type": "chat_message", "id": 7, "content": text, "channel": "private", "to_user_id": to,
    }));
    socket.expect_json("ack");
}

/// Waits until somebody is told something with these words in it.
fn hears(socket: &mut RawSocket, words: &str) {
    let begun = Instant::now();
    while !socket.next_json().to_string().contains(words) {
        assert!(begun.elapsed() < SOON, "in vain: {words}");
    }
}

/// What somebody is told until the answer to a `ping`.
fn heard(socket: &mut RawSocket) -> Vec<String> {
    socket.send_json(&json!({"type": "ping"}));
    let mut heard = Vec::new();
    loop {
        let next = socket.next_json();
        if next["type"] == "pong" {
            return heard;
        }
        heard.extend(next["content"].as_str().map(str::to_owned));
    }
}

#[test]
fn who_is_on_another_node_alone_hears_at_once_what_is_said_to_it_with_and_without_postgres() {
    if !Redis::is_here() || !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    for postgres in [None, Some(&postgres)] {
        // Nodes that were killed may have had a seat of hers, for as long as their leases run.
        let redis = Redis::start();
        let nodes = nodes(&redis, postgres, 3);
        let mut anns = [1, 2].map(|node: usize| by(&nodes[node], "/ws/chat", "ann"));
        let mut lobby = by(&nodes[1], "/ws", "carl");
        let mut bob = by(&nodes[0], "/ws/chat", "bob");
        let begun = Instant::now();
        whisper(&mut bob, "ann", "dear ann");
        whisper(&mut bob, "carl", "dear carl");
        anns.iter_mut().for_each(|ann| hears(ann, "dear ann"));
        hears(&mut lobby, "dear carl");
        println!("both have heard it after {:?}", begun.elapsed());
        // From the lobby, and of a backend.
        let mut dora = by(&nodes[0], "/ws", "dora");
        let said = json!({"type": "chat", "to_user_id": "ann", "message": "from the lobby"});
        dora.send_json(&said);
        anns.iter_mut().for_each(|ann| hears(ann, "from the lobby"));
        let sent = json!({"user_id": "ann", "data": {"type": "chat", "message": "of a backend"}});
        let sent = post(&nodes[0], "/api/v1/send", &sent);
        assert_eq!(sent["connections"], 2, "{sent}");
        anns.iter_mut().for_each(|ann| hears(ann, "of a backend"));
        // Nothing of it waits.
        drop(anns);
        let mut ann = by(&nodes[0], "/ws/chat", "ann");
        assert!(heard(&mut ann).is_empty());
    }
}

/// One question, one answer that is fetched: no call to find that there is no other.
#[test]
#[allow(clippy::print_stdout, reason = "a figure for whoever runs it")]
fn what_is_said_to_somebody_on_another_node_costs_one_answer_to_fetch() {
    const SAID: usize = 20;
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let nodes = nodes(&redis, None, 3);
    let mut ann = by(&nodes[1], "/ws/chat", "ann");
    let mut bob = by(&nodes[0], "/ws/chat", "bob");
    whisper(&mut bob, "ann", "first");
    hears(&mut ann, "first");
    let fetched = || {
        let all = redis.ask(&["INFO", "commandstats"]);
        let calls = all.split("cmdstat_lpop:calls=").nth(1).and_then(|rest| rest.split(',').next());
        calls.map_or(0, |calls| calls.parse::<usize>().unwrap())
    };
    let (before, mut took) = (fetched(), Vec::new());
    for n in 0..SAID {
        let begun = Instant::now();
        whisper(&mut bob, "ann", &format!("m{n}"));
        took.push(begun.elapsed());
        hears(&mut ann, &format!("m{n}"));
    }
    took.sort();
    println!("acknowledged after {:?}, at most {:?}", took[SAID / 2], took[SAID - 1]);
    // Where the machine stands still for a while it is looked without a ring.
    let fetches = fetched() - before;
    assert!((SAID..SAID * 3 / 2).contains(&fetches), "{fetches}");
}

fn post(node: &Server, path: &str, body: &Value) -> Value {
    let body = body.to_string();
    let mut socket = RawSocket::connect(node.addr());
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    socket.send(request.as_bytes());
    let answer = String::from_utf8(socket.read_until_closed()).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head} {body}");
    serde_json::from_str(body).unwrap()
}

/// Two tabs that come at once, again and again.
#[test]
fn of_two_connections_that_come_on_two_nodes_at_once_each_letter_is_given_to_one_and_once() {
    const LETTERS: usize = 30;
    if !Redis::is_here() || !Postgres::is_here() {
        return;
    }
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let nodes = nodes(&redis, Some(&postgres), 3);
    let mut bob = by(&nodes[2], "/ws/chat", "bob");
    for round in 0..8 {
        let user = format!("ann{round}");
        for n in 0..LETTERS {
            whisper(&mut bob, &user, &format!("m{n}"));
        }
        let token = hs256(SECRET, &claims(&user, "chat:*"));
        let path = format!("/ws/chat?token={token}");
        let mut both = [0, 1].map(|node: usize| RawSocket::open(nodes[node].addr(), &path));
        let (mut all, begun) = (Vec::new(), Instant::now());
        let left = format!("SELECT count(*) FROM roomkeeper.letters WHERE recipient = '{user}'");
        while postgres.ask(&left) != "0" {
            assert!(begun.elapsed() < SOON, "{} of round {round}", all.len());
            both.iter_mut().for_each(|socket| all.extend(heard(socket)));
        }
        // What was given was given before it was taken out.
        both.iter_mut().for_each(|socket| all.extend(heard(socket)));
        let once: BTreeSet<_> = all.iter().collect();
        assert_eq!((all.len(), once.len()), (LETTERS, LETTERS), "round {round}: {all:?}");
    }
}

#[test]
fn what_is_said_while_the_node_of_a_user_stands_still_waits_and_comes_once_when_it_goes_on() {
    if !Redis::is_here() || !Postgres::is_here() {
        return;
    }
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let mut nodes = nodes(&redis, Some(&postgres), 2);
    let mut ann = by(&nodes[1], "/ws/chat", "ann");
    let mut bob = by(&nodes[0], "/ws/chat", "bob");
    nodes[1].suspend();
    whisper(&mut bob, "ann", "wake up");
    nodes[1].go_on();
    hears(&mut ann, "wake up");
    whisper(&mut bob, "ann", "again");
    hears(&mut ann, "again");
    assert!(heard(&mut ann).is_empty());
    let begun = Instant::now();
    while postgres.ask("SELECT count(*) FROM roomkeeper.letters") != "0" {
        assert!(begun.elapsed() < SOON);
    }
    // Whoever's node was killed is not lost for what is said meanwhile.
    nodes[1].kill();
    whisper(&mut bob, "ann", "are you there?");
    let mut ann = by(&nodes[0], "/ws/chat", "ann");
    hears(&mut ann, "are you there?");
}

/// Nobody can ring there, so it looks for itself when it is back.
#[test]
fn what_is_said_while_the_node_of_a_user_is_cut_off_comes_when_it_is_back() {
    if !Redis::is_here() || !Postgres::is_here() {
        return;
    }
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let way = Passage::start(runtime.handle(), redis.port());
    let nodes = nodes_at(&[redis.url(), way.url()], Some(&postgres));
    let mut ann = by(&nodes[1], "/ws/chat", "ann");
    let mut bob = by(&nodes[0], "/ws/chat", "bob");
    way.shut();
    until_status(&nodes[1], 503);
    whisper(&mut bob, "ann", "are you back?");
    way.open();
    hears(&mut ann, "are you back?");
}
