//! The connections that publications come over, one to each master.
//!
//! They are put into the mailboxes right where they are read: nothing queues in between, so nothing can
//! grow there. Channels are asked for and given up in batches, one after another on one connection, so
//! that the last word about a channel is the one that counts. A connection to a server that is not the one that is
//! published on must not be kept: nothing would ever come over it.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, PushInfo, Value};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use crate::answers::words;
use crate::batch::error_of;
use crate::cluster::{Part, Topology};
use crate::head::{self, Head};
use crate::line::{ConnectError, Identity, Retry, connect, identify, probe};
use crate::link::Commands;
use crate::looks::Looks;
use crate::names::Names;
use crate::news::News;
use crate::pushes::Pushes;
use crate::rooms::Standing;
use crate::servers::{Layout, Place};
use crate::status::count;
use crate::table::Table;
use crate::topics::{Changes, Topic};

/// The most channels of one command.
pub(crate) const BATCH: usize = 512;

/// What it takes to be subscribed.
pub(crate) struct Subscribing {
    pub(crate) commands: Arc<Commands>,
    pub(crate) names: Names,
    pub(crate) table: Arc<Table>,
    pub(crate) news: Arc<News>,
    /// Masters over whose connections everything comes, by name.
    up: Mutex<BTreeSet<String>>,
}

/// A subscription to one master.
struct Subscription {
    connection: MultiplexedConnection,
    identity: Identity,
    pushes: Arc<Pushes>,
    place: Place,
}

impl Subscribing {
    pub(crate) fn new(commands: Arc<Commands>, names: Names, table: Arc<Table>) -> Self {
        Self { commands, names, table, news: Arc::default(), up: Mutex::default() }
    }

