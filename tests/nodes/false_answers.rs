//! A Redis that answers some commands with an error instead of doing them, as one does that loads its data, runs
//! another's script or has forgotten who is connected.
//!
//! It is a real server. What it shall not do is replaced on the way by a script that gives the answer, so that all
//! answers stay in their order; nothing else is looked at.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use application::ports::PublishError;
use application::testing::broker_contract::{named, publish};
use domain::position::Offset;
use tests::redis::Redis;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::brokers::{Node, ROOM, impatient, retry, texts};
use crate::links::wrong;

/// What is answered instead of doing something.
#[derive(Clone, Debug)]
struct Lie {
    /// How the commands begin.
    instead_of: &'static str,
    script: String,
}

/// A way to a server on which some commands are replaced.
struct FalseWay {
    addr: SocketAddr,
    lie: watch::Sender<Option<Lie>>,
    told: Arc<AtomicUsize>,
    running: JoinHandle<()>,
}

impl Drop for FalseWay {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl FalseWay {
    async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (lie, lies) = watch::channel(None);
        let told = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&told);
        let running = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                let ((near_in, mut near_out), (mut far_in, far_out)) =
                    (near.into_split(), far.into_split());
                let (lies, counted) = (lies.clone(), Arc::clone(&counted));
                tokio::spawn(async move {
                    tokio::select! {
                        _ = replace(near_in, far_out, lies, counted) => {}
                        _ = tokio::io::copy(&mut far_in, &mut near_out) => {}
                    }
                });
            }
        });
        Self { addr, lie, told, running }
    }

    fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    fn answer(&self, instead_of: &'static str, script: &str) {
        let script = script.to_owned();
        self.lie.send_replace(Some(Lie { instead_of, script }));
    }

    fn tell_the_truth(&self) {
        self.lie.send_replace(None);
    }
}

async fn replace(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    lies: watch::Receiver<Option<Lie>>,
    told: Arc<AtomicUsize>,
) -> std::io::Result<()> {
    let mut sent = Vec::new();
    while from.read_buf(&mut sent).await? > 0 {
        while let Some((name, length)) = command(&sent) {
            let rest = sent.split_off(length);
            let lie = lies.borrow().clone().filter(|lie| name.starts_with(lie.instead_of));
            if let Some(Lie { script, .. }) = lie {
                told.fetch_add(1, Ordering::Relaxed);
                let words =
                    format!("*3\r\n$4\r\nEVAL\r\n${}\r\n{script}\r\n$1\r\n0\r\n", script.len());
                to.write_all(words.as_bytes()).await?;
            } else {
                to.write_all(&sent).await?;
            }
            sent = rest;
        }
    }
    Ok(())
}

/// The name and the length of the first command of what was sent; none where not all of it has come.
fn command(sent: &[u8]) -> Option<(String, usize)> {
    let (words, mut at) = number(sent, 0)?;
    let mut name = None;
    for _ in 0..words {
        let (length, begin) = number(sent, at)?;
        let word = sent.get(begin..begin + length)?;
        name.get_or_insert_with(|| String::from_utf8_lossy(word).to_ascii_uppercase());
        at = begin + length + 2;
    }
    (at <= sent.len()).then_some((name?, at))
}

/// The number of a line behind its mark, and where the next line begins.
fn number(sent: &[u8], at: usize) -> Option<(usize, usize)> {
    let line = sent.get(at..)?;
    let end = line.windows(2).position(|end| end == b"\r\n")?;
    let number = std::str::from_utf8(&line[1..end]).unwrap().parse().unwrap();
    Some((number, at + end + 2))
}

/// RD14: what a server answers to commands behind a handshake that went well. Each is a refusal at once, nothing was
/// done, and the same publish is taken once when it is over.
#[tokio::test]
async fn whatever_error_comes_instead_of_an_answer_is_a_refusal_at_once_and_heals() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let way = FalseWay::start(redis.port()).await;
    let node = Node::start_with(impatient(way.url())).await;
    let errors = [
        "LOADING Redis is loading the dataset in memory",
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        "NOAUTH Authentication required.",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "MISCONF Redis is configured to save RDB snapshots, but is unable to persist to disk",
        "NOREPLICAS Not enough good replicas to write.",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "CLUSTERDOWN The cluster is down",
    ];
    for (error, place) in errors.into_iter().zip(1..) {
        let one = || named(publish(ROOM, "u1", &place.to_string()), &place.to_string());
        let before = way.told.load(Ordering::Relaxed);
        way.answer("EVALSHA", &format!("return redis.error_reply(\"{error}\")"));
        for _ in 0..3 {
            let begun = Instant::now();
            let answer = node.publish(one()).await;
            assert!(matches!(answer, Err(PublishError::Unavailable { .. })), "{error}: {answer:?}");
            assert!(begun.elapsed() < Duration::from_secs(1), "{error}: {:?}", begun.elapsed());
        }
        assert!(way.told.load(Ordering::Relaxed) > before, "{error}: nobody asked");
        way.tell_the_truth();
        let receipt = retry(&node, one).await;
        let taken = (receipt.offset.map(Offset::get), receipt.duplicate);
        assert_eq!(taken, (Some(place), false), "{error}");
    }
    let all: Vec<_> = (1..=errors.len()).map(|place| place.to_string()).collect();
    assert_eq!(texts(&node.read(0).await), all);
}

/// RD19: one that is too old says so itself, and is named with what to do.
#[tokio::test]
async fn a_server_that_is_too_old_is_named_with_what_to_do() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let way = FalseWay::start(redis.port()).await;
    for version in ["5.0.14", "6.0.20"] {
        let info =
            format!("redis_version:{version}\\r\\nredis_mode:standalone\\r\\nrun_id:a\\r\\n");
        way.answer("INFO", &format!("return \"{info}\""));
        let said = wrong(impatient(way.url())).await;
        assert!(said.contains(version) && said.contains("use a newer Redis"), "{said}");
    }
    way.tell_the_truth();
    Node::start_with(impatient(way.url())).await.say("1").await.unwrap();
}
