//! Nodes of the built binary on one Redis, each over a way of its own that a test can cut, with a Postgres where rooms
//! are durable, and a balancer in front.
//!
//! It starts and ends them; what happens in between is a story's.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tests::postgres::Postgres;
use tests::raw::RawSocket;
use tests::redis::Redis;
use tests::server::Server;
use tests::token::SECRET;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::passage::Passage;

/// How long anything may take that has to come to an end.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
const NODES: usize = 3;
/// How long nodes take to let their clients go.
const DRAIN_WINDOW: Duration = Duration::from_secs(2);

/// Nodes on one Redis, and a balancer in front.
pub(crate) struct Cluster {
    pub(crate) redis: Redis,
    /// Where rooms are kept; without it none is durable.
    pub(crate) postgres: Option<Postgres>,
    pub(crate) nodes: Vec<Server>,
    /// Between each node and Redis; none where they are connected to it themselves.
    pub(crate) proxies: Vec<Passage>,
    /// Theirs alone: what passes bytes on must not wait for hundreds of clients.
    _ways: Runtime,
    pub(crate) runtime: Runtime,
    pub(crate) front: SocketAddr,
}

impl Cluster {
    /// Nodes that are connected to Redis themselves.
    pub(crate) fn start(redis: Redis) -> Self {
        let url = redis.url();
        Self::start_at(&url, redis)
    }

    /// The same with nodes that take this long to let their clients go.
    pub(crate) fn start_with(redis: Redis, drain_window: Duration) -> Self {
        let url = redis.url();
        Self::build(redis, None, &Setting { redis: Some(&url), drain_window, ..Setting::default() })
    }

    /// Nodes that find this server by another address.
    pub(crate) fn start_at(url: &str, redis: Redis) -> Self {
        Self::build(redis, None, &Setting { redis: Some(url), ..Setting::default() })
    }

    /// Nodes that reach Redis each over a proxy.
    pub(crate) fn start_behind_proxies(redis: Redis) -> Self {
        Self::build(redis, None, &Setting::default())
    }

    /// Nodes that find this server by another address, and whose rooms wait for a replica of it.
    pub(crate) fn start_replicated_at(url: &str, redis: Redis) -> Self {
        let more = &[("namespaces.public.replicated", "true")];
        let setting = Setting { redis: Some(url), more, ..Setting::default() };
        Self::build(redis, None, &setting)
    }

    /// Nodes all of whose rooms are durable.
    pub(crate) fn start_durable(redis: Redis, postgres: Postgres) -> Self {
        let url = postgres.url();
        Self::start_durable_at(&url, redis, postgres)
    }

    /// The same with nodes that find this server by another address.
    pub(crate) fn start_durable_at(url: &str, redis: Redis, postgres: Postgres) -> Self {
        let at = redis.url();
        let setting = Setting { redis: Some(&at), store: Some(url), ..Setting::default() };
        Self::build(redis, Some(postgres), &setting)
    }

    /// The same with nodes that reach Redis each over a proxy.
    pub(crate) fn start_durable_behind_proxies(redis: Redis, postgres: Postgres) -> Self {
        let url = postgres.url();
        Self::build(redis, Some(postgres), &Setting { store: Some(&url), ..Setting::default() })
    }

    fn build(redis: Redis, postgres: Option<Postgres>, setting: &Setting<'_>) -> Self {
        let runtime = Runtime::new().unwrap();
        let ways = tokio::runtime::Builder::new_multi_thread();
        let ways = { ways }.worker_threads(1).enable_all().build().unwrap();
        let proxies: Vec<_> = (0..NODES * usize::from(setting.redis.is_none()))
            .map(|_| Passage::start(ways.handle(), redis.port()))
            .collect();
        let url =
            |number: usize| setting.redis.map_or_else(|| proxies[number].url(), str::to_owned);
        let nodes: Vec<_> = (0..NODES).map(|number| start_node(&url(number), setting)).collect();
        nodes.iter().for_each(|node| until_status(node, 200));
        let addrs: Vec<_> = nodes.iter().map(Server::addr).collect();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let front = listener.local_addr().unwrap();
        runtime.spawn(balance(listener, addrs));
        Self { redis, postgres, nodes, proxies, _ways: ways, runtime, front }
    }

