//! What the errors of servers mean here.
//!
//! Redis 6.2 wraps an error that a command meets inside a script in words of its own; Redis 7 and Valkey pass it
//! on. Nothing behind this file may look at their texts.

use redis::{ErrorKind, RedisError};

/// What came instead of an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// Nothing came, or nothing that can be trusted: the connection is of no use any more.
    Lost,
    /// The server takes no writes, or none of ours, any more: the same.
    Demoted,
    /// Another server has the slot: nothing was done.
    Moved,
    /// Another server has this key of a slot that is moving: nothing was done.
    Ask,
    /// Some of the keys have moved and some have not: nothing was done, and it will pass by itself.
    Again,
    /// The server can't now and says so: nothing was done.
    Busy,
    /// The server does not have the script: nothing was done.
    NoScript,
    /// The room's log has given out its last offset.
    Full,
    /// A newer connection speaks for the user: nothing was done.
    Fenced,
    /// The server does not know who speaks for the user: nothing was done.
    Unfenced,
    /// What was asked is in a later life of the server already: nothing was done.
    Outlived,
    /// Anything else: nothing was done.
    Refused,
}

impl Fault {
    pub(crate) fn of(error: &RedisError) -> Self {
        let is_lost = error.is_unrecoverable_error() || error.is_timeout() || error.is_io_error();
        if is_lost || matches!(error.kind(), ErrorKind::Parse | ErrorKind::UnexpectedReturnType) {
            return Self::Lost;
        }
        match code(error) {
            Some("ROOMFULL") => Self::Full,
            Some("FENCED") => Self::Fenced,
            Some("UNFENCED") => Self::Unfenced,
            Some("OUTLIVED") => Self::Outlived,
            Some("NOSCRIPT") => Self::NoScript,
            Some("MOVED") => Self::Moved,
            Some("ASK") => Self::Ask,
            Some("TRYAGAIN") => Self::Again,
            Some("READONLY" | "MASTERDOWN" | "NOAUTH" | "WRONGPASS") => Self::Demoted,
            Some("LOADING" | "BUSY" | "CLUSTERDOWN") => Self::Busy,
            _ => Self::Refused,
        }
    }
}

/// The code of an error: of that which a command met inside a script, where there is one.
pub(crate) fn code(error: &RedisError) -> Option<&str> {
    let outer = error.code();
    match (outer, error.detail()) {
        (Some("ERR"), Some(detail)) => inner(detail).or(outer),
        _ => outer,
    }
}

/// Redis 6.2: `Error running script (call to f_…): @user_script:7: @user_script: 7: -OOM command not allowed …`, or
/// the same without the dash.
fn inner(detail: &str) -> Option<&str> {
    if !detail.starts_with("Error running script") {
        return None;
    }
    let is_code = |word: &&str| {
        word.len() > 2 && word.bytes().all(|b| b.is_ascii_uppercase()) && *word != "ERR"
    };
    detail
        .split(": ")
        .filter_map(|part| part.split([' ', '\r']).next())
        .find_map(|word| Some(word.strip_prefix('-').unwrap_or(word)).filter(is_code))
}

/// What an error says of its kind, and nothing of what was sent or answered.
pub(crate) fn words(error: &RedisError) -> String {
    match code(error) {
        Some(code) => format!("{} ({code})", error.category()),
        None => error.category().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server says, as the library reads it.
    fn said(line: &str) -> RedisError {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        value.extract_error().unwrap_err()
    }

    /// RD14: each of them, as Redis 7 and Valkey say it and as Redis 6.2 does inside of scripts.
    #[test]
    fn what_servers_refuse_means_the_same_in_every_version() {
        let wrapped = |text: &str| {
            format!(
                "ERR Error running script (call to f_0c1d): @user_script:12: @user_script: 12: {text}"
            )
        };
        for (text, fault) in [
            ("OOM command not allowed when used memory > 'maxmemory'.", Fault::Refused),
            ("READONLY You can't write against a read only replica.", Fault::Demoted),
            ("MASTERDOWN Link with MASTER is down.", Fault::Demoted),
            ("NOAUTH Authentication required.", Fault::Demoted),
            ("LOADING Redis is loading the dataset in memory", Fault::Busy),
            ("BUSY Redis is busy running a script.", Fault::Busy),
            ("MISCONF Errors writing to the AOF file: No space left on device", Fault::Refused),
            ("NOREPLICAS Not enough good replicas to write.", Fault::Refused),
            ("CLUSTERDOWN The cluster is down", Fault::Busy),
            ("MOVED 5 127.0.0.1:7001", Fault::Moved),
            ("ASK 5 127.0.0.1:7001", Fault::Ask),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Fault::Again),
            ("NOSCRIPT No matching script. Please use EVAL.", Fault::NoScript),
            ("ROOMFULL the log has given out its last offset", Fault::Full),
            ("OUTLIVED 1764268800000", Fault::Outlived),
            ("FENCED a newer connection speaks for the user", Fault::Fenced),
            ("UNFENCED nobody has said who speaks for the user", Fault::Unfenced),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", Fault::Refused),
        ] {
            assert_eq!(Fault::of(&said(text)), fault, "{text}");
            for old in [wrapped(text), wrapped(&format!("-{text}"))] {
                assert_eq!(Fault::of(&said(&old)), fault, "{old}");
                assert_eq!(code(&said(&old)), text.split(' ').next());
            }
        }
        assert_eq!(Fault::of(&said("ERR unknown command 'HRANDFIELD'")), Fault::Refused);
        assert!(words(&said(&wrapped("-OOM command"))).contains("OOM"));
    }
}
