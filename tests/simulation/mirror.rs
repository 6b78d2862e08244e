//! The model of Redis against a server: what a node of a story asks is asked of both, and what they answer, what they
//! say and what they hold in the end is the same.
//!
//! Time is the story's for both. Of the server, only what is drawn by chance is put in order; nothing that it answers
//! may be passed over.

use redis::{Connection, Value};
use tests::redis::Redis as Server;

use crate::redis::{Held, Redis, Said};
use crate::story;

/// How many seeds are told over a server, too.
const SEEDS: usize = 25;
/// The seeds that are looked through for them.
const SEEDS_MAX: u64 = 2_000;

/// A server that is asked the same.
pub(crate) struct Mirror {
    connection: Connection,
    scripts: &'static [broker_redis::testing::Scripted],
}

impl Mirror {
    fn connect(server: &Server) -> Self {
        let client = redis::Client::open(server.url()).expect("an address");
        let connection = client.get_connection().expect("it is there");
        let mut this = Self { connection, scripts: broker_redis::testing::scripts() };
        this.forget();
        this
    }

    fn ask(&mut self, words: &[String]) -> Value {
        let mut command = redis::cmd(&words[0]);
        command.arg(&words[1..]);
        command.query(&mut self.connection).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    pub(crate) fn forget(&mut self) {
        self.ask(&["FLUSHALL".to_owned()]);
    }

    /// The model says when something is over: the server's clock goes by another time.
    pub(crate) fn drop_key(&mut self, key: &str) {
        self.ask(&["DEL".to_owned(), key.to_owned()]);
    }

    /// Asks it the same, and stops where it answers or says something else.
    pub(crate) fn compare(&mut self, words: &[String], wall_ms: u64, value: &Value, said: &[Said]) {
        let answered = self.ask(&self.at(words, wall_ms));
        let (answered, expected) = (plain(&answered, &words[0]), plain(value, &words[0]));
        assert_eq!(answered, expected, "{words:?}");
        let mut channels: Vec<_> = said.iter().map(|(channel, _)| channel.clone()).collect();
        channels.sort();
        channels.dedup();
        for channel in channels {
            let list = ["LRANGE", channel.as_str(), "0", "-1"].map(str::to_owned);
            let heard = in_order(strings(&self.ask(&list)));
            let told = said.iter().filter(|(of, _)| *of == channel).map(|(_, text)| text.clone());
            assert_eq!(heard, in_order(told.collect()), "{words:?}");
            self.drop_key(&channel);
        }
    }

    /// The same at a moment of the story: nothing runs out by itself, and what is published lies in a list.
    fn at(&self, words: &[String], wall_ms: u64) -> Vec<String> {
        match words[0].as_str() {
            "EVALSHA" => {
                let script = self.scripts.iter().find(|script| script.hash == words[1]);
                let text = &script.expect("it is one of those").text;
                let time = format!("{{ '{}', '{}' }}", wall_ms / 1_000, wall_ms % 1_000 * 1_000);
                let text = text.replace("redis.call('TIME')", &time);
                let text = text.replace("local SAY = 'PUBLISH'", "local SAY = 'RPUSH'");
                [&["EVAL".to_owned(), text][..], &words[2..]].concat()
            }
            "PEXPIRE" => vec!["EXISTS".to_owned(), words[1].clone()],
            "SET" => words.iter().take_while(|word| *word != "PX").cloned().collect(),
            _ => words.to_vec(),
        }
    }

    /// Stops where it holds something else in the end.
    fn compare_all(&mut self, redis: &Redis) {
        let keys = in_order(strings(&self.ask(&["KEYS".to_owned(), "*".to_owned()])));
        assert_eq!(keys, redis.keys.keys().cloned().collect::<Vec<_>>());
        for (key, held) in &redis.keys {
            let (command, more, expected): (_, &[&str], Vec<String>) = match held {
                Held::Text(text) => ("GET", &[], vec![text.clone()]),
                Held::Hash(hash) => {
                    let all = hash.iter().flat_map(|(field, value)| [field.clone(), value.clone()]);
                    ("HGETALL", &[], all.collect())
                }
                Held::Set(set) => ("SMEMBERS", &[], set.iter().cloned().collect()),
                Held::Sorted(_) => {
                    let all = redis.sorted(key, 1 << 40).into_iter().map(|(member, _)| member);
                    ("ZRANGE", &["0", "-1"], all.collect())
                }
            };
            let words = [&[command, key.as_str()], more].concat();
            let words: Vec<_> = words.into_iter().map(str::to_owned).collect();
            let answered = strings(&self.ask(&words));
            assert_eq!(in_order(answered), in_order(expected), "{key}");
        }
    }
}

/// What is drawn by chance, in order; numbers and texts as they are sent to whoever speaks the older protocol.
fn plain(value: &Value, command: &str) -> Vec<String> {
    let all = strings(value);
    match command {
        "SRANDMEMBER" | "HGETALL" => in_order(all),
        _ => all,
    }
}

fn in_order(mut all: Vec<String>) -> Vec<String> {
    // Which of several members is taken back first is chance; so are the numbers that tell of it.
    for text in &mut all {
        if let Some(rest) = text.strip_prefix("presence ") {
            let words = rest.split_once('\n').and_then(|(head, data)| {
                let (_, head) = head.split_once(' ')?;
                Some(format!("{}\n{data}", head.rsplit_once(' ')?.0))
            });
            *text = words.unwrap_or_default();
        }
    }
    all.sort();
    all
}

fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::Nil => vec!["nothing".to_owned()],
        Value::Okay => vec!["OK".to_owned()],
        Value::Int(number) => vec![number.to_string()],
        Value::Double(number) => vec![format!("{number:.0}")],
        Value::BulkString(bytes) => vec![String::from_utf8_lossy(bytes).into_owned()],
        Value::SimpleString(text) => vec![text.clone()],
        Value::Array(all) | Value::Set(all) => all.iter().flat_map(strings).collect(),
        Value::Map(all) => {
            all.iter().flat_map(|(f, v)| [strings(f), strings(v)].concat()).collect()
        }
        other => panic!("nobody answers {other:?}"),
    }
}

#[test]
fn the_model_of_redis_answers_says_and_holds_what_a_server_does() {
    if !Server::is_here() {
        return;
    }
    let server = Server::start();
    let seeds: Vec<u64> =
        (0..SEEDS_MAX).filter(|seed| story::is_over_redis(*seed)).take(SEEDS).collect();
    assert_eq!(seeds.len(), SEEDS);
    for seed in seeds {
        let (report, one) = story::run_mirrored(seed, Mirror::connect(&server));
        assert_eq!(report.violation, None, "seed {seed}");
        let mut one = one.expect("it is over Redis");
        one.mirror.take().expect("it was given").compare_all(&one.redis);
    }
}
