//! The accept loop: nodelay, limits on connections, one deadline for the TLS handshake and the first
//! request's head together, and an answer when the process has no file descriptors left.
//!
//! No error of `accept` may end it.

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::io::{IoSlice, Write};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use application::admission::Pressure;
use application::client_address::CountedAddress;
use application::metrics::{EdgeRefusal, NodeMetrics};
use application::short_visits::Visit;
use axum::body::{Body, Bytes};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tls_rustls::Acceptor;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tower::ServiceExt;
use worker_tokio::{Accepted, Purpose};

use crate::answer;
use crate::notice;
use crate::routes::Routers;
use crate::shared::{Life, Shared};
use crate::wire::{self, Patient, Wire};

/// The largest head of a request. hyper's minimum; above it the answer is 431.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Between attempts while no descriptor is to be had.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(20);

/// How long a request that is under way may take once the server stops.
const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// What a request's connection knows, and where a request that turns out to be an upgrade leaves
/// what its socket is wanted for: read when hyper has written the answer and let go.
#[derive(Clone, Debug)]
pub(crate) struct Handover {
    left: Arc<Mutex<Left>>,
    /// Who is at the other end of the socket: the client or a proxy.
    pub(crate) peer: SocketAddr,
}

#[derive(Debug, Default)]
struct Left {
    /// A request has come.
    has_begun: bool,
    purpose: Option<Purpose>,
    guest: Guest,
    /// What hyper has written of the answer to an upgrade, and its worker is to send.
    answer: Vec<u8>,
}

/// What is known of the address that an upgrade came from, for as long as its socket lives.
#[derive(Debug, Default)]
pub(crate) struct Guest {
    /// The place of a client that came through a proxy.
    pub(crate) address: Option<CountedAddress>,
    /// None for who comes from this machine.
    pub(crate) visit: Option<Visit>,
}

impl Handover {
    pub(crate) fn new(peer: SocketAddr) -> Self {
        Self { left: Arc::default(), peer }
    }

    pub(crate) fn leave(&self, purpose: Purpose, guest: Guest) {
        let mut left = self.left();
        (left.purpose, left.guest) = (Some(purpose), guest);
    }

