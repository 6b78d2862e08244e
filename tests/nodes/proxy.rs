//! A proxy in front of Redis that can hold, cut and fill what goes through it, by connection and direction.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::brokers::in_time;

/// What becomes of the bytes of one connection in one direction.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Way {
    #[default]
    Open,
    /// They wait here until it is open again.
    Held,
    /// So many more go through, and the rest waits.
    Only(usize),
    /// The connection is reset.
    Cut,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Ways {
    up: Way,
    down: Way,
}

/// The proxy. It ends with its value, and its connections do.
pub(crate) struct Proxy {
    addr: SocketAddr,
    ways: Arc<Mutex<BTreeMap<usize, watch::Sender<Ways>>>>,
    /// How many connections were made.
    made: watch::Receiver<usize>,
    accepting: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.ways.lock().unwrap().clear();
    }
}

impl Proxy {
    /// One in front of a port.
    pub(crate) async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let ways: Arc<Mutex<BTreeMap<usize, watch::Sender<Ways>>>> = Arc::default();
        let (counter, made) = watch::channel(0);
        let of_task = Arc::clone(&ways);
        let accepting = tokio::spawn(async move {
            for number in 1_usize.. {
                let Ok((near, _)) = listener.accept().await else { return };
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                let sender = watch::Sender::new(Ways::default());
                tokio::spawn(join(near, far, sender.subscribe()));
                of_task.lock().unwrap().insert(number, sender);
                counter.send_replace(number);
            }
        });
        Self { addr, ways, made, accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// How many connections were made so far.
    pub(crate) fn made(&self) -> usize {
        *self.made.borrow()
    }

    /// Waits until so many were made.
    pub(crate) async fn until_made(&self, number: usize) {
        let mut made = self.made.clone();
        in_time("a connection is made", made.wait_for(|made| *made >= number)).await.unwrap();
    }

    /// What becomes of what the node says, over the connections with these numbers.
    pub(crate) fn up(&self, way: Way, is_meant: impl Fn(usize) -> bool) {
        self.set(|ways| ways.up = way, is_meant);
    }

    /// What becomes of what Redis says.
    pub(crate) fn down(&self, way: Way, is_meant: impl Fn(usize) -> bool) {
        self.set(|ways| ways.down = way, is_meant);
    }

    fn set(&self, change: impl Fn(&mut Ways), is_meant: impl Fn(usize) -> bool) {
        for (number, sender) in &*self.ways.lock().unwrap() {
            if is_meant(*number) {
                sender.send_modify(&change);
            }
        }
    }
}

async fn join(near: TcpStream, far: TcpStream, ways: watch::Receiver<Ways>) {
    let mut cut = ways.clone();
    // Closed by a reset, as by a firewall that forgot it.
    let _ = near.set_zero_linger().and_then(|()| far.set_zero_linger());
    let (near_reads, near_writes) = near.into_split();
    let (far_reads, far_writes) = far.into_split();
    let down = ways.clone();
    tokio::select! {
        () = carry(near_reads, far_writes, ways, |ways| ways.up) => {}
        () = carry(far_reads, near_writes, down, |ways| ways.down) => {}
        _ = cut.wait_for(|ways| ways.up == Way::Cut || ways.down == Way::Cut) => {}
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut ways: watch::Receiver<Ways>,
    way: impl Fn(&Ways) -> Way,
) {
    let mut buffer = vec![0; 64 * 1_024];
    let mut gone = 0;
    loop {
        // What is held is not even read: the other side's buffers fill, as they would.
        let is_open = |ways: &Ways| match way(ways) {
            Way::Open => true,
            Way::Only(most) => most > gone,
            Way::Held | Way::Cut => false,
        };
        let Ok(now) = ways.wait_for(is_open).await.map(|ways| way(&ways)) else { return };
        let room = match now {
            Way::Only(most) => buffer.len().min(most - gone),
            _ => buffer.len(),
        };
        let read = tokio::select! {
            read = from.read(&mut buffer[..room]) => read,
            // It may be another way meanwhile.
            changed = ways.changed() => match changed {
                Ok(()) => { gone = 0; continue }
                Err(_) => return,
            },
        };
        let Ok(n @ 1..) = read else { return };
        gone += n;
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}
