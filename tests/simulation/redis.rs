//! A model of Redis, as far as leases, presence, seats and tokens that count once need one: the commands that they
//! give, and each of their scripts.
//!
//! It knows no time but what it is told, and must never answer otherwise than a server would: [`crate::mirror`] asks
//! both the same.

use std::collections::{BTreeMap, BTreeSet};

use redis::Value;

use crate::redis_scripts::Script;

/// What a key holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Held {
    Text(String),
    Hash(BTreeMap<String, String>),
    Set(BTreeSet<String>),
    Sorted(BTreeMap<String, f64>),
}

/// Something that was published: the channel, and what was said.
pub(crate) type Said = (String, String);

#[derive(Debug, Default)]
pub(crate) struct Redis {
    pub(crate) keys: BTreeMap<String, Held>,
    /// When each key that has an end has it.
    ends: BTreeMap<String, u64>,
    /// The server's clock in ms.
    pub(crate) now_ms: u64,
    pub(crate) said: Vec<Said>,
    scripts: BTreeMap<&'static str, Script>,
}

pub(crate) fn bulk(text: impl Into<String>) -> Value {
    Value::BulkString(text.into().into_bytes())
}

pub(crate) fn int(number: impl TryInto<i64>) -> Value {
    Value::Int(number.try_into().unwrap_or(i64::MAX))
}

fn option(text: Option<String>) -> Value {
    text.map_or(Value::Nil, bulk)
}

pub(crate) fn number(text: &str) -> i64 {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}

impl Redis {
    pub(crate) fn new() -> Self {
        let all = broker_redis::testing::scripts().iter();
        let scripts = all.map(|one| (one.hash.as_str(), Script::named(one.name)));
        Self { scripts: scripts.collect(), ..Self::default() }
    }

    /// Everything is gone that is not on a disk.
    pub(crate) fn forget(&mut self) {
        self.keys.clear();
        self.ends.clear();
    }

    /// Drops what is over at a moment. Answers which keys.
    pub(crate) fn pass(&mut self, now_ms: u64) -> Vec<String> {
        self.now_ms = now_ms;
        let over = self.ends.iter().filter(|(_, end)| **end <= now_ms);
        let over: Vec<_> = over.map(|(key, _)| key.clone()).collect();
        over.iter().for_each(|key| self.del(key));
        over
    }

    /// Does one command.
    pub(crate) fn ask(&mut self, words: &[String]) -> Value {
        let word = |at: usize| words[at].as_str();
        match word(0) {
            "EVALSHA" => {
                let script = self.scripts.get(word(1)).copied();
                let script = script.unwrap_or_else(|| panic!("no script is {}", word(1)));
                let n_keys: usize = number(word(2)).try_into().expect("a small number");
                let (keys, arguments) = words[3..].split_at(n_keys);
                script.run(self, keys, arguments)
            }
            // It has them.
            "SCRIPT" => bulk(""),
            "DEL" => {
                let there = self.keys.contains_key(word(1));
                self.del(word(1));
                int(u8::from(there))
            }
            "EXISTS" => int(u8::from(self.keys.contains_key(word(1)))),
            "PEXPIRE" => int(u8::from(self.pexpire(word(1), word(2)))),
            "SET" => self.set(word(1), word(2), &words[3..]),
            "HGET" => option(self.hget(word(1), word(2))),
            "HGETALL" => {
                let all = self.hash(word(1)).cloned().unwrap_or_default();
                Value::Map(
                    all.into_iter().map(|(field, value)| (bulk(field), bulk(value))).collect(),
                )
            }
            "SADD" => {
                let added = words[2..].iter().filter(|member| self.sadd(word(1), member));
                int(added.count())
            }
            "SREM" => {
                let gone = words[2..].iter().filter(|member| self.srem(word(1), member));
                int(gone.count())
            }
            "SRANDMEMBER" => {
                let max: usize = number(word(2)).try_into().expect("none twice");
                Value::Array(self.members(word(1)).into_iter().take(max).map(bulk).collect())
            }
            "ZADD" => {
                assert_eq!(word(2), "XX", "nobody adds in another way");
                let score = number(word(3)) as f64;
                if self.zscore(word(1), word(4)).is_some() {
                    self.zadd(word(1), word(4), score);
                }
                int(0)
            }
            "ZRANGE" => {
                assert_eq!((word(2), word(4)), ("0", "WITHSCORES"), "nobody looks in another way");
                let pair = |(member, score)| Value::Array(vec![bulk(member), Value::Double(score)]);
                Value::Array(self.sorted(word(1), number(word(3))).into_iter().map(pair).collect())
            }
            other => panic!("nobody has given {other} before: add it, here and to the mirror"),
        }
    }

