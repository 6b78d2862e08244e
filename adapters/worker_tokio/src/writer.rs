//! Tasks for sockets that did not take all at once: writing on, and closing in order.
//!
//! A connection that keeps up never has one. Each ends at a deadline.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use application::mailbox::Control;
use application::outbound_queue::OutboundQueue;
use application::shard::{Input, Slot};
use domain::codes::CloseCode;
use tokio::io::AsyncWriteExt;
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::core::Core;
use crate::sealed::Way;
use crate::sockets::{Conn, Gate, Work, write_queue};

pub(crate) fn start(core: &Rc<Core>, work: Work) {
    match work {
        Work::Write(slot) => drop(spawn_local(write(Rc::clone(core), slot))),
        Work::Close(conn) => drop(spawn_local(close(conn, core.config.close_timeout))),
    }
}

/// Writes a queue until it is empty. A client that leaves it non-empty for too long is too slow,
/// however much it reads.
async fn write(core: Rc<Core>, slot: Slot) {
    let emptied = poll_fn(|cx| {
        loop {
            let mut sockets = core.sockets.borrow_mut();
            let Some(conn) = sockets.get_mut(slot) else { return Poll::Ready(true) };
            let stream: &tokio::net::TcpStream = conn.stream.as_ref();
            if ready!(stream.poll_write_ready(cx)).is_err() {
                return Poll::Ready(false);
            }
            match sockets.flush(slot) {
                Ok(true) => return Poll::Ready(true),
                Ok(false) => {}
                Err(_) => return Poll::Ready(false),
            }
        }
    });
    let emptied = timeout(core.config.lag_max, emptied).await;
    let connection = core.sockets.borrow_mut().get_mut(slot).map(|conn| {
        conn.has_writer = false;
        conn.gate.wake();
        conn.connection
    });
    match (emptied, connection) {
        (Ok(true), _) | (_, None) => {}
        (Ok(false), Some(_)) => {
            core.sockets.borrow_mut().remove(slot);
            core.closed(slot, CloseCode::GoingAway);
        }
        (Err(_), Some(connection)) => {
            let code = CloseCode::SlowConsumer;
            core.handle(Input::Order(Control::Disconnect(connection, code)));
        }
    }
}

/// Says what is left to say, then waits for the other side to end, both within one deadline. The
/// reader goes on reading meanwhile: data left unread would make the kernel cut the line before
/// the close frame is seen.
async fn close(mut conn: Box<Conn>, deadline: Duration) {
    let mut queue = conn.queue.take().unwrap_or_default();
    let gate = Rc::clone(&conn.gate);
    let orderly = async {
        if drain(&conn, &mut queue).await.is_ok() && conn.stream.shutdown().await.is_ok() {
            ended(&gate).await;
        }
    };
    let _ = timeout(deadline, orderly).await;
    // The reader holds the other half of the socket; this makes it let go.
    gate.ended.set(true);
    gate.wake();
}

async fn drain(conn: &Conn, queue: &mut OutboundQueue) -> std::io::Result<()> {
    let (mut scratch, mut told) = (Vec::new(), false);
    loop {
        write_queue(&conn.stream, conn.seal.as_ref(), queue, &mut scratch)?;
        if queue.is_empty() && conn.pending() == 0 {
            let Some(seal) = conn.seal.as_ref().filter(|_| !told) else { return Ok(()) };
            // TLS has an end of its own, which says that nothing was cut off.
            seal.borrow_mut().close(Way::Runtime(conn.stream.as_ref()))?;
            told = true;
            continue;
        }
        conn.stream.writable().await?;
    }
}

async fn ended(gate: &Gate) {
    poll_fn(|cx| {
        if gate.ended.get() {
            return Poll::Ready(());
        }
        *gate.closer.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    })
    .await;
}
