//! The head of a room in Redis, changed behind the back of all nodes.

use tests::redis::Redis;

pub(crate) const HEAD: &str = "roomkeeper:{public:a}:head";

/// Numbers of a head, by where they begin in it; `head.lua` has how it is written.
#[derive(Clone, Copy)]
pub(crate) enum Number {
    Offset = 18,
    Published = 26,
    LogBytes = 34,
}

const SET: &str = "local z, at = redis.call('HGET', KEYS[1], 'z'), tonumber(ARGV[1]) \
    local by = tonumber(ARGV[3]) * struct.unpack('>d', z, at) \
    local number = struct.pack('>d', by + tonumber(ARGV[2])) \
    return redis.call('HSET', KEYS[1], 'z', string.sub(z, 1, at - 1) .. number .. string.sub(z, at + 8))";
const SET_LIFE: &str = "local z = redis.call('HGET', KEYS[1], 'z') \
    return redis.call('HSET', KEYS[1], 'z', string.sub(z, 1, 81) .. struct.pack('Bc0', #ARGV[1], ARGV[1]))";
const LIFE: &str = "return string.sub(redis.call('HGET', KEYS[1], 'z'), 83)";

/// Sets one, as after so many publishes.
pub(crate) fn set(redis: &Redis, number: Number, to: u64) {
    redis.tell(&["EVAL", SET, "1", HEAD, &(number as u64).to_string(), &to.to_string(), "0"]);
}

/// Adds to one.
pub(crate) fn add(redis: &Redis, number: Number, more: u64) {
    redis.tell(&["EVAL", SET, "1", HEAD, &(number as u64).to_string(), &more.to_string(), "1"]);
}

/// Has the room be in this life of a server.
pub(crate) fn set_life(redis: &Redis, life: &str) {
    redis.tell(&["EVAL", SET_LIFE, "1", HEAD, life]);
}

/// In which it is.
pub(crate) fn life(redis: &Redis) -> String {
    redis.ask(&["EVAL", LIFE, "1", HEAD])
}