    /// Keeps all subscriptions for as long as it is polled.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut tasks = JoinSet::new();
        let mut kept: BTreeMap<String, AbortHandle> = BTreeMap::new();
        let mut topologies = self.commands.topology.subscribe();
        let mut before: Option<Arc<Topology>> = None;
        loop {
            let now = topologies.borrow_and_update().clone();
            for place in &now.masters {
                kept.entry(place.name()).or_insert_with(|| {
                    let (this, place) = (Arc::clone(&self), place.clone());
                    tasks.spawn(async move { this.keep(&place).await })
                });
            }
            kept.retain(|name, task| {
                let is_there = now.masters.iter().any(|place| place.name() == *name);
                if !is_there {
                    task.abort();
                    self.set_up(name, false);
                }
                is_there
            });
            while tasks.try_join_next().is_some() {}
            if let Some(before) = before.replace(Arc::clone(&now)) {
                // What has another owner is asked for there.
                self.table.lose(&Part::moved(&before, &now));
            }
            self.show();
            if topologies.changed().await.is_err() {
                return;
            }
        }
    }

    fn set_up(&self, name: &str, is_up: bool) {
        {
            let mut up = self.up.lock().unwrap_or_else(PoisonError::into_inner);
            if is_up {
                up.insert(name.to_owned());
            } else {
                up.remove(name);
            }
        }
        self.show();
    }

    fn show(&self) {
        let masters = self.commands.topology.borrow().masters.len();
        let up = self.up.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.commands.status.set_subscriber_up(masters > 0 && up >= masters);
    }

    async fn keep(&self, place: &Place) {
        let name = place.name();
        let mut retry = Retry::new(&self.commands.config, &self.commands.entropy);
        loop {
            match self.connect(place).await {
                Ok(subscription) => {
                    let began = Instant::now();
                    let end = self.serve(subscription).await;
                    self.set_up(&name, false);
                    tracing::warn!(server = name, "the subscription to redis is lost");
                    // One that does not hold is not made again at once, whatever ended it.
                    if began.elapsed() < self.commands.config.retry_pause_max {
                        retry.failed("subscription", &end).await;
                    } else {
                        retry.worked();
                    }
                }
                Err(error) => retry.failed("subscription", &error).await,
            }
        }
    }

    async fn connect(&self, place: &Place) -> Result<Subscription, ConnectError> {
        let Commands { config, servers, status, .. } = &*self.commands;
        let pushes = Arc::new(Pushes {
            table: Arc::clone(&self.table),
            status: Arc::clone(status),
            news: Arc::clone(&self.news),
            of_all: self.names.news_channel(),
            lost: Notify::new(),
            given_up: AtomicI64::new(0),
        });
        let taking = Arc::clone(&pushes);
        let push = move |info: PushInfo| -> Result<(), Infallible> {
            taking.take(info);
            Ok(())
        };
        let options = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(config.answer_timeout))
            .set_response_timeout(Some(config.answer_timeout))
            .set_push_sender(push);
        let client = servers.client(servers.locate(place, config).await?)?;
        let connection = connect(&client, &options, config).await?;
        let identity = identify(&connection, servers).await?;
        count(&status.connects, 1);
        Ok(Subscription { connection, identity, pushes, place: place.clone() })
    }

    /// Asks for all channels, tells of the hole before them, and goes on until the connection is lost. Answers why it
    /// is.
    async fn serve(&self, of: Subscription) -> ConnectError {
        match self.serve_until_lost(of).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn serve_until_lost(&self, mut of: Subscription) -> Result<Infallible, ConnectError> {
        let config = &self.commands.config;
        // Who is told of a hole reads the log at once.
        self.until_commands_agree(&of).await?;
        self.table.lose(&self.part(&of.place));
        let mut changes_come = self.table.changes();
        let (mut is_first, mut looks) = (true, Looks::new());
        let mut next_probe = Instant::now() + config.probe_interval;
        loop {
            changes_come.borrow_and_update();
            self.change_all(&mut of).await?;
            self.table.tell_other_holes();
            if std::mem::take(&mut is_first) {
                self.set_up(&of.place.name(), true);
            }
            tokio::select! {
                _ = changes_come.changed() => {}
                () = of.pushes.lost.notified() => return Err(ConnectError::Closed),
                () = sleep_until(looks.next) => {
                    let part = self.part(&of.place);
                    self.look(&mut of.connection, &part, &mut looks).await?;
                }
                () = sleep_until(next_probe) => {
                    next_probe = Instant::now() + config.probe_interval;
                    // A connection that died without a word says nothing else.
                    let nonce = self.commands.entropy.bits().unwrap_or(0);
                    let asking = probe(&of.connection, &self.commands.servers, &of.identity, nonce);
                    timeout(config.answer_timeout, asking)
                        .await
                        .map_err(|_| ConnectError::Timeout)??;
                    self.agrees(&of)?;
                }
            }
        }
    }

    /// Has all channels asked for and given up whose need has changed; an error where the connection is of no use any
    /// more. Those that are elsewhere wait for their master, and nothing else waits for them.
    async fn change_all(&self, of: &mut Subscription) -> Result<(), ConnectError> {
        loop {
            let part = self.part(&of.place);
            let changes = self.table.take_changes(BATCH, &part);
            if changes.is_empty() {
                return Ok(self.catch_up(&mut of.connection, &part).await?);
            }
            let done = self.change(of, changes).await;
            let (confirmed, elsewhere) = done.inspect_err(|error| {
                tracing::warn!(error = words(error), "channels were refused");
            })?;
            // Before anybody joins who has it from there.
            self.catch_up(&mut of.connection, &part).await?;
            if self.table.confirm(&confirmed, &self.part(&of.place)) {
                self.news.is_on();
            }
            if !elsewhere.is_empty() {
                self.commands.moved.notify_one();
                // Before that is known they would be asked for in vain.
                tokio::time::sleep(self.commands.config.probe_interval / 20).await;
                self.table.put_back(&elsewhere);
                return Ok(());
            }
        }
    }

    /// The slots that a master has now.
    fn part(&self, place: &Place) -> Part {
        Part::of(&self.commands.topology.borrow(), place)
    }

    /// Waits until there is a connection for calls to the same process: what is published there comes here.
    async fn until_commands_agree(&self, of: &Subscription) -> Result<(), ConnectError> {
        let until_there = async {
            loop {
                let linked = self.commands.server_at(&of.place).is_some_and(|s| s.line().is_some());
                if linked {
                    return;
                }
                tokio::time::sleep(self.commands.config.probe_interval / 100).await;
            }
        };
        tokio::select! {
            () = until_there => self.agrees(of),
            () = of.pushes.lost.notified() => Err(ConnectError::Timeout),
        }
    }

    fn agrees(&self, of: &Subscription) -> Result<(), ConnectError> {
        let line = self.commands.server_at(&of.place).and_then(|server| server.line());
        match line {
            Some(line) if line.identity.run != of.identity.run => Err(ConnectError::Another),
            // While there is none nothing is published by this node.
            _ => Ok(()),
        }
    }

    /// Has channels given up and asked for. Answers what was done, and what is to be asked of somebody else.
    async fn change(
        &self,
        of: &mut Subscription,
        changes: Changes,
    ) -> redis::RedisResult<(Changes, Vec<Topic>)> {
        let is_cluster = self.commands.servers.layout() == Layout::Cluster;
        let is_of_slot = |topic: &Topic| is_cluster && !matches!(topic, Topic::Namespace(_));
        let (off_slots, off): (Vec<_>, Vec<_>) = changes.off.iter().partition(|t| is_of_slot(t));
        let (on_slots, on): (Vec<_>, Vec<_>) = changes.on.iter().partition(|t| is_of_slot(t));
        let names = |topics: &[&Topic]| topics.iter().map(|t| self.name(t)).collect::<Vec<_>>();
        if !off.is_empty() {
            of.connection.unsubscribe(names(&off)).await?;
        }
        if !on.is_empty() {
            of.connection.subscribe(names(&on)).await?;
        }
        let given_up = i64::try_from(off_slots.len()).unwrap_or(i64::MAX);
        of.pushes.given_up.fetch_add(given_up, Ordering::Relaxed);
        // One command for each: the library counts one answer to a command that it does not know.
        let answers = each(&mut of.connection, "SUNSUBSCRIBE", names(&off_slots)).await?;
        // A server that has not got the slot any more has confirmed nothing.
        let refused = answers.iter().filter(|answer| error_of(answer).is_some()).count();
        let refused = i64::try_from(refused).unwrap_or(i64::MAX);
        of.pushes.given_up.fetch_sub(refused, Ordering::Relaxed);
        let answers = each(&mut of.connection, "SSUBSCRIBE", names(&on_slots)).await?;
        let refused: BTreeSet<_> = on_slots
            .iter()
            .zip(answers)
            .filter(|(_, answer)| error_of(answer).is_some())
            .map(|(topic, _)| (*topic).clone())
            .collect();
        let Changes { on, off, at } = changes;
        let (elsewhere, on): (Vec<_>, Vec<_>) = on.into_iter().partition(|t| refused.contains(t));
        let elsewhere = [elsewhere, self.meet(&mut of.connection, &on).await?].concat();
        let on = on.into_iter().filter(|topic| !elsewhere.contains(topic)).collect();
        Ok((Changes { on, off, at }, elsewhere))
    }

    /// Looks where the rooms stand, over the same connection: what was published before the look has come
    /// before its answer, or is missed. Answers those that are not here.
    async fn meet(
        &self,
        connection: &mut MultiplexedConnection,
        topics: &[Topic],
    ) -> redis::RedisResult<Vec<Topic>> {
        let rooms = topics.iter().filter_map(|topic| match topic {
            Topic::Room(room) => Some(room),
            Topic::News | Topic::Namespace(_) => None,
        });
        let rooms: Vec<_> = rooms.collect();
        let mut pipeline = redis::pipe();
        for room in &rooms {
            let [head, ..] = self.names.keys(room);
            pipeline.cmd("HGET").arg(head).arg(head::FIELD);
        }
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        pipeline.ignore_errors();
        let heads: Vec<Value> = pipeline.query_async(connection).await?;
        let mut elsewhere = Vec::new();
        for (room, head) in rooms.into_iter().zip(heads) {
            if is_elsewhere(&head) {
                elsewhere.push(Topic::Room(room.clone()));
            } else if let Some(standing) = said_of(head) {
                self.table.meet(room, standing);
            }
        }
        Ok(elsewhere)
    }

    fn name(&self, topic: &Topic) -> String {
        match topic {
            Topic::News => self.names.news_channel(),
            Topic::Room(room) => self.names.room_channel(room),
            Topic::Namespace(namespace) => self.names.namespace_channel(namespace),
        }
    }
}