    fn set(&mut self, key: &str, value: &str, options: &[String]) -> Value {
        let has = |word: &str| options.iter().position(|option| option == word);
        if has("NX").is_some() && self.keys.contains_key(key) {
            return Value::Nil;
        }
        self.del(key);
        self.keys.insert(key.to_owned(), Held::Text(value.to_owned()));
        if let Some(at) = has("PX") {
            self.pexpire(key, &options[at + 1]);
        }
        Value::Okay
    }

    pub(crate) fn del(&mut self, key: &str) {
        self.keys.remove(key);
        self.ends.remove(key);
    }

    pub(crate) fn pexpire(&mut self, key: &str, ms: &str) -> bool {
        let is_there = self.keys.contains_key(key);
        if is_there {
            self.ends.insert(key.to_owned(), self.now_ms + number(ms).cast_unsigned());
        }
        is_there
    }

    /// What is left until the end of a key.
    pub(crate) fn pttl(&self, key: &str) -> u64 {
        self.ends.get(key).map_or(u64::MAX >> 2, |end| end.saturating_sub(self.now_ms))
    }

    pub(crate) fn hash(&self, key: &str) -> Option<&BTreeMap<String, String>> {
        match self.keys.get(key)? {
            Held::Hash(hash) => Some(hash),
            other => panic!("{key} is {other:?}"),
        }
    }

    pub(crate) fn hget(&self, key: &str, field: &str) -> Option<String> {
        self.hash(key)?.get(field).cloned()
    }

    #[allow(clippy::needless_pass_by_value, reason = "numbers and texts alike, as a script's")]
    pub(crate) fn hset(&mut self, key: &str, field: &str, value: impl ToString) {
        let held = self.keys.entry(key.to_owned()).or_insert_with(|| Held::Hash(BTreeMap::new()));
        let Held::Hash(hash) = held else { panic!("{key} is {held:?}") };
        hash.insert(field.to_owned(), value.to_string());
    }

    pub(crate) fn hdel(&mut self, key: &str, field: &str) {
        if let Some(Held::Hash(hash)) = self.keys.get_mut(key) {
            hash.remove(field);
            if hash.is_empty() {
                self.del(key);
            }
        }
    }

    pub(crate) fn hincrby(&mut self, key: &str, field: &str, by: i64) -> i64 {
        let after = self.hget(key, field).map_or(0, |text| number(&text)) + by;
        self.hset(key, field, after);
        after
    }

    pub(crate) fn members(&self, key: &str) -> Vec<String> {
        match self.keys.get(key) {
            Some(Held::Set(set)) => set.iter().cloned().collect(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn sadd(&mut self, key: &str, member: &str) -> bool {
        let held = self.keys.entry(key.to_owned()).or_insert_with(|| Held::Set(BTreeSet::new()));
        let Held::Set(set) = held else { panic!("{key} is {held:?}") };
        set.insert(member.to_owned())
    }

    fn srem(&mut self, key: &str, member: &str) -> bool {
        let Some(Held::Set(set)) = self.keys.get_mut(key) else { return false };
        let was_there = set.remove(member);
        if set.is_empty() {
            self.del(key);
        }
        was_there
    }

    pub(crate) fn zscore(&self, key: &str, member: &str) -> Option<f64> {
        match self.keys.get(key)? {
            Held::Sorted(all) => all.get(member).copied(),
            other => panic!("{key} is {other:?}"),
        }
    }

    pub(crate) fn zadd(&mut self, key: &str, member: &str, score: f64) {
        let held = self.keys.entry(key.to_owned()).or_insert_with(|| Held::Sorted(BTreeMap::new()));
        let Held::Sorted(all) = held else { panic!("{key} is {held:?}") };
        all.insert(member.to_owned(), score);
    }

    pub(crate) fn zrem(&mut self, key: &str, member: &str) {
        if let Some(Held::Sorted(all)) = self.keys.get_mut(key) {
            all.remove(member);
            if all.is_empty() {
                self.del(key);
            }
        }
    }

    /// Members by their scores, then their names, up to and with a place.
    pub(crate) fn sorted(&self, key: &str, last: i64) -> Vec<(String, f64)> {
        let Some(Held::Sorted(all)) = self.keys.get(key) else { return Vec::new() };
        let mut all: Vec<_> = all.iter().map(|(member, score)| (member.clone(), *score)).collect();
        all.sort_by(|one, other| one.1.total_cmp(&other.1).then_with(|| one.0.cmp(&other.0)));
        all.truncate(usize::try_from(last + 1).unwrap_or(0));
        all
    }

    pub(crate) fn publish(&mut self, channel: &str, text: String) {
        self.said.push((channel.to_owned(), text));
    }
}
