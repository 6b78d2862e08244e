//! The accept loop: nodelay, a limit on connections, a deadline for the request's head, and an
//! answer when the process has no file descriptors left.
//!
//! No error of `accept` may end it.

use std::fs::File;
use std::io;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tower::ServiceExt;
use worker_tokio::{Accepted, Purpose};

use crate::answer;
use crate::gateway::Shared;

/// The largest head of a request. hyper's minimum; above it the answer is 431.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Between attempts while no descriptor is to be had.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(20);

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

pub(crate) async fn run(
    listener: TcpListener,
    router: Router,
    shared: Arc<Shared>,
    closing: watch::Receiver<bool>,
) {
    let mut spare = Spare::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match Arc::clone(&shared.permits).try_acquire_owned() {
                Ok(permit) => {
                    let serve = serve(stream, router.clone(), Arc::clone(&shared), permit);
                    tokio::spawn(until(closing.clone(), serve));
                }
                Err(_) => turn_away(&stream),
            },
            Err(error) if is_exhausted(&error) => {
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

/// Ends plain HTTP when the server stops; upgraded sockets are no longer in there by then.
async fn until(mut closing: watch::Receiver<bool>, serve: impl Future<Output = ()>) {
    tokio::select! {
        () = serve => {}
        _ = closing.wait_for(|closing| *closing) => {}
    }
}

async fn serve(
    stream: TcpStream,
    router: Router,
    shared: Arc<Shared>,
    permit: OwnedSemaphorePermit,
) {
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
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.config.handshake_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .half_close(false)
        .serve_connection(TokioIo::new(stream), service)
        .without_shutdown();
    match connection.await {
        Ok(parts) => {
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
async fn hand_over(
    shared: &Shared,
    stream: TcpStream,
    early: &[u8],
    purpose: Purpose,
    permit: OwnedSemaphorePermit,
) {
    let Ok(stream) = stream.into_std() else { return };
    let early = Bytes::copy_from_slice(early);
    let accepted = Accepted { stream, early, purpose, permit: Some(Box::new(permit)) };
    if let Some(worker) = shared.next_worker()
        && worker.take(accepted).await.is_err()
    {
        tracing::error!("a worker has ended");
    }
}

fn is_exhausted(error: &io::Error) -> bool {
    // EMFILE, ENFILE, ENOBUFS, ENOMEM: Linux numbers, the same on every architecture.
    matches!(error.raw_os_error(), Some(24 | 23 | 105 | 12))
}

/// Above the limit of connections. The answer fits the socket's empty buffer; who sent a request
/// in the meantime may see a reset instead.
fn turn_away(stream: &TcpStream) {
    let _ = stream.try_write(answer::OVERLOADED_RAW);
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
