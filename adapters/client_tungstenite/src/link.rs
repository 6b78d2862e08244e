//! One open WebSocket: frames out, texts in.
//!
//! It must never decide anything, and never be asked to read while the application has not taken
//! what was read before.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use domain::client::Outbound;
use domain::client::life::{ABNORMAL, Lost};
use futures_util::{SinkExt, StreamExt};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message, Utf8Bytes};

use crate::dial::Wire;

/// How long the other side has for its part of closing.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How much is read while waiting for it.
const CLOSE_MESSAGES_MAX: usize = 10_000;

/// What happened on the socket.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Heard {
    Text(Utf8Bytes),
    Binary(Bytes),
    /// A control frame of the WebSocket's own.
    Control,
    /// Everything that was to be sent is sent.
    Sent,
    Lost(Lost),
    /// What came is no WebSocket's, or more than may come: it is to be given up.
    Broken(Lost),
}

/// A socket and whether it has something to flush.
pub(crate) struct Link {
    socket: WebSocketStream<Box<dyn Wire>>,
    unflushed: bool,
}

impl Link {
    pub(crate) const fn new(socket: WebSocketStream<Box<dyn Wire>>) -> Self {
        Self { socket, unflushed: false }
    }

    /// Sends a message that no client of ours would: back what came.
    #[cfg(test)]
    pub(crate) async fn echo(&mut self, message: Message) -> Result<(), Error> {
        self.socket.send(message).await
    }

    /// Sends what is in `out` and, if it may, reads. Can be dropped and called again.
    pub(crate) async fn next(&mut self, out: &mut Outbound, may_read: bool) -> Heard {
        poll_fn(|cx| {
            let had_work = self.unflushed || !out.is_empty();
            let sent = self.poll_send(out, cx);
            // What the server said before it closed explains more than a write that failed.
            if may_read && let Poll::Ready(heard) = self.poll_read(cx) {
                return Poll::Ready(heard);
            }
            match sent {
                Poll::Ready(Err(error)) => Poll::Ready(ended_by(&error)),
                Poll::Ready(Ok(())) if had_work => Poll::Ready(Heard::Sent),
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    fn poll_send(&mut self, out: &mut Outbound, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while !out.is_empty() {
            ready!(self.socket.poll_ready_unpin(cx))?;
            if let Some(frame) = out.pop() {
                self.unflushed = true;
                self.socket.start_send_unpin(Message::text(&*frame))?;
            }
        }
        if self.unflushed {
            ready!(self.socket.poll_flush_unpin(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        let lost = |lost| Poll::Ready(Heard::Lost(lost));
        match ready!(self.socket.poll_next_unpin(cx)) {
            Some(Ok(Message::Text(text))) => Poll::Ready(Heard::Text(text)),
            Some(Ok(Message::Binary(data))) => Poll::Ready(Heard::Binary(data)),
            Some(Ok(Message::Close(Some(frame)))) => {
                lost(Lost::new(frame.code.into(), frame.reason.as_str()))
            }
            // RFC 6455 section 7.4.1: 1005 stands for a close frame without a code.
            Some(Ok(Message::Close(None))) => lost(Lost::new(1005, "")),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
                Poll::Ready(Heard::Control)
            }
            Some(Err(error)) => Poll::Ready(ended_by(&error)),
            None => lost(Lost::broken("the connection ended")),
        }
    }

    /// Closes in order: sends what is left, then the close frame, and waits for the other side's,
    /// all of it within [`CLOSE_TIMEOUT`].
    pub(crate) async fn close(mut self, out: &mut Outbound, code: u16) {
        let closing = async {
            poll_fn(|cx| self.poll_send(out, cx)).await?;
            let frame = CloseFrame { code: CloseCode::from(code), reason: Utf8Bytes::default() };
            self.socket.close(Some(frame)).await?;
            for _ in 0..CLOSE_MESSAGES_MAX {
                if self.socket.next().await.is_none_or(|message| message.is_err()) {
                    break;
                }
            }
            Ok::<_, Error>(())
        };
        timeout(CLOSE_TIMEOUT, closing).await.ok();
    }

    /// Lets go of a connection that is over: sends the answer to a close frame, or says what was
    /// wrong.
    pub(crate) async fn finish(mut self, code: u16) {
        let closing = async {
            if matches!(code, 1002 | 1007 | 1009) {
                let code = CloseCode::from(code);
                let frame = CloseFrame { code, reason: Utf8Bytes::default() };
                // Refused where the other side has closed with that code itself: then its answer is still to go.
                self.socket.close(Some(frame)).await.ok();
            }
            self.socket.flush().await
        };
        timeout(CLOSE_TIMEOUT, closing).await.ok();
    }
}

fn ended_by(error: &Error) -> Heard {
    let code = match error {
        Error::Capacity(_) => 1009,
        Error::Utf8(_) => 1007,
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => ABNORMAL,
        Error::Protocol(_) | Error::AttackAttempt => 1002,
        _ => ABNORMAL,
    };
    let lost = Lost::new(code, error.to_string());
    if code == ABNORMAL { Heard::Lost(lost) } else { Heard::Broken(lost) }
}
