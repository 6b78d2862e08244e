//! A server that speaks the protocol of Postgres wrongly, at the beginning of a connection or in the middle of a call:
//! that is an error, costs no memory without a bound, and is over as soon as a right one answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use application::ports::{Archive, ArchiveError};
use application::testing::archive_contract::{offset, record, room};
use bytes::Bytes;
use domain::id::Epoch;
use domain::position::Offset;
use store_postgres::{Config, PostgresArchive};
use tests::postgres::Postgres;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::passage::Passage;
use crate::postgres_stores::{config, in_time, until};

const EPOCH: Epoch = Epoch::from_bits(7);

/// What is said instead of the truth.
#[derive(Clone, Debug, Default)]
struct Lie {
    name: &'static str,
    bytes: Vec<u8>,
    /// Said again and again behind that.
    endless: Vec<u8>,
    /// Whether the connection ends behind it; else nothing more comes.
    hangs_up: bool,
}

/// One message, with its length.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    with_length(kind, u32::try_from(body.len() + 4).unwrap(), body)
}

/// One whose length says something else.
fn with_length(kind: u8, length: u32, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &length.to_be_bytes()[..], body].concat()
}

const READY: u8 = b'Z';
const ROW: u8 = b'D';
const NOTICE: u8 = b'N';

fn ready() -> Vec<u8> {
    message(READY, b"I")
}

/// A row of these fields, which says that it has so many.
fn row(says: u16, fields: &[(i32, &[u8])]) -> Vec<u8> {
    let fields =
        fields.iter().flat_map(|(length, bytes)| [&length.to_be_bytes()[..], *bytes].concat());
    message(ROW, &says.to_be_bytes().into_iter().chain(fields).collect::<Vec<_>>())
}

/// What describes the columns of the greeting, of these types.
fn columns() -> Vec<u8> {
    const BOOL: u32 = 16;
    let named = [
        ("version", 23),
        ("read_only", BOOL),
        ("fsync", BOOL),
        ("full_pages", BOOL),
        ("synchronous", 25),
        ("encoding", 25),
    ];
    let mut body = u16::try_from(named.len()).unwrap().to_be_bytes().to_vec();
    for (name, kind) in named {
        body.extend([name.as_bytes(), &[0; 7][..]].concat());
        body.extend(u32::to_be_bytes(kind));
        body.extend([0, 4, 255, 255, 255, 255, 0, 0]);
    }
    message(b'T', &body)
}

/// The beginning of a right answer to what was prepared just now, and nothing behind it.
fn prepared() -> Vec<u8> {
    [message(b'1', b""), message(b't', &[0, 0]), columns(), ready(), message(b'2', b"")].concat()
}

fn notice() -> Vec<u8> {
    message(NOTICE, b"SWARNING\0VWARNING\0C01000\0Mhear, hear\0\0")
}

/// What may come at any place.
fn lies() -> Vec<Lie> {
    let end = [message(b'C', b"SELECT 1\0"), ready()].concat();
    let says = |name, bytes: Vec<u8>| Lie { name, bytes, ..Lie::default() };
    let ended = |name, bytes: Vec<u8>| says(name, [bytes, end.clone()].concat());
    let mut lies = vec![
        ended("a row with too few fields", row(1, &[(4, &[0, 0, 0, 1][..])])),
        ended("a row without fields", row(0, &[])),
        ended("a row that ends in its fields", row(6, &[(4, &[0, 2, 0, 0][..])])),
        ended("a field that is longer than its row", row(6, &[(i32::MAX, &b"x"[..])])),
        ended("a field of a negative length", row(6, &[(-7, &b""[..]); 6])),
        ended("a row of 65,535 fields", row(u16::MAX, &[])),
        ended("a row that is cut", message(ROW, b"\0")),
        ended("text that is none", row(6, &[(2, &[0xff, 0xfe][..]); 6])),
        says("a row of two gigabytes that never comes", with_length(ROW, 1 << 31, b"\0\x06")),
        Lie {
            endless: vec![0; 64 << 10],
            ..says("a row of four gigabytes", with_length(ROW, u32::MAX, b"\0\x06"))
        },
        Lie { endless: notice().repeat(500), ..says("notices without an end", notice()) },
        Lie {
            endless: row(6, &[(-1, &b""[..]); 6]).repeat(500),
            ..says("rows without an end", Vec::new())
        },
        says("a message of length 0", with_length(ROW, 0, b"")),
        says("a message of length 3", with_length(b'2', 3, b"")),
        ended("a message that nobody knows", message(0xff, b"what?")),
        ended("columns without a name", message(b'T', &[0, 9, 1, 2, 3])),
        ended("parameters that are not there", message(b't', &[0xff, 0xff, 0])),
        says("a state that nobody knows", message(READY, b"?")),
        says("a state of no byte", message(READY, b"")),
        ended("an error without a word", message(b'E', b"")),
        ended("an error that is no text", message(b'E', b"SERROR\0C\xff\xfe\xfd\0M\xff\0\0")),
        ended(
            "an error in the middle of rows",
            [row(6, &[(-1, &b""[..]); 6]), message(b'E', b"SERROR\0VERROR\0CXX000\0Mno\0\0")]
                .concat(),
        ),
        says("a notice without an end", message(NOTICE, b"Sx")),
        ended("an invitation to copy", message(b'G', &[0, 0, 0])),
        says("a completion without a name", message(b'C', b"")),
        ended("a setting without a value", message(b'S', b"server_version")),
        ended("a key that is cut", message(b'K', b"\0")),
        ended("a question for a password", message(b'R', &[0, 0, 0, 5, 1])),
        ended("a question of no byte", message(b'R', b"")),
        ended("a way to sign in that is cut", message(b'R', &[0, 0, 0, 10, b'S'])),
        says(
            "a page of the web",
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec(),
        ),
        says("silence", Vec::new()),
        Lie {
            hangs_up: true,
            ..says("half a message, and the end", with_length(ROW, 100, b"\0\x06"))
        },
        Lie { hangs_up: true, ..says("the end", Vec::new()) },
    ];
    // What is drawn, the same each time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let noise = std::iter::from_fn(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Some(state.to_be_bytes()[0])
    });
    lies.push(Lie { hangs_up: true, ..says("noise", noise.take(20_000).collect()) });
    lies
}