    /// Keeps a piece of the answer to an upgrade back, if this is one whose worker will have something to
    /// say: so both leave in one write. The answer is ours, and short.
    pub(crate) fn keep(&self, pieces: &[IoSlice<'_>]) -> Option<usize> {
        let mut left = self.left();
        matches!(left.purpose, Some(Purpose::Protocol(_))).then(|| {
            for piece in pieces {
                left.answer.extend_from_slice(piece);
            }
            pieces.iter().map(|piece| piece.len()).sum()
        })
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An address with what is served there.
pub(crate) struct Entrance {
    pub(crate) listener: TcpListener,
    pub(crate) routers: Routers,
    /// How many may be inside.
    pub(crate) permits: Arc<Semaphore>,
    /// How many may be inside besides, of those who come during a drain: they hold their permits
    /// until they are gone, and all of `permits` are waited for.
    pub(crate) drain_permits: Arc<Semaphore>,
    /// Whether it is the one whose sockets are counted.
    pub(crate) is_public: bool,
    /// None speaks plain HTTP.
    pub(crate) tls: Option<Acceptor>,
}

/// A socket's place, counted for as long as it lives, wherever it is handed to.
pub(crate) struct Permit {
    _place: OwnedSemaphorePermit,
    /// None for a socket that is not counted.
    counted: Option<Arc<NodeMetrics>>,
    /// None where addresses are not limited.
    address: Option<CountedAddress>,
    /// None until it is a WebSocket.
    visit: Option<Visit>,
}

impl Permit {
    pub(crate) fn new(
        place: OwnedSemaphorePermit,
        counted: Option<Arc<NodeMetrics>>,
        address: Option<CountedAddress>,
    ) -> Self {
        if let Some(metrics) = &counted {
            metrics.edge.sockets.add(1);
        }
        Self { _place: place, counted, address, visit: None }
    }

    /// It has become a WebSocket of this guest.
    pub(crate) fn receive(&mut self, guest: Guest) {
        self.visit = guest.visit;
        if guest.address.is_some() {
            self.address = guest.address;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(metrics) = &self.counted {
            metrics.edge.sockets.sub(1);
        }
    }
}

pub(crate) async fn run(entrance: Entrance, shared: Arc<Shared>, life: watch::Receiver<Life>) {
    let mut spare = Spare::new();
    let has_tls = entrance.tls.is_some();
    loop {
        match entrance.listener.accept().await {
            Ok((stream, peer)) => match admit(&entrance, &shared, &life, peer) {
                Ok(permit) => {
                    let (routers, tls) = (entrance.routers.clone(), entrance.tls.clone());
                    let (shared, life) = (Arc::clone(&shared), life.clone());
                    tokio::spawn(async move {
                        welcome(stream, peer, tls, routers, shared, permit, life).await;
                    });
                }
                Err(why) => {
                    turn_away(&socket2::SockRef::from(&stream), why, has_tls);
                    notice::turned_away(&shared, why, Some(peer));
                }
            },
            Err(error) if is_exhausted(&error) => {
                shared.is_exhausted_now();
                notice::turned_away(&shared, EdgeRefusal::Descriptors, None);
                spare.answer_one(&entrance.listener, has_tls);
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
            // The connection was gone before it was accepted; the next may be well.
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "accept failed");
            }
        }
    }
}

/// A place for a socket, if there is one and its address has not as many as it may have. What comes
/// from a trusted proxy is counted later, by its client.
fn admit(
    entrance: &Entrance,
    shared: &Arc<Shared>,
    life: &watch::Receiver<Life>,
    peer: SocketAddr,
) -> Result<Permit, EdgeRefusal> {
    // A socket costs memory before it has said anything, so only a few are listened to when there
    // is next to none: those may be asking how the server is.
    let is_full = entrance.is_public && shared.pressure() == Pressure::Full;
    let (permits, why) = match *life.borrow() {
        Life::Serving if is_full => (&entrance.drain_permits, EdgeRefusal::Memory),
        Life::Serving => (&entrance.permits, EdgeRefusal::ConnectionLimit),
        Life::Draining | Life::Ended => (&entrance.drain_permits, EdgeRefusal::ConnectionLimit),
    };
    let place = Arc::clone(permits).try_acquire_owned().map_err(|_| why)?;
    if !entrance.is_public {
        return Ok(Permit::new(place, None, None));
    }
    let config = shared.config();
    let is_proxy = config.trusted_proxies.contains(peer.ip());
    let address = if is_proxy { None } else { shared.count_address(&config, peer.ip())? };
    Ok(Permit::new(place, Some(Arc::clone(&shared.node.services().metrics)), address))
}

/// Shakes hands where TLS is spoken, then serves.
async fn welcome(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Acceptor>,
    routers: Routers,
    shared: Arc<Shared>,
    permit: Permit,
    mut life: watch::Receiver<Life>,
) {
    let deadline = Instant::now() + shared.config().handshake_timeout;
    // Small frames must not wait for an acknowledgement.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let came = *life.borrow();
    let wire = match tls {
        None => Wire::Plain(stream),
        Some(acceptor) => {
            let shaken = tokio::select! {
                shaken = Wire::shake_hands(stream, &acceptor, deadline) => shaken,
                // Nothing was promised yet to who is still shaking hands.
                _ = life.wait_for(|life| *life > came) => return,
            };
            match shaken {
                Ok(wire) => wire,
                Err(failure) => return notice::no_session(&shared, failure, peer),
            }
        }
    };
    serve(wire, Handover::new(peer), deadline, routers, shared, permit, life).await;
}

/// Serves HTTP up to an upgrade. When the server stops, a request that was taken is still answered,
/// and nothing new is read; upgraded sockets are no longer in here by then. Who comes while it
/// drains asks once.
async fn serve(
    wire: Wire,
    handover: Handover,
    deadline: Instant,
    routers: Routers,
    shared: Arc<Shared>,
    permit: Permit,
    mut life: watch::Receiver<Life>,
) {
    let came = *life.borrow();
    let router = if came == Life::Serving { routers.serving } else { routers.draining };
    let has_tls = matches!(wire, Wire::Tls(_));
    let left = handover.clone();
    let patience = shared.config().handshake_timeout;
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        handover.left().has_begun = true;
        request.extensions_mut().insert(handover.clone());
        router.clone().oneshot(request.map(Body::new))
    });
    // Without hyper's own upgrade machinery: the connection ends where the WebSocket begins, and
    // gives the socket back.
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(HEAD_BYTES_MAX)
        .half_close(false)
        .keep_alive(came == Life::Serving)
        .serve_connection(TokioIo::new(Patient::new(wire, patience, left.clone())), service);
    let mut stopping = pin!(async move { drop(life.wait_for(|life| *life > came).await) });
    // hyper's clock begins behind the handshake; the deadline began before it.
    let mut overdue = pin!(tokio::time::sleep_until(deadline));
    let ended = loop {
        tokio::select! {
            ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break ended,
            () = stopping.as_mut() => {
                Pin::new(&mut connection).graceful_shutdown();
                let last = poll_fn(|cx| connection.poll_without_shutdown(cx));
                let Ok(ended) = tokio::time::timeout(LAST_ANSWER_TIMEOUT, last).await else {
                    return;
                };
                break ended;
            }
            () = overdue.as_mut(), if has_tls && !overdue.is_elapsed() => {
                if !left.left().has_begun {
                    return;
                }
            }
        }
    };
    match ended {
        Ok(()) => {
            let parts = connection.into_parts();
            let wire = parts.io.into_inner().into_wire();
            let (purpose, guest, answer) = {
                let mut left = left.left();
                let guest = std::mem::take(&mut left.guest);
                (left.purpose.take(), guest, std::mem::take(&mut left.answer))
            };
            let Some(purpose) = purpose else { return wire.finish().await };
            let begun = Begun { early: &parts.read_buf, answer: answer.into() };
            let mut permit = permit;
            permit.receive(guest);
            hand_over(&shared, wire, begun, purpose, permit).await;
        }
        Err(error) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "http connection ended");
        }
    }
}

