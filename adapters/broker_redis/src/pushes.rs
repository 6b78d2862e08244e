//! What a server sends without being asked.
//!
//! It is put into the mailboxes right where it is read. Nothing here may wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;

use crate::entry::decode;
use crate::news::News;
use crate::presence::decode_event;
use crate::sparing::Sparing;
use crate::status::{Status, count};
use crate::table::Table;

/// Each publication may be one.
static LOST: Sparing = Sparing::new();

/// One connection's pushes, and whether it is lost.
pub(crate) struct Pushes {
    pub(crate) table: Arc<Table>,
    pub(crate) status: Arc<Status>,
    pub(crate) news: Arc<News>,
    /// The channel of all nodes.
    pub(crate) of_all: String,
    pub(crate) lost: Notify,
    /// How many channels of slots were given up and not yet confirmed.
    pub(crate) given_up: AtomicI64,
}

impl Pushes {
    /// Takes one.
    pub(crate) fn take(&self, info: PushInfo) {
        match info.kind {
            PushKind::Message | PushKind::SMessage => self.take_message(info.data),
            PushKind::Disconnection => self.lost.notify_one(),
            // A server that no longer has a slot ends its channels by itself. The library takes that for the answer
            // to whatever is asked just now, so nothing on this connection can be trusted any more.
            PushKind::SUnsubscribe if self.given_up.fetch_sub(1, Ordering::Relaxed) <= 0 => {
                self.lost.notify_one();
            }
            _ => {}
        }
    }

    fn take_message(&self, data: Vec<Value>) {
        let mut parts = data.into_iter();
        let (Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) =
            (parts.next(), parts.next())
        else {
            return;
        };
        if channel == self.of_all.as_bytes() {
            return self.news.tell(&payload);
        }
        count(&self.status.received, 1);
        let payload = Bytes::from(payload);
        if let Some(event) = decode_event(&payload) {
            match event {
                Ok((room, event)) => self.table.deliver_presence(&room, event),
                Err(()) => count(&self.status.unreadable, 1),
            }
            return;
        }
        match decode(&payload) {
            Ok(entry) => self.table.deliver(entry),
            Err(error) => {
                // Its offset, if it had one, is missed with the next message or the next look.
                count(&self.status.unreadable, 1);
                if let Some(left_out) = LOST.turn() {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, left_out, "a publication is lost");
                }
            }
        }
    }
}