/// A server that passes everything on to a right one until a client says something, and lies then.
struct False {
    port: u16,
    lie: watch::Sender<Option<(&'static [u8], Lie)>>,
    told: Arc<AtomicUsize>,
    running: JoinHandle<()>,
}

impl Drop for False {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl False {
    async fn start(true_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (lie, lies) = watch::channel(None);
        let told = Arc::new(AtomicUsize::new(0));
        let n_told = Arc::clone(&told);
        let running = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(("127.0.0.1", true_port)).await.unwrap();
                tokio::spawn(between(near, far, lies.clone(), Arc::clone(&n_told)));
            }
        });
        Self { port, lie, told, running }
    }

    fn n_told(&self) -> usize {
        self.told.load(Ordering::SeqCst)
    }
}

async fn between(
    near: TcpStream,
    far: TcpStream,
    lies: watch::Receiver<Option<(&'static [u8], Lie)>>,
    told: Arc<AtomicUsize>,
) {
    let ((mut near_in, mut near_out), (far_in, mut far_out)) =
        (near.into_split(), far.into_split());
    let (mut buffer, mut lied) = (vec![0; 64 << 10], None);
    {
        let truth = pass(far_in, &mut near_out);
        tokio::pin!(truth);
        while lied.is_none() {
            let length = tokio::select! {
                length = near_in.read(&mut buffer) => length.unwrap_or(0),
                () = &mut truth => 0,
            };
            if length == 0 {
                return;
            }
            let said = &buffer[..length];
            let lie = lies.borrow().clone();
            let is_it = |cue: &[u8]| said.windows(cue.len()).any(|part| part == cue);
            lied = lie.filter(|(cue, _)| is_it(cue)).map(|(_, lie)| lie);
            if lied.is_none() && far_out.write_all(said).await.is_err() {
                return;
            }
        }
    }
    let Some(lie) = lied else { return };
    // The right one takes back what was under way.
    drop(far_out);
    told.fetch_add(1, Ordering::SeqCst);
    let lying = async {
        near_out.write_all(&lie.bytes).await?;
        while !lie.endless.is_empty() {
            near_out.write_all(&lie.endless).await?;
        }
        std::io::Result::Ok(())
    };
    // Whatever the client says behind it is read and not answered.
    let is_over = tokio::select! {
        lied = lying => lied.is_err() || lie.hangs_up,
        () = drain(&mut near_in) => true,
    };
    if !is_over {
        drain(&mut near_in).await;
    }
}

async fn pass(mut from: OwnedReadHalf, to: &mut OwnedWriteHalf) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

async fn drain(from: &mut OwnedReadHalf) {
    let mut buffer = vec![0; 64 << 10];
    while matches!(from.read(&mut buffer).await, Ok(1..)) {}
}

/// What this process has in memory.
fn rss_mib() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4 / 1_024
}

/// What may be held of what comes within the time of one answer: small rows without an end, and what says that it is
/// large, on several connections at once.
const ROWS_MIB_MAX: u64 = 512;
const FLOOD_MIB_MAX: u64 = 3_072;
const ANSWER: Duration = Duration::from_millis(250);

/// Looks all the while that nothing takes much memory, but what is said to be large and comes.
async fn watch_memory(allowed_mib: u64, mut is_over: watch::Receiver<bool>) {
    let before = rss_mib();
    while !*is_over.borrow_and_update() {
        let now = rss_mib();
        assert!(now < before + allowed_mib, "{before} MiB, {now} MiB");
        let _ = tokio::time::timeout(Duration::from_millis(20), is_over.changed()).await;
    }
}

async fn write(store: &PostgresArchive, name: &str, n: u64) -> Result<(), ArchiveError> {
    let mut record = record(&room("chat:a"), EPOCH, n);
    record.publication.data = Bytes::from(format!("\"{name}\""));
    let written = store.append(vec![record]);
    in_time("a write is answered", written).await
}

