//! Between one node and Redis or Postgres: passes bytes on, or does not.
//!
//! It knows nothing of what it passes on. A fault is its own; the servers on both sides stay whole. A slow one delays
//! what it passes on, and loses nothing.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    /// They are passed on.
    Open,
    /// They stay where they are, and nobody is told.
    Silent,
    /// Connections are reset.
    Shut,
}

/// How slow it is, in each direction of each connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slowness {
    pub(crate) delay: Duration,
    /// None as many as come.
    pub(crate) bytes_per_second: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    way: Way,
    target: SocketAddr,
    /// Connections of an earlier one are reset.
    generation: u64,
}

/// One way to a server.
pub(crate) struct Passage {
    addr: SocketAddr,
    state: watch::Sender<State>,
    running: JoinHandle<()>,
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Passage {
    /// An open one; its connections run on `runtime`.
    pub(crate) fn start(runtime: &Handle, port: u16) -> Self {
        Self::start_slow(runtime, port, None)
    }

    /// The same, which takes its time.
    pub(crate) fn start_slow(runtime: &Handle, port: u16, slowness: Option<Slowness>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let target = SocketAddr::from(([127, 0, 0, 1], port));
        let (state, states) = watch::channel(State { way: Way::Open, target, generation: 0 });
        let _entered = runtime.enter();
        let listener = TcpListener::from_std(listener).unwrap();
        let running = runtime.spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(pass(near, states.clone(), slowness));
            }
        });
        Self { addr, state, running }
    }

    /// Where it is, as clients of Redis are told.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// Its port, for what has other addresses.
    pub(crate) fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Resets all connections, and each new one.
    pub(crate) fn shut(&self) {
        self.state.send_modify(|state| state.way = Way::Shut);
    }

    /// Keeps all bytes back.
    pub(crate) fn silence(&self) {
        self.state.send_modify(|state| state.way = Way::Silent);
    }

    /// Passes on.
    pub(crate) fn open(&self) {
        self.state.send_modify(|state| state.way = Way::Open);
    }

    /// Resets all connections, and takes new ones to another server.
    pub(crate) fn switch(&self, port: u16) {
        self.state.send_modify(|state| {
            state.generation += 1;
            state.way = Way::Open;
            state.target = SocketAddr::from(([127, 0, 0, 1], port));
        });
    }
}

async fn pass(near: TcpStream, mut states: watch::Receiver<State>, slowness: Option<Slowness>) {
    let begun = *states.borrow();
    let _ = near.set_zero_linger();
    let is_open = states.wait_for(|state| state.way != Way::Silent);
    if begun.way == Way::Shut || is_open.await.is_err() {
        return;
    }
    let generation = states.borrow().generation;
    let target = states.borrow().target;
    let Ok(far) = TcpStream::connect(target).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true), far.set_zero_linger());
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let mut watching = states.clone();
    let is_over = |state: &State| state.way == Way::Shut || state.generation != generation;
    if let Some(slowness) = slowness {
        tokio::select! {
            _ = watching.wait_for(is_over) => {}
            _ = slowly(near_in, far_out, slowness) => {}
            _ = slowly(far_in, near_out, slowness) => {}
        }
        return;
    }
    tokio::select! {
        _ = watching.wait_for(is_over) => {}
        _ = one_way(near_in, far_out, states.clone()) => {}
        _ = one_way(far_in, near_out, states) => {}
    }
}

async fn one_way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut states: watch::Receiver<State>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        if states.wait_for(|state| state.way != Way::Silent).await.is_err() {
            return Ok(());
        }
        to.write_all(&buffer[..length]).await?;
    }
}

/// The most bytes that are passed on at once, and how many such pieces are on their way at most.
const PIECE: usize = 1_500;
const PIECES_MAX: usize = 4_096;

async fn slowly(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, how: Slowness) -> io::Result<()> {
    let (sender, mut on_its_way) = mpsc::channel(PIECES_MAX);
    let reading = async {
        loop {
            let mut piece = vec![0; PIECE];
            let length = from.read(&mut piece).await?;
            piece.truncate(length);
            if length == 0 || sender.send((Instant::now() + how.delay, piece)).await.is_err() {
                return io::Result::Ok(());
            }
        }
    };
    let writing = async {
        let mut free_at = Instant::now();
        while let Some((due, piece)) = on_its_way.recv().await {
            let at = due.max(free_at);
            sleep_until(at).await;
            let takes = |rate: u32| Duration::from_secs_f64(piece.len() as f64 / f64::from(rate));
            free_at = at + how.bytes_per_second.map_or(Duration::ZERO, takes);
            to.write_all(&piece).await?;
        }
        io::Result::Ok(())
    };
    // Whichever side ends first ends it.
    tokio::select! {
        read = reading => read,
        written = writing => written,
    }
}
