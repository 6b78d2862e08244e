//! The scripts about leases, presence and seats, each as a function of the [model](crate::redis): line by line what
//! stands in `adapters/broker_redis/src/scripts`.
//!
//! It must never be cleverer than a script.

use redis::Value;

use crate::redis::{Redis, bulk, int, number};

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Script {
    Claim,
    Lease,
    Live,
    PresenceList,
    PresenceReap,
    PresenceSet,
    PresenceUpdate,
    Seat,
}

impl Script {
    pub(crate) fn named(name: &str) -> Self {
        match name {
            "claim" => Self::Claim,
            "lease" => Self::Lease,
            "live" => Self::Live,
            "presence_list" => Self::PresenceList,
            "presence_reap" => Self::PresenceReap,
            "presence_set" => Self::PresenceSet,
            "presence_update" => Self::PresenceUpdate,
            "seat" => Self::Seat,
            other => panic!("there is no model of {other}"),
        }
    }

    pub(crate) fn run(self, redis: &mut Redis, keys: &[String], arguments: &[String]) -> Value {
        match self {
            Self::Claim => claim(redis, keys, arguments),
            Self::Lease => lease(redis, keys, arguments),
            Self::Live => live(redis, keys, arguments),
            Self::PresenceList => presence_list(redis, keys, arguments),
            Self::PresenceReap => presence_reap(redis, keys, arguments),
            Self::PresenceSet => presence_set(redis, keys, arguments),
            Self::PresenceUpdate => presence_update(redis, keys, arguments),
            Self::Seat => seat(redis, keys, arguments),
        }
    }
}

fn lease(redis: &mut Redis, keys: &[String], argv: &[String]) -> Value {
    let was = redis.zscore(&keys[0], &argv[0]);
    if was.is_none() && redis.members(&keys[1]).contains(&argv[0]) {
        return Value::Array(vec![int(0), Value::Array(Vec::new())]);
    }
    let now_ms = redis.now_ms;
    redis.zadd(&keys[0], &argv[0], (now_ms + number(&argv[1]).cast_unsigned()) as f64);
    for key in &keys[..2] {
        redis.pexpire(key, &argv[3]);
    }
    let all = redis.sorted(&keys[0], i64::MAX - 1).into_iter();
    let over = all.filter(|(_, until)| *until <= now_ms as f64).map(|(name, _)| bulk(name));
    let max = usize::try_from(number(&argv[2])).unwrap_or(0);
    Value::Array(vec![int(u8::from(was.is_some())), Value::Array(over.take(max).collect())])
}

fn claim(redis: &mut Redis, keys: &[String], argv: &[String]) -> Value {
    let until = redis.zscore(&keys[0], &argv[0]);
    if until.is_none_or(|until| until > redis.now_ms as f64) {
        return int(0);
    }
    redis.zrem(&keys[0], &argv[0]);
    redis.sadd(&keys[1], &argv[0]);
    int(1)
}

fn live(redis: &mut Redis, keys: &[String], argv: &[String]) -> Value {
    let all = redis.sorted(&keys[0], number(&argv[0]) - 1).into_iter();
    let flat = all.flat_map(|(name, until)| [bulk(name), bulk(format!("{until:.0}"))]);
    Value::Array(vec![bulk(redis.now_ms.to_string()), Value::Array(flat.collect())])
}

/// KEYS 1 who  2 names  3 counts  4 data  5 over
fn tell(redis: &mut Redis, keys: &[String], to: (&str, &str), change: &str, member: (&str, &str)) {
    if redis.hget(&keys[0], "s").is_none() {
        redis.hset(&keys[0], "s", redis.now_ms);
    }
    let number = redis.hincrby(&keys[0], "s", 1);
    let ((channel, room), (member, data)) = (to, member);
    let total = redis.sorted(&keys[1], i64::MAX - 1).len();
    redis.publish(channel, format!("presence {number} {change} {member} {room} {total}\n{data}"));
}

fn set(redis: &mut Redis, keys: &[String], member: &str, after: i64, to: (&str, &str)) {
    let before = redis.hget(&keys[4], member).map_or(0, |text| number(&text));
    if after == before {
        return;
    }
    if after > 0 {
        redis.hset(&keys[4], member, after);
    } else {
        redis.hdel(&keys[4], member);
    }
    let total = redis.hincrby(&keys[2], member, after - before);
    redis.hincrby(&keys[0], "c", after - before);
    if total <= 0 {
        let data = redis.hget(&keys[3], member).unwrap_or_default();
        redis.hdel(&keys[2], member);
        redis.hdel(&keys[3], member);
        redis.zrem(&keys[1], member);
        tell(redis, keys, to, "leave", (member, &data));
    } else if total == after - before {
        redis.zadd(&keys[1], member, 0.0);
        tell(redis, keys, to, "join", (member, ""));
    }
}

fn presence_set(redis: &mut Redis, keys: &[String], argv: &[String]) -> Value {
    let [member, connections, channel, room, kept, data] = argv else { panic!("{argv:?}") };
    set(redis, keys, member, number(connections), (channel, room));
    let is_lost = redis.hget(&keys[2], member).is_some() && redis.hget(&keys[3], member).is_none();
    if !data.is_empty() && is_lost {
        redis.hset(&keys[3], member, data);
        tell(redis, keys, (channel, room), "update", (member, data));
    }
    for key in keys {
        redis.pexpire(key, kept);
    }
    int(1)
}