    /// The most memory of a node, in MiB.
    pub(crate) fn rss_mib(&self) -> u64 {
        // One that was killed has none.
        let is_there = |node: &&Server| std::net::TcpStream::connect(node.addr()).is_ok();
        let of = |node: &Server| node.rss_bytes() >> 20;
        self.nodes.iter().filter(is_there).map(of).max().unwrap_or(0)
    }
}

/// What nodes are told.
struct Setting<'s> {
    /// Where Redis is; without it each reaches it over a proxy.
    redis: Option<&'s str>,
    /// Where Postgres is; without it no room is durable.
    store: Option<&'s str>,
    drain_window: Duration,
    /// What else they are told.
    more: &'s [(&'s str, &'s str)],
}

impl Default for Setting<'_> {
    fn default() -> Self {
        Self { redis: None, store: None, drain_window: DRAIN_WINDOW, more: &[] }
    }
}

fn start_node(redis: &str, setting: &Setting<'_>) -> Server {
    let set = |key: &str, value: &str| ["--set".to_owned(), format!("{key}={value}")];
    let ticket_secret = "a ticket secret of the tests".repeat(2).replace(' ', "-");
    let mut words: Vec<String> = [
        set("redis.url", redis),
        set("redis.answer_timeout_ms", "1000"),
        set("auth.hmac_secret", SECRET),
        set("auth.ticket_secret", &ticket_secret),
        set("server.drain_window_ms", &setting.drain_window.as_millis().to_string()),
    ]
    .concat();
    let store = setting.store.map(|url| ("DATABASE_URL", url));
    if store.is_some() {
        let kept = [
            set("namespaces.public.durable", "true"),
            // All that a story says is there at its end.
            set("namespaces.public.history_messages_max", "100000"),
            set("store.answer_timeout_ms", "1000"),
        ];
        words.extend(kept.concat());
    }
    words.extend(setting.more.iter().flat_map(|(key, value)| set(key, value)));
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    Server::start_with(&words, store.as_slice())
}

/// What a node says of its readiness, as the first line of its answer.
fn readiness(node: &Server) -> String {
    let mut socket = RawSocket::connect(node.addr());
    socket.send(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    socket.read_head()
}

/// Waits until a node says that it is ready (200), or that it is not (503).
pub(crate) fn until_status(node: &Server, status: u16) {
    let begin = Instant::now();
    let wanted = format!("HTTP/1.1 {status}");
    while !readiness(node).starts_with(&wanted) {
        assert!(begin.elapsed() < DEADLINE, "it does not answer {status}: {}", node.log());
    }
}

/// Looks for this long that a node is not ready.
pub(crate) fn stays_unready(node: &Server, span: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < span {
        assert!(readiness(node).starts_with("HTTP/1.1 503"), "it is ready");
    }
}

/// Gives each connection to the next node that takes it: one that says 503 does not, as in the settings of
/// `deploy/`.
async fn balance(listener: TcpListener, nodes: Vec<SocketAddr>) -> io::Result<()> {
    for turn in 0_usize.. {
        let (mut near, _) = listener.accept().await?;
        let nodes = nodes.clone();
        tokio::spawn(async move {
            drop(near.set_nodelay(true));
            let Ok(asked) = head(&mut near).await else { return };
            for step in 0..nodes.len() {
                let far = nodes[(turn + step) % nodes.len()];
                let Ok((mut far, answer)) = ask(far, &asked).await else { continue };
                if answer.starts_with(b"HTTP/1.1 503") && step + 1 < nodes.len() {
                    continue;
                }
                if near.write_all(&answer).await.is_ok() {
                    drop(copy_bidirectional(&mut near, &mut far).await);
                }
                return;
            }
        });
    }
    Ok(())
}

/// Sends a node the beginning of a connection, and gives the beginning of its answer.
async fn ask(node: SocketAddr, asked: &[u8]) -> io::Result<(TcpStream, Vec<u8>)> {
    let mut far = TcpStream::connect(node).await?;
    far.set_nodelay(true)?;
    far.write_all(asked).await?;
    let answer = head(&mut far).await?;
    Ok((far, answer))
}

/// What comes up to the end of an HTTP head, and whatever came with it.
async fn head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}