async fn read(store: &PostgresArchive, name: &str) -> Result<usize, ArchiveError> {
    let read = room(name);
    let read = store.read(&read, EPOCH, Offset::ZERO, 10, usize::MAX);
    in_time("a read is answered", read).await.map(|page| page.messages.len())
}

/// A store that gives up soon is not built at once where much else happens.
async fn until_built(settings: &Config) -> PostgresArchive {
    in_time("it is built", async {
        loop {
            if let Ok(store) = PostgresArchive::build(settings.clone()).await {
                return store;
            }
        }
    })
    .await
}

async fn last(store: &PostgresArchive, name: &str) -> u64 {
    let name = room(name);
    in_time("it heals", async {
        loop {
            if let Ok(head) = store.open_room(&name, EPOCH, None).await {
                return head.last.get();
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

/// PG14: what comes in the place of an answer to a write or a read. Nobody is answered wrongly, and the next call
/// is answered rightly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_comes_instead_of_an_answer_is_an_error_and_the_next_call_is_answered() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let liar = False::start(postgres.port()).await;
    let settings = Config {
        url: postgres.url_at(liar.port).into(),
        answer_timeout: ANSWER,
        ..config(&postgres)
    };
    let store = until_built(&settings).await;
    assert_eq!(last(&store, "chat:a").await + last(&store, "chat:lied").await, 0);
    let (over, is_over) = watch::channel(false);
    let watching = tokio::spawn(watch_memory(ROWS_MIB_MAX, is_over));
    let mut n = 0;
    for lie in
        lies().into_iter().filter(|lie| lie.endless.is_empty() || lie.name.starts_with("rows"))
    {
        let (name, is_endless) = (lie.name, !lie.endless.is_empty());
        liar.lie.send_replace(Some((&b"lied"[..], lie)));
        let before = liar.n_told();
        let begun = Instant::now();
        // Of what a write answers only the end is looked at, and the driver looks for that as long as more comes.
        if !is_endless {
            let written = write(&store, "lied", n + 1).await;
            assert!(written.is_err(), "{name}: {written:?}");
        }
        let read_back = read(&store, "chat:lied").await;
        // An answer that ends as it should and has no rows is one.
        assert!(read_back.as_ref().map_or(0, |read| *read) == 0, "{name}: {read_back:?}");
        assert!(liar.n_told() > before, "{name} was not said");
        assert!(begun.elapsed() < 20 * ANSWER, "{name}: {:?}", begun.elapsed());
        // With another word than the one that is lied about.
        let stored = last(&store, "chat:a").await;
        assert!(stored == n, "{name}: {stored} and not {n}");
        in_time("it goes on", async { while write(&store, "true", n + 1).await.is_err() {} }).await;
        n += 1;
        in_time("it is read", async { while read(&store, "chat:a").await.is_err() {} }).await;
    }
    over.send_replace(true);
    watching.await.unwrap();
    assert_eq!(last(&store, "chat:a").await, n);
    store.close().await;
}

/// PG14: what comes at the beginning of connections. It is tried again and again, and heals by itself; what comes is
/// held for as long as an answer may take, and given back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_new_connection_is_told_a_right_server_is_used_as_soon_as_there_is_one() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let liar = False::start(postgres.port()).await;
    let way = Passage::start(&Handle::current(), postgres.port());
    let settings = Config {
        url: postgres.url_at(way.port()).into(),
        answer_timeout: ANSWER,
        ..config(&postgres)
    };
    let store = until_built(&settings).await;
    assert_eq!(last(&store, "chat:a").await, 0);
    let (over, is_over) = watch::channel(false);
    let watching = tokio::spawn(watch_memory(FLOOD_MIB_MAX, is_over));
    for (turn, lie) in lies().into_iter().enumerate() {
        let (name, n) = (lie.name, turn as u64);
        // Where a connection begins, or where it is asked what the server is.
        let is_answer = turn % 2 == 0 || lie.name.contains("row");
        let as_answer = Lie { bytes: [prepared(), lie.bytes.clone()].concat(), ..lie.clone() };
        let lie = match is_answer {
            true => (&b"server_version_num"[..], as_answer),
            false => (&b"user\0"[..], lie),
        };
        liar.lie.send_replace(Some(lie));
        let before = liar.n_told();
        way.switch(liar.port);
        until(name, || liar.n_told() > before + 1 && !store.status().is_up()).await;
        let written = write(&store, "lied", n + 1).await;
        assert!(written.is_err(), "{name}: {written:?}");
        assert!(read(&store, "chat:a").await.is_err(), "{name}");
        way.switch(postgres.port());
        until(name, || store.status().is_up()).await;
        assert_eq!(last(&store, "chat:a").await, n, "{name}");
        in_time(name, async { while write(&store, "true", n + 1).await.is_err() {} }).await;
    }
    over.send_replace(true);
    watching.await.unwrap();
    let page = store.read(&room("chat:a"), EPOCH, Offset::ZERO, 1, usize::MAX).await.unwrap();
    assert_eq!(page.first, offset(1));
    store.close().await;
}
