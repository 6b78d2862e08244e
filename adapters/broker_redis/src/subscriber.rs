//! The connection that publications come over.
//!
//! They are put into the mailboxes right where they are read: nothing queues in between, so nothing can
//! grow there. Channels are asked for and given up in batches, one after another on one connection, so
//! that the last word about a channel is the one that counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use application::ports::Entropy;
use bytes::Bytes;
use domain::id::Epoch;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, PushInfo, PushKind, Value};
use tokio::sync::Notify;
use tokio::time::{sleep, sleep_until};

use crate::config::Config;
use crate::entry::decode;
use crate::link::{ConnectError, Retry, connect};
use crate::looks::Looks;
use crate::names::Names;
use crate::news::News;
use crate::presence::decode_event;
use crate::sparing::Sparing;
use crate::status::{Status, count};
use crate::table::{Changes, Standing, Table, Topic};

/// The most channels of one command.
pub(crate) const BATCH: usize = 512;

/// Each publication may be one.
static LOST: Sparing = Sparing::new();

/// What it takes to be subscribed.
pub(crate) struct Subscribing {
    pub(crate) client: Client,
    pub(crate) config: Config,
    pub(crate) names: Names,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) table: Arc<Table>,
    pub(crate) status: Arc<Status>,
    /// Whether there has been a connection before.
    pub(crate) was_on: AtomicBool,
    pub(crate) news: Arc<News>,
}

impl Subscribing {
    /// Keeps the subscription for as long as it is polled.
    pub(crate) async fn run(&self) {
        let mut retry = Retry::new(&self.config, &self.entropy);
        loop {
            let lost = Arc::new(Notify::new());
            match self.connect(&lost).await {
                Ok(connection) => {
                    retry.worked();
                    self.serve(connection, &lost).await;
                    self.status.set_subscriber_up(false);
                    tracing::warn!("the subscription to redis is lost");
                }
                Err(error) => retry.failed("subscription", &error).await,
            }
        }
    }

    async fn connect(&self, lost: &Arc<Notify>) -> Result<MultiplexedConnection, ConnectError> {
        let (table, status, lost) =
            (Arc::clone(&self.table), Arc::clone(&self.status), Arc::clone(lost));
        let news = Arc::clone(&self.news);
        let channel = self.names.news_channel();
        let push = move |info: PushInfo| -> Result<(), std::convert::Infallible> {
            take_push(info, &table, &status, &lost, (&channel, &news));
            Ok(())
        };
        let options = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.config.answer_timeout))
            .set_response_timeout(Some(self.config.answer_timeout))
            .set_push_sender(push);
        let connection = connect(&self.client, &options, &self.config).await?;
        count(&self.status.connects, 1);
        Ok(connection)
    }

    /// Asks for all channels, tells of the hole before them, and goes on until the connection is lost.
    async fn serve(&self, mut connection: MultiplexedConnection, lost: &Notify) {
        // Who is told of a hole reads the log at once.
        self.status.until_commands_up().await;
        self.table.lose_all();
        let news = connection.subscribe(self.names.news_channel()).await;
        if news.is_err() {
            return;
        }
        self.news.is_on();
        let (mut is_first, mut looks) = (true, Looks::new());
        let is_back = self.was_on.swap(true, Ordering::Relaxed);
        loop {
            loop {
                let changes = self.table.take_changes(BATCH);
                if changes == Changes::default() {
                    break;
                }
                if let Err(error) = self.change(&mut connection, &changes).await {
                    tracing::warn!(error = crate::config::words(&error), "channels were refused");
                    return;
                }
                // Before anybody joins who has it from there.
                if self.catch_up(&mut connection).await.is_err() {
                    return;
                }
                self.table.confirm(&changes);
            }
            if self.catch_up(&mut connection).await.is_err() {
                return;
            }
            if is_first {
                if is_back {
                    self.table.tell_other_holes();
                }
                self.status.set_subscriber_up(true);
                is_first = false;
            }
            tokio::select! {
                () = self.table.changes() => {}
                () = lost.notified() => return,
                () = sleep_until(looks.next) => {
                    if self.look(&mut connection, &mut looks).await.is_err() {
                        return;
                    }
                }
                () = sleep(self.config.probe_interval) => {
                    // A connection that died without a word says nothing else.
                    let answer: Result<(), _> = redis::cmd("PING").query_async(&mut connection).await;
                    if answer.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn change(
        &self,
        connection: &mut MultiplexedConnection,
        changes: &Changes,
    ) -> Result<(), redis::RedisError> {
        let names = |topics: &[Topic]| topics.iter().map(|t| self.name(t)).collect::<Vec<_>>();
        if !changes.off.is_empty() {
            connection.unsubscribe(names(&changes.off)).await?;
        }
        if !changes.on.is_empty() {
            connection.subscribe(names(&changes.on)).await?;
            self.meet(connection, &changes.on).await?;
        }
        Ok(())
    }

    /// Looks where the rooms stand, over the same connection: what was published before the look has come
    /// before its answer, or is missed.
    async fn meet(
        &self,
        connection: &mut MultiplexedConnection,
        topics: &[Topic],
    ) -> Result<(), redis::RedisError> {
        let rooms = topics.iter().filter_map(|topic| match topic {
            Topic::Room(room) => Some(room),
            Topic::Namespace(_) => None,
        });
        let rooms: Vec<_> = rooms.collect();
        let mut pipeline = redis::pipe();
        for room in &rooms {
            let [head, ..] = self.names.keys(room);
            pipeline.cmd("HMGET").arg(head).arg(&["e", "n"]);
        }
        if rooms.is_empty() {
            return Ok(());
        }
        // A key of another program is none of ours: its room has no head.
        pipeline.ignore_errors();
        let heads: Vec<Value> = pipeline.query_async(connection).await?;
        for (room, head) in rooms.into_iter().zip(heads) {
            self.table.meet(room, standing(head));
        }
        Ok(())
    }

    fn name(&self, topic: &Topic) -> String {
        match topic {
            Topic::Room(room) => self.names.room_channel(room),
            Topic::Namespace(namespace) => self.names.namespace_channel(namespace),
        }
    }
}

/// Reads a head; none where there is none.
pub(crate) fn standing(head: Value) -> Option<Standing> {
    let (epoch, number): (String, u64) = redis::from_redis_value(head).ok()?;
    Some(Standing { epoch: Epoch::parse(&epoch).ok()?, number })
}

/// Takes what the server sends without being asked.
fn take_push(
    info: PushInfo,
    table: &Table,
    status: &Status,
    lost: &Notify,
    (of_all, news): (&str, &News),
) {
    match info.kind {
        PushKind::Message => {
            let mut parts = info.data.into_iter();
            let (Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) =
                (parts.next(), parts.next())
            else {
                return;
            };
            if channel == of_all.as_bytes() {
                return news.tell(&payload);
            }
            count(&status.received, 1);
            let payload = Bytes::from(payload);
            if let Some(event) = decode_event(&payload) {
                match event {
                    Ok((room, event)) => table.deliver_presence(&room, event),
                    Err(()) => count(&status.unreadable, 1),
                }
                return;
            }
            match decode(&payload) {
                Ok(entry) => table.deliver(entry),
                Err(error) => {
                    // Its offset, if it had one, is missed with the next message or the next look.
                    count(&status.unreadable, 1);
                    if let Some(left_out) = LOST.turn() {
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(error, left_out, "a publication is lost");
                    }
                }
            }
        }
        PushKind::Disconnection => lost.notify_one(),
        _ => {}
    }
}