/// What was begun on a socket that is handed over.
pub(crate) struct Begun<'a> {
    /// What came behind the upgrade request; a slice of hyper's read buffer, so it is copied.
    pub(crate) early: &'a [u8],
    /// What is still to be sent of the answer.
    pub(crate) answer: Bytes,
}

/// Gives a bare socket to a worker.
pub(crate) async fn hand_over(
    shared: &Shared,
    wire: Wire,
    begun: Begun<'_>,
    purpose: Purpose,
    permit: Permit,
) {
    let Some(parts) = wire.into_parts().await else { return };
    let early = wire::early(begun.early, &parts.early);
    let Ok(stream) = parts.socket.into_std() else { return };
    let permit = Some(Box::new(permit) as Box<_>);
    let answer = begun.answer;
    let mut accepted = Accepted { stream, tls: parts.tls, early, answer, purpose, permit };
    // Who gives a socket back has ended and does not get another turn.
    while let Some(worker) = shared.next_worker() {
        match worker.take(accepted).await {
            Ok(()) => return,
            Err(back) => accepted = back,
        }
    }
    tracing::error!("no worker is left for a connection");
}

fn is_exhausted(error: &io::Error) -> bool {
    // EMFILE, ENFILE, ENOBUFS, ENOMEM: Linux numbers, the same on every architecture.
    matches!(error.raw_os_error(), Some(24 | 23 | 105 | 12))
}

/// Above a limit. The answer fits the socket's empty buffer; who sent a request in the meantime may
/// see a reset instead. Past the runtime, which does not try to write before its driver has seen
/// the socket.
fn turn_away(mut socket: &socket2::Socket, why: EdgeRefusal, has_tls: bool) {
    let answer = match (has_tls, why) {
        (true, _) => answer::TURNED_AWAY_TLS_RAW,
        (false, EdgeRefusal::AddressLimit) => answer::ADDRESS_LIMIT_RAW,
        (false, _) => answer::OVERLOADED_RAW,
    };
    let _ = socket.write(answer);
}

/// A descriptor kept for the moment when there is none left: given up to answer one client with
/// 503 rather than leave it waiting.
struct Spare(Option<File>);

impl Spare {
    fn new() -> Self {
        Self(File::open("/dev/null").ok())
    }

    fn answer_one(&mut self, listener: &TcpListener, has_tls: bool) {
        if self.0.take().is_none() {
            self.0 = File::open("/dev/null").ok();
            return;
        }
        if let Ok((socket, _)) = socket2::SockRef::from(listener).accept() {
            let _ = socket.set_nonblocking(true);
            turn_away(&socket, EdgeRefusal::Descriptors, has_tls);
        }
        self.0 = File::open("/dev/null").ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    async fn told(why: EdgeRefusal, has_tls: bool) -> Vec<u8> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        // Nothing waits between here and the end, so the driver never sees the socket.
        let stream = TcpStream::from_std(stream).unwrap();
        turn_away(&socket2::SockRef::from(&stream), why, has_tls);
        drop(stream);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        answer
    }

    #[tokio::test]
    async fn who_is_turned_away_gets_the_answer_although_the_socket_is_new() {
        assert_eq!(told(EdgeRefusal::ConnectionLimit, false).await, answer::OVERLOADED_RAW);
        assert_eq!(told(EdgeRefusal::AddressLimit, false).await, answer::ADDRESS_LIMIT_RAW);
        assert_eq!(told(EdgeRefusal::ConnectionLimit, true).await, answer::TURNED_AWAY_TLS_RAW);
    }
}
