//! The accept loop: nodelay, a limit on connections, a deadline for the request's head, and an
//! answer when the process has no file descriptors left.
//!
//! No error of `accept` may end it.

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::io::Write;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use application::metrics::{EdgeRefusal, NodeMetrics};
use axum::body::Body;
use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::ServiceExt;
use worker_tokio::{Accepted, Purpose};

use crate::answer;
use crate::gateway::{Life, Shared};
use crate::notice;
use crate::routes::Routers;

/// The largest head of a request. hyper's minimum; above it the answer is 431.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Between attempts while no descriptor is to be had.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(20);

/// How long a request that is under way may take once the server stops.
const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a request that turns out to be an upgrade leaves what its socket is wanted for. Of one
/// connection, and read when hyper has written the answer and let go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handover(Arc<Mutex<Option<Purpose>>>);

impl Handover {
    pub(crate) fn leave(&self, purpose: Purpose) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(purpose);
    }

    fn take(&self) -> Option<Purpose> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
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
}

/// A socket's place, counted for as long as it lives, wherever it is handed to.
pub(crate) struct Permit {
    _place: OwnedSemaphorePermit,
    /// None for a socket that is not counted.
    counted: Option<Arc<NodeMetrics>>,
}

impl Permit {
    pub(crate) fn new(place: OwnedSemaphorePermit, counted: Option<Arc<NodeMetrics>>) -> Self {
        if let Some(metrics) = &counted {
            metrics.edge.sockets.add(1);
        }
        Self { _place: place, counted }
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
    let Entrance { listener, routers, permits, drain_permits, is_public } = entrance;
    let mut spare = Spare::new();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let permits = match *life.borrow() {
                    Life::Serving => &permits,
                    Life::Draining | Life::Ended => &drain_permits,
                };
                match Arc::clone(permits).try_acquire_owned() {
                    Ok(place) => {
                        let (shared, life) = (Arc::clone(&shared), life.clone());
                        let metrics = &shared.node.services().metrics;
                        let permit = Permit::new(place, is_public.then(|| Arc::clone(metrics)));
                        let serving = serve(stream, routers.clone(), shared, permit, life);
                        tokio::spawn(serving);
                    }
                    Err(_) => {
                        turn_away(&stream);
                        notice::turned_away(&shared, EdgeRefusal::ConnectionLimit, Some(peer));
                    }
                }
            }
            Err(error) if is_exhausted(&error) => {
                notice::turned_away(&shared, EdgeRefusal::Descriptors, None);
                spare.answer_one(&listener);
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
            // The connection was gone before it was accepted; the next may be well.
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "accept failed");
            }
        }
    }
}

/// Serves plain HTTP up to an upgrade. When the server stops, a request that was taken is still
/// answered, and nothing new is read; upgraded sockets are no longer in here by then. Who comes
/// while it drains asks once.
async fn serve(
    stream: TcpStream,
    routers: Routers,
    shared: Arc<Shared>,
    permit: Permit,
    mut life: watch::Receiver<Life>,
) {
    let came = *life.borrow();
    let router = if came == Life::Serving { routers.serving } else { routers.draining };
    // Small frames must not wait for an acknowledgement.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let handover = Handover::default();
    let left = handover.clone();
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(handover.clone());
        router.clone().oneshot(request.map(Body::new))
    });
    // Without hyper's own upgrade machinery: the connection ends where the WebSocket begins, and
    // gives the socket back.
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.config().handshake_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .half_close(false)
        .keep_alive(came == Life::Serving)
        .serve_connection(TokioIo::new(stream), service);
    let mut stopping = pin!(async move { drop(life.wait_for(|life| *life > came).await) });
    let ended = tokio::select! {
        ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => ended,
        () = stopping.as_mut() => {
            Pin::new(&mut connection).graceful_shutdown();
            let last = poll_fn(|cx| connection.poll_without_shutdown(cx));
            let Ok(ended) = tokio::time::timeout(LAST_ANSWER_TIMEOUT, last).await else { return };
            ended
        }
    };
    match ended {
        Ok(()) => {
            let parts = connection.into_parts();
            if let Some(purpose) = left.take() {
                hand_over(&shared, parts.io.into_inner(), &parts.read_buf, purpose, permit).await;
            }
        }
        Err(error) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "http connection ended");
        }
    }
}

/// Gives a bare socket to a worker. `early` is what came behind the upgrade request; a slice of
/// hyper's read buffer, so it is copied.
pub(crate) async fn hand_over(
    shared: &Shared,
    stream: TcpStream,
    early: &[u8],
    purpose: Purpose,
    permit: Permit,
) {
    let Ok(stream) = stream.into_std() else { return };
    let early = Bytes::copy_from_slice(early);
    let mut accepted = Accepted { stream, early, purpose, permit: Some(Box::new(permit)) };
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

/// Above the limit of connections. The answer fits the socket's empty buffer; who sent a request
/// in the meantime may see a reset instead.
fn turn_away(stream: &TcpStream) {
    // Past the runtime, which does not try to write before its driver has seen the socket.
    let socket = socket2::SockRef::from(stream);
    let mut socket: &socket2::Socket = &socket;
    let _ = socket.write(answer::OVERLOADED_RAW);
}

/// A descriptor kept for the moment when there is none left: given up to answer one client with
/// 503 rather than leave it waiting.
struct Spare(Option<File>);

impl Spare {
    fn new() -> Self {
        Self(File::open("/dev/null").ok())
    }

    fn answer_one(&mut self, listener: &TcpListener) {
        if self.0.take().is_none() {
            self.0 = File::open("/dev/null").ok();
            return;
        }
        if let Ok((socket, _)) = socket2::SockRef::from(listener).accept() {
            let _ = socket.set_nonblocking(true);
            let mut socket: &socket2::Socket = &socket;
            let _ = socket.write(answer::OVERLOADED_RAW);
        }
        self.0 = File::open("/dev/null").ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[tokio::test]
    async fn who_is_turned_away_gets_the_answer_although_the_socket_is_new() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        // Nothing waits between here and the end, so the driver never sees the socket.
        let stream = TcpStream::from_std(stream).unwrap();
        turn_away(&stream);
        drop(stream);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, answer::OVERLOADED_RAW);
    }
}