/// Says one word about each of these channels; answers what was answered.
async fn each(
    connection: &mut MultiplexedConnection,
    word: &str,
    channels: Vec<String>,
) -> redis::RedisResult<Vec<Value>> {
    if channels.is_empty() {
        return Ok(Vec::new());
    }
    let mut pipeline = redis::Pipeline::with_capacity(channels.len());
    for channel in channels {
        pipeline.cmd(word).arg(channel);
    }
    pipeline.ignore_errors();
    pipeline.query_async(connection).await
}

/// Whether what was asked for lies on another server, as far as it lies anywhere.
pub(crate) fn is_elsewhere(answer: &Value) -> bool {
    let code = error_of(answer).and_then(|error| error.code().map(str::to_owned));
    matches!(code.as_deref(), Some("MOVED" | "ASK" | "CLUSTERDOWN"))
}

/// Where a room stands by its head, which may be nowhere; none where a refusal says nothing of it.
pub(crate) fn said_of(head: Value) -> Option<Option<Standing>> {
    (!matches!(head, Value::ServerError(_))).then(|| standing(head))
}

/// Reads a head; none where there is none.
fn standing(head: Value) -> Option<Standing> {
    let written: Vec<u8> = redis::from_redis_value(head).ok()?;
    let Head { epoch, number, .. } = Head::read(&written)?;
    Some(Standing { epoch, number })
}

#[cfg(test)]
mod tests {
    use domain::id::Epoch;

    use super::*;

    fn answer(text: &str) -> Value {
        let all = redis::parse_redis_value(format!("*1\r\n{text}").as_bytes()).unwrap();
        let Value::Array(mut all) = all else { panic!("{all:?}") };
        all.remove(0)
    }

    #[test]
    fn what_a_server_refuses_to_say_of_a_room_is_not_that_nothing_is_there() {
        let written = head::tests::written(Epoch::from_bits(255), 7);
        let head = Value::BulkString(written);
        let standing = Standing { epoch: Epoch::from_bits(255), number: 7 };
        assert_eq!(said_of(head), Some(Some(standing)));
        assert_eq!(said_of(answer("$-1\r\n")), Some(None));
        for refusal in ["BUSY a script runs", "TRYAGAIN it moves", "WRONGTYPE another's key"] {
            let refusal = answer(&format!("-{refusal}\r\n"));
            assert!(!is_elsewhere(&refusal) && said_of(refusal).is_none());
        }
        assert!(is_elsewhere(&answer("-MOVED 5 127.0.0.1:7001\r\n")));
    }
}