fn presence_update(redis: &mut Redis, keys: &[String], argv: &[String]) -> Value {
    let [member, data, channel, room] = argv else { panic!("{argv:?}") };
    if redis.hget(&keys[2], member).is_none() {
        return int(0);
    }
    if redis.hget(&keys[3], member).as_ref() != Some(data) {
        redis.hset(&keys[3], member, data);
        let left = redis.pttl(&keys[2]);
        redis.pexpire(&keys[3], &left.to_string());
        tell(redis, keys, (channel, room), "update", (member, data));
    }
    int(1)
}

fn presence_reap(redis: &mut Redis, keys: &[String], argv: &[String]) -> Value {
    let [max, channel, room] = argv else { panic!("{argv:?}") };
    let all: Vec<_> =
        redis.hash(&keys[4]).into_iter().flatten().map(|(name, _)| name.clone()).collect();
    for member in all.iter().take(usize::try_from(number(max)).unwrap_or(0)) {
        set(redis, keys, member, 0, (channel, room));
    }
    int(redis.hash(&keys[4]).map_or(0, |left| left.len()))
}

fn presence_list(redis: &mut Redis, keys: &[String], argv: &[String]) -> Value {
    let names: Vec<_> =
        redis.sorted(&keys[1], number(&argv[0]) - 1).into_iter().map(|(name, _)| name).collect();
    let counts = names.iter().map(|name| redis.hget(&keys[2], name).map_or(Value::Nil, bulk));
    let data = names.iter().map(|name| bulk(redis.hget(&keys[3], name).unwrap_or_default()));
    let (counts, data) = (counts.collect(), data.collect());
    let total = redis.sorted(&keys[1], i64::MAX - 1).len();
    Value::Array(vec![
        bulk(redis.hget(&keys[0], "s").unwrap_or_else(|| "0".to_owned())),
        int(total),
        bulk(redis.hget(&keys[0], "c").unwrap_or_else(|| "0".to_owned())),
        Value::Array(names.into_iter().map(bulk).collect()),
        Value::Array(counts),
        Value::Array(data),
    ])
}

/// What is known of a user.
#[derive(Default)]
struct Known {
    fence: i64,
    spread: i64,
    others: i64,
    nodes: i64,
    mine: i64,
    version: i64,
    in_use: bool,
    doubted: i64,
    silent_for: i64,
}

fn look(redis: &mut Redis, key: &str, argv: &[String], now: i64) -> Known {
    let live =
        |node: &str| argv[12..].chunks(2).find(|pair| pair[0] == node).map(|pair| number(&pair[1]));
    let mut known = Known { spread: 1, version: -1, ..Known::default() };
    let all: Vec<_> =
        redis.hash(key).into_iter().flatten().map(|(f, v)| (f.clone(), v.clone())).collect();
    for (name, value) in all {
        let node = &name[1..];
        match name.as_str() {
            "f" => known.fence = number(&value),
            "s" => known.spread = number(&value),
            _ => {
                let mut said = value.split(' ').map(number);
                let (Some(count), Some(version), Some(at)) =
                    (said.next(), said.next(), said.next())
                else {
                    panic!("{value}")
                };
                let until = live(node);
                if node == argv[0] {
                    (known.mine, known.version) = (count, version);
                } else if node == argv[1] || (until.is_none() && now - at > 60_000) {
                    redis.hdel(key, &name);
                } else if let Some(until) = until.filter(|_| count > 0) {
                    known.in_use = true;
                    if until > now {
                        (known.others, known.nodes) = (known.others + count, known.nodes + 1);
                        let silent = now - until + number(&argv[10]);
                        if silent > number(&argv[11]) {
                            known.doubted += count;
                            known.silent_for = known.silent_for.max(silent);
                        }
                    }
                }
            }
        }
    }
    known
}

fn seat(redis: &mut Redis, keys: &[String], argv: &[String]) -> Value {
    let key = &keys[0];
    let now = redis.now_ms.cast_signed();
    let mut known = look(redis, key, argv, now);
    let (mut count, version, rule) = (number(&argv[2]), number(&argv[3]), argv[4].as_str());
    let answer = |word: i64, known: &Known, nodes: i64, silent: i64| {
        let fence = bulk(known.fence.to_string());
        Value::Array(vec![int(word), fence, int(nodes), bulk_or_int(word, silent)])
    };
    let is_new = version > known.version;
    if !is_new {
        count = known.mine;
    }
    if rule != "t" && rule != "w" && known.others + count > number(rule) {
        let word = if known.others - known.doubted + count > number(rule) { 0 } else { 2 };
        let nodes = known.nodes + i64::from(known.mine > 0);
        return answer(word, &known, nodes, known.silent_for);
    }
    if is_new {
        redis.hset(key, &format!("n{}", argv[0]), format!("{count} {version} {now}"));
    }
    let told = number(&argv[5]);
    if rule == "w" {
        known.fence = (known.fence.max(told) + 1).max(now);
        redis.hset(key, "f", known.fence);
        redis.publish(&argv[8], format!("seat {} {}", known.fence, argv[9]));
    } else if told > known.fence {
        known.fence = told;
        redis.hset(key, "f", known.fence);
    }
    if count > 0 {
        known.nodes += 1;
        known.in_use = true;
    }
    if known.nodes != known.spread && known.nodes > 0 {
        redis.hset(key, "s", known.nodes);
        redis.publish(&argv[8], format!("spread {} {}", known.nodes, argv[9]));
    }
    redis.pexpire(key, if known.in_use { &argv[6] } else { &argv[7] });
    answer(1, &known, known.nodes, 0)
}

/// A refusal says for how long in words, and an answer that there is nothing in a number.
fn bulk_or_int(word: i64, silent: i64) -> Value {
    if word == 1 { int(silent) } else { bulk(silent.to_string()) }
}
