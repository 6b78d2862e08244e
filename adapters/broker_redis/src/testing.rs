//! What a simulation puts in the place of Redis: a model that is asked what a server would be, and connections that
//! are made and broken by hand.
//!
//! It must never decide anything that the code around it decides: nothing here is compiled into a server.

use std::pin::Pin;
use std::sync::{Arc, LazyLock};

use application::ports::Entropy;
use domain::id::UserId;
use domain::presence::{PresenceEvent, PresenceKey};
use domain::room::RoomId;
use redis::{Arg, Cmd, Pipeline, RedisFuture, RedisResult, Script, Value};
use tokio::time::Instant;

use crate::broker::RedisBroker;
use crate::config::{Config, ConfigError};
use crate::line::{Identity, Line};
use crate::link::Server;
use crate::scripts::Scripts;
use crate::servers::Place;
use crate::slots::SlotMap;
use crate::wire::Wire;

/// The answers to some commands, or none where the connection is lost.
pub type Answers = Pin<Box<dyn Future<Output = RedisResult<Vec<Value>>> + Send>>;

/// A server, as one connection to it sees it.
pub trait Model: Send + Sync {
    /// Does these one after the other, as they come over the connection, and answers each.
    fn ask(&self, commands: Vec<Vec<Vec<u8>>>) -> Answers;
}

fn words_of(command: &Cmd) -> Vec<Vec<u8>> {
    let word = |arg| match arg {
        Arg::Simple(word) => <[u8]>::to_vec(word),
        // Nobody goes through anything by a cursor.
        _ => b"0".to_vec(),
    };
    command.args_iter().map(word).collect()
}

pub(crate) fn ask_one<'a>(model: &Arc<dyn Model>, command: &Cmd) -> RedisFuture<'a, Value> {
    let answers = model.ask(vec![words_of(command)]);
    Box::pin(async move { Ok(answers.await?.pop().unwrap_or(Value::Nil)) })
}

pub(crate) fn ask_all<'a>(
    model: &Arc<dyn Model>,
    pipeline: &Pipeline,
) -> RedisFuture<'a, Vec<Value>> {
    model.ask(pipeline.cmd_iter().map(words_of).collect())
}

/// A script that a model has to do.
#[derive(Clone, Debug)]
pub struct Scripted {
    /// The name of its file, without the end.
    pub name: &'static str,
    /// What it is called by.
    pub hash: String,
    /// All of it.
    pub text: String,
}

/// The scripts about leases, presence and seats, as they are given to one server.
#[must_use]
pub fn scripts() -> &'static [Scripted] {
    // Each seed asks for them.
    static SCRIPTS: LazyLock<Vec<Scripted>> = LazyLock::new(|| {
        let scripted = |(name, text): (&'static str, String)| {
            let hash = Script::new(&text).get_hash().to_owned();
            Scripted { name, hash, text }
        };
        Scripts::texts_of_leases("PUBLISH").into_iter().map(scripted).collect()
    });
    &SCRIPTS
}

/// Reads a change of presence that a script has published.
#[must_use]
pub fn read_presence(said: &bytes::Bytes) -> Option<(RoomId, PresenceEvent)> {
    crate::presence::decode_event(said)?.ok()
}

/// Reads a member's name as it stands in Redis.
#[must_use]
pub fn read_member(name: &str) -> Option<PresenceKey> {
    crate::presence::who(name)
}

impl RedisBroker {
    /// A broker that is linked by hand; what it has to keep up is what [`keep_leases`](Self::keep_leases) does.
    ///
    /// # Errors
    /// [`ConfigError`] when the settings can't be meant.
    pub fn build_unlinked(
        config: Config,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Arc<Self>, ConfigError> {
        let broker = Self::build(config, entropy)?;
        let server = Server::new(Place::Only, &broker.config);
        broker.commands.set_masters(vec![server], SlotMap::One);
        Ok(broker)
    }

    /// A connection is there: to a process in one of its lives, under a number of its own.
    pub fn link_to(&self, model: Arc<dyn Model>, life: &str, number: i64) {
        let Some(server) = self.commands.server_at(&Place::Only) else { return };
        let line = Line {
            connection: Wire::Model(model),
            server: Arc::downgrade(&server),
            address: String::new(),
            identity: Identity { run: life.to_owned(), life: life.to_owned() },
            id: number,
            since: Instant::now(),
        };
        server.set_line(&Arc::new(line));
        self.commands.review();
        self.commands.linked.notify_one();
    }

    /// The connection is lost.
    pub fn unlink(&self) {
        let Some(server) = self.commands.server_at(&Place::Only) else { return };
        if let Some(line) = server.line() {
            server.give_up(&line);
            self.commands.review();
        }
    }

    /// Whether it has a connection that it uses.
    #[must_use]
    pub fn is_linked(&self) -> bool {
        self.commands.link().is_ok()
    }

    /// The subscription is there: what was said before was missed.
    pub fn hears_from_now_on(&self) {
        self.news().is_on();
    }

    /// Something was said to all nodes.
    pub fn hear(&self, said: &[u8]) {
        self.news().tell(said);
    }

    /// A publish was refused because nobody has said who speaks for its user.
    pub fn miss_fence(&self) {
        self.unfenced.notify_one();
    }

    /// Keeps what depends on the lease, for as long as it is polled.
    pub async fn keep_leases(self: Arc<Self>) {
        self.run_presence().await;
    }

    /// The key of a user's seats.
    #[must_use]
    pub fn seats_key(&self, user: &UserId) -> String {
        self.names.seats(user)
    }

    /// The keys of who is in a room, and over which connections of one node.
    #[must_use]
    pub fn presence_keys(&self, room: &RoomId, node: &str) -> [String; 5] {
        self.names.presence_keys(room, node)
    }

    /// The key of all leases.
    #[must_use]
    pub fn leases_key(&self) -> String {
        let [nodes, _] = self.names.nodes();
        nodes
    }

    /// What all nodes are told comes over this.
    #[must_use]
    pub fn news_channel(&self) -> String {
        self.names.news_channel()
    }
}
