//! What becomes of durable rooms while Postgres dies, freezes, is full or hangs up in the middle of a commit:
//! nothing that was acknowledged is lost or stored twice, all else goes on, and it heals by itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use application::ports::{
    Archive, ArchiveError, Broker as _, Entropy, NoEntropy, PublishError, Receipt,
};
use application::testing::archive_contract::{offset, record, room};
use application::testing::broker_contract::{named, policy, publish};
use broker_memory::MemoryBroker;
use bytes::Bytes;
use domain::id::{Epoch, MessageId};
use domain::policy::{AckLevel, NamespacePolicy};
use domain::position::{Offset, Position};
use domain::retention::Retention;
use domain::room::RoomId;
use store_postgres::{Config, PostgresArchive};
use tests::postgres::Postgres;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::postgres_stores::{SOON, build, config, impatient, in_time, until};
use crate::tiny_disk::TinyDisk;

const EPOCH: Epoch = Epoch::from_bits(7);

#[derive(Default)]
struct Counter(AtomicU64);

impl Entropy for Counter {
    fn bits(&self) -> Result<u64, NoEntropy> {
        Ok(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// A broker on a store, while it runs.
struct Node {
    broker: Arc<MemoryBroker>,
    running: JoinHandle<()>,
    durable: Arc<NamespacePolicy>,
    fleeting: Arc<NamespacePolicy>,
}

impl Node {
    fn on(store: &Arc<PostgresArchive>) -> Self {
        let archive = Arc::clone(store) as Arc<dyn Archive>;
        let config = broker_memory::Config::default();
        let broker = MemoryBroker::build(config, Arc::new(Counter::default()), Some(archive));
        let running = tokio::spawn(Arc::clone(&broker).run_committer());
        let retention = Retention { messages_max: 100_000, ..Retention::default() };
        let fleeting = policy(retention);
        let durable = Arc::new(NamespacePolicy { durable: true, ..(*fleeting).clone() });
        Self { broker, running, durable, fleeting }
    }

    async fn say(&self, text: &str) -> Result<Receipt, PublishError> {
        let said = named(publish("chat:kept", "ann", text), text);
        in_time("it is answered", self.broker.publish(said, &self.durable)).await
    }

    /// In a room that is kept nowhere.
    async fn whisper(&self) -> Result<Receipt, PublishError> {
        let said = publish("chat:fleeting", "ann", "x");
        in_time("it is answered", self.broker.publish(said, &self.fleeting)).await
    }

    /// Says it until it is taken.
    async fn insist(&self, text: &str) -> Receipt {
        let begun = Instant::now();
        loop {
            if let Ok(receipt) = self.say(text).await {
                return receipt;
            }
            assert!(begun.elapsed() < SOON, "in vain: {text}");
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// All that a room holds: by `msg_id` where it is.
fn stored(postgres: &Postgres, schema: &str) -> BTreeMap<String, u64> {
    let rows = postgres.ask(&format!(
        "SELECT msg_id || ' ' || msg_offset FROM {schema}.messages ORDER BY room_id, msg_offset"
    ));
    let pair = |line: &str| {
        let (name, at) = line.split_once(' ').unwrap();
        (name.to_owned(), at.parse().unwrap())
    };
    let found: Vec<(String, u64)> = rows.lines().map(pair).collect();
    let by_name: BTreeMap<_, _> = found.iter().cloned().collect();
    assert_eq!(by_name.len(), found.len(), "each is there once");
    by_name
}

/// PG01: dies and comes back while rooms are used.
#[tokio::test(flavor = "multi_thread")]
async fn while_postgres_is_dead_durable_rooms_refuse_all_else_goes_on_and_it_heals() {
    if !Postgres::is_here() {
        return;
    }
    let mut postgres = Postgres::start();
    let settings = impatient(&postgres);
    let schema = settings.schema.clone();
    let store = build(settings).await;
    let node = Node::on(&store);
    let mut acked = BTreeMap::new();
    for round in 0..3 {
        for n in 0..20 {
            let text = format!("{round}-{n}");
            let receipt = node.insist(&text).await;
            assert_eq!(receipt.level, AckLevel::Durable);
            acked.insert(text, receipt.offset);
        }
        postgres.kill();
        let late = format!("{round}-late");
        let refused = node.say(&late).await;
        assert!(matches!(refused, Err(PublishError::Unavailable { .. })), "{refused:?}");
        until("it is known", || !store.status().is_up()).await;
        let begun = Instant::now();
        for _ in 0..200 {
            assert!(node.whisper().await.is_ok());
            assert!(node.say(&late).await.is_err());
        }
        // Nobody waits for what is known to be away.
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        postgres.start_again();
        acked.insert(late.clone(), node.insist(&late).await.offset);
        until("it is up", || store.status().is_up()).await;
    }
    let stored = stored(&postgres, &schema);
    for (text, at) in acked {
        assert_eq!(stored.get(&text).copied(), at.map(Offset::get), "{text}");
    }
    store.close().await;
}

/// PG02: for some seconds here; what waits for it waits as long for a minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_postgres_is_given_up_in_time_and_what_wakes_is_used_again() {
    if !Postgres::is_here() {
        return;
    }
    let mut postgres = Postgres::start();
    let settings = impatient(&postgres);
    let schema = settings.schema.clone();
    let store = build(settings).await;
    let node = Node::on(&store);
    node.insist("before").await;
    postgres.suspend();
    let begun = Instant::now();
    let refused = node.say("frozen").await;
    assert!(matches!(refused, Err(PublishError::Unavailable { .. })), "{refused:?}");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    let read =
        in_time("it is read", store.read(&room("chat:kept"), EPOCH, Offset::ZERO, 9, 9)).await;
    assert!(matches!(read, Err(ArchiveError::Storage(_))), "{read:?}");
    let mut slowest = Duration::ZERO;
    for n in 0..300 {
        let begun = Instant::now();
        assert!(node.whisper().await.is_ok());
        slowest = slowest.max(begun.elapsed());
        assert!(node.say(&format!("frozen-{n}")).await.is_err());
    }
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    postgres.go_on();
    let receipt = node.insist("frozen").await;
    until("it is up", || store.status().is_up()).await;
    let after = node.insist("after").await;
    let stored = stored(&postgres, &schema);
    let at = |receipt: Receipt| receipt.offset.map(Offset::get);
    assert_eq!(stored.get("frozen").copied(), at(receipt));
    assert_eq!(stored.get("after").copied(), at(after));
    assert_eq!(stored.len(), 3, "nothing that was refused and not repeated is there: {stored:?}");
    store.close().await;
}

/// PG04: the tables' disk, while that of the write-ahead log has room.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_with_space_it_goes_on_without_a_restart() {
    if !Postgres::is_here() {
        return;
    }
    let Some(disk) = TinyDisk::mount(8) else { return };
    let postgres = Postgres::start();
    let settings = Config { url: disk.given_to(&postgres).into(), ..config(&postgres) };
    let schema = settings.schema.clone();
    let store = build(settings).await;
    let node = Node::on(&store);
    node.insist("before").await;
    disk.fill();
    let large = "x".repeat(60_000);
    let say_large = async |n: usize| {
        let mut said = named(publish("chat:kept", "ann", ""), &format!("large-{n}"));
        said.data = Bytes::from(format!("\"{large}\""));
        in_time("it is answered", node.broker.publish(said, &node.durable)).await
    };
    let (mut taken, mut n) = (1, 0);
    let refused = loop {
        n += 1;
        match say_large(n).await {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        assert!(n < 1_000, "the disk is never full");
    };
    assert!(matches!(refused, PublishError::Unavailable { .. }), "{refused:?}");
    assert!(node.whisper().await.is_ok());
    disk.make_room();
    let begun = Instant::now();
    while say_large(n).await.is_err() {
        assert!(begun.elapsed() < SOON, "it does not heal");
    }
    assert_eq!(stored(&postgres, &schema).len(), taken + 1);
    store.close().await;
}

/// Something between a store and its server, which can hang up when a commit is under way, so many times.
pub(crate) struct Cutter {
    pub(crate) port: u16,
    pub(crate) armed: Arc<AtomicUsize>,
}

impl Cutter {
    pub(crate) async fn before(postgres: &Postgres) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let armed = Arc::new(AtomicUsize::new(0));
        let (cut, far) = (Arc::clone(&armed), SocketAddr::from(([127, 0, 0, 1], postgres.port())));
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(pass(near, far, Arc::clone(&cut)));
            }
        });
        Self { port, armed }
    }
}

/// Passes all on, until a commit has been passed on while it is armed: then the server's answer is waited
/// for, and kept.
async fn pass(mut near: TcpStream, far: SocketAddr, armed: Arc<AtomicUsize>) {
    let Ok(mut far) = TcpStream::connect(far).await else { return };
    drop(near.set_nodelay(true).and_then(|()| far.set_nodelay(true)));
    let (mut said, mut answer) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            n = near.read(&mut said) => {
                let Ok(n @ 1..) = n else { return };
                let is_commit = said[..n].windows(7).any(|window| window == b"COMMIT\0");
                if far.write_all(&said[..n]).await.is_err() {
                    return;
                }
                let one_less = |left: usize| left.checked_sub(1);
                let is_cut = is_commit
                    && armed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok();
                if is_cut {
                    drop(far.read(&mut answer).await);
                    return;
                }
            }
            n = far.read(&mut answer) => {
                let Ok(n @ 1..) = n else { return };
                if near.write_all(&answer[..n]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// PG05: the answer to a commit is lost, again and again; a retry under the same name is one message.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_one_message_after_the_retry() {
    const RUNS: usize = 300;
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let cutter = Cutter::before(&postgres).await;
    let url = postgres.url_at(cutter.port);
    let settings = Config { url: url.into(), writers: 1, ..config(&postgres) };
    let schema = settings.schema.clone();
    let store = build(settings).await;
    let node = Node::on(&store);
    node.insist("first").await;
    let (mut refused, mut known) = (0, 0);
    for n in 0..RUNS {
        let text = format!("m{n}");
        cutter.armed.store(1, Ordering::SeqCst);
        refused += usize::from(node.say(&text).await.is_err());
        let receipt = node.insist(&text).await;
        known += usize::from(receipt.duplicate);
        assert_eq!(receipt.offset, Some(offset(n as u64 + 2)));
    }
    cutter.armed.store(0, Ordering::SeqCst);
    let stored = stored(&postgres, &schema);
    assert_eq!(stored.len(), RUNS + 1);
    assert!(refused > RUNS / 2 && known > RUNS / 2, "{refused} were cut, {known} were there");
    store.close().await;
}

/// PG07: the server crashes in the middle of batches, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_in_the_middle_of_batches_loses_nothing_acknowledged_and_stores_no_half_batch() {
    const CRASHES: usize = 12;
    const BATCH: u64 = 50;
    if !Postgres::is_here() {
        return;
    }
    let mut postgres = Postgres::start();
    let settings = impatient(&postgres);
    let schema = settings.schema.clone();
    let store = build(settings).await;
    let (acked, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let writers: Vec<_> = (0..4)
        .map(|n| {
            let (store, over) = (Arc::clone(&store), Arc::clone(&is_over));
            tokio::spawn(batches(store, room(&format!("chat:{n}")), Arc::clone(&acked), over))
        })
        .collect();
    for _ in 0..CRASHES {
        let before = acked.load(Ordering::Relaxed);
        until("batches are stored", || acked.load(Ordering::Relaxed) > before + 20).await;
        postgres.crash();
        postgres.start_again();
    }
    let before = acked.load(Ordering::Relaxed);
    until("it has healed", || acked.load(Ordering::Relaxed) > before + 20).await;
    let mut acked: Vec<(String, u64)> = Vec::new();
    for (n, writer) in writers.into_iter().enumerate() {
        // One that found something missing has ended by itself, and says so here.
        is_over.store(true, Ordering::SeqCst);
        acked.push((format!("chat:{n}"), in_time("it ends", writer).await.unwrap()));
    }
    assert!(acked.iter().all(|(_, sure)| *sure > 0), "{acked:?}");
    let counts = postgres.ask(&format!(
        "SELECT r.room || ' ' || count(*) || ' ' || max(msg_offset) || ' ' || r.last_offset \
         FROM {schema}.messages m JOIN {schema}.rooms r ON r.id = m.room_id GROUP BY r.room, r.last_offset"
    ));
    assert_eq!(counts.lines().count(), acked.len());
    for line in counts.lines() {
        let room = line.split(' ').next().unwrap();
        let sure = acked.iter().find(|(name, _)| name == room).map(|(_, sure)| *sure);
        let numbers: Vec<u64> = line.split(' ').skip(1).map(|n| n.parse().unwrap()).collect();
        let [count, newest, last] = numbers[..] else { panic!("{line}") };
        assert!(count == newest && newest == last && count % BATCH == 0, "{line}");
        assert!(sure.is_some_and(|sure| sure <= last), "{sure:?} were acknowledged: {line}");
    }
    store.close().await;

    /// Appends batch after batch; what was acknowledged is there whenever it is looked at. Answers where that
    /// ends.
    async fn batches(
        store: Arc<PostgresArchive>,
        room: RoomId,
        acked: Arc<AtomicU64>,
        is_over: Arc<AtomicBool>,
    ) -> u64 {
        let mut sure = 0;
        while !is_over.load(Ordering::SeqCst) {
            let Ok(head) = store.open_room(&room, EPOCH, None).await else {
                tokio::task::yield_now().await;
                continue;
            };
            let last = head.last.get();
            assert!(last >= sure, "{sure} were acknowledged, {last} are there");
            let records = (last + 1..=last + BATCH).map(|n| record(&room, EPOCH, n)).collect();
            if store.append(records).await.is_ok() {
                sure = last + BATCH;
                acked.fetch_add(1, Ordering::Relaxed);
            }
        }
        sure
    }
}

/// Two nodes, one of which ends an epoch that the other still writes to.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_placed_while_an_epoch_ends_is_within_its_end_or_refused() {
    use application::ports::{Succession as _, Successor};
    use store_postgres::Sharing;
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let shared = Config { sharing: Sharing::Shared, ..config(&postgres) };
    let (one, two) = (build(shared.clone()).await, build(shared).await);
    let room = room("chat:a");
    let next = |of, epoch| Successor { of, epoch, behind: Offset::ZERO };
    one.succeed(&room, next(None, Epoch::from_bits(1))).await.unwrap();
    let (epoch, placed) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicU64::new(0)));
    let placing = |store: Arc<PostgresArchive>, odd: u64| {
        let (room, epoch, n_placed) = (room.clone(), Arc::clone(&epoch), Arc::clone(&placed));
        tokio::spawn(async move {
            let mut placed = Vec::new();
            while epoch.load(Ordering::SeqCst) < 30 {
                let now = Epoch::from_bits(epoch.load(Ordering::SeqCst));
                let lives = store.lives(&room).await.unwrap().unwrap();
                let place = lives.last.get() + 1 + odd;
                let mut one = record(&room, now, place);
                one.msg_id = MessageId::parse(&format!("{odd}-{now}-{place}")).ok();
                match store.place(vec![one]).await {
                    Ok(()) => {
                        n_placed.fetch_add(1, Ordering::Relaxed);
                        placed.push(Position { epoch: now, offset: offset(place) });
                    }
                    Err(ArchiveError::Ended | ArchiveError::Storage(_)) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            placed
        })
    };
    let writers = [placing(Arc::clone(&one), 0), placing(Arc::clone(&two), 1)];
    let mut ends = BTreeMap::new();
    for n in 1..30 {
        let (of, to) = (Epoch::from_bits(n), Epoch::from_bits(n + 1));
        let before = placed.load(Ordering::Relaxed);
        until("something is placed", || placed.load(Ordering::Relaxed) > before).await;
        let lives = in_time("it goes on", two.succeed(&room, next(Some(of), to))).await.unwrap();
        let end = lives.earlier.iter().next().unwrap();
        assert_eq!((lives.epoch, end.epoch), (to, of));
        ends.insert(n, end.offset);
        epoch.store(n + 1, Ordering::SeqCst);
    }
    let mut n_placed = 0;
    for writer in writers {
        for at in in_time("it ends", writer).await.unwrap() {
            n_placed += 1;
            assert!(ends.get(&at.epoch.bits()).is_none_or(|end| at.offset <= *end), "{at:?}");
        }
    }
    assert!(n_placed >= 29, "{n_placed}");
    let page = one.read_lives(&room, Offset::ZERO, 100_000, usize::MAX).await.unwrap().unwrap();
    assert_eq!(page.messages.len(), n_placed);
    one.close().await;
    two.close().await;
}
