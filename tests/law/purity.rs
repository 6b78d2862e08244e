//! What the inner layers never name: clocks, sockets, files, and any technology.
//!
//! The manifests keep foreign crates out; this keeps the parts of std and tokio out that the
//! manifests can't. Comments may name what they like, and so may tests.

use crate::repository::{File, files_with};
use crate::{assert_complains, assert_lawful};

/// Named by neither `domain` nor `application`.
const IMPURE: &[(&str, &str)] = &[
    ("std::fs", "files belong to an adapter"),
    ("std::net", "sockets belong to an adapter; addresses as data are in core::net"),
    ("std::env", "configuration is an argument"),
    ("std::process", "processes belong to the binary"),
    ("std::thread", "threads belong to an adapter"),
    ("std::io", "I/O belongs to an adapter"),
    ("SystemTime", "wall time is an argument: domain::time::Wall"),
    ("std::time::Instant", "time is an argument: domain::time::Monotonic"),
    ("Instant::now", "time is an argument: domain::time::Monotonic"),
    ("UNIX_EPOCH", "wall time is an argument: domain::time::Wall"),
    ("RandomState", "randomness is an argument, and order matters: use BTreeMap"),
    ("getrandom", "randomness is an argument"),
    ("rand", "randomness is an argument"),
    ("tokio::time", "time is an argument and deadlines are data"),
    ("tokio::net", "sockets belong to an adapter"),
    ("tokio::fs", "files belong to an adapter"),
    ("tokio::io", "I/O belongs to an adapter"),
    ("tokio::spawn", "return a future: the adapter spawns it"),
    ("tokio::task", "return a future: the adapter spawns it"),
    ("tokio::runtime", "the runtime belongs to an adapter"),
    ("axum", "a technology belongs to its adapter"),
    ("hyper", "a technology belongs to its adapter"),
    ("tower", "a technology belongs to its adapter"),
    ("tungstenite", "a technology belongs to its adapter"),
    ("tokio_tungstenite", "a technology belongs to its adapter"),
    ("sqlx", "a technology belongs to its adapter"),
    ("sqlite", "a technology belongs to its adapter"),
    ("postgres", "a technology belongs to its adapter"),
    ("redis", "a technology belongs to its adapter"),
    ("jsonwebtoken", "a technology belongs to its adapter"),
    ("websocket_codec", "a technology belongs to its adapter"),
    ("worker_tokio", "a technology belongs to its adapter"),
];
/// Named by `application`, but never by `domain`.
const IMPURE_IN_DOMAIN: &[(&str, &str)] = &[
    ("tokio", "the model knows no runtime"),
    ("tracing", "the model says nothing: return an effect"),
    ("async fn", "the model never waits"),
    ("await", "the model never waits"),
    ("HashMap", "its order is random: use BTreeMap"),
    ("HashSet", "its order is random: use BTreeSet"),
    ("println", "the model says nothing: return an effect"),
    ("Mutex", "the model is a value: whoever holds it locks it"),
];

fn check_purity(file: &File) -> Vec<String> {
    let in_domain = file.path.starts_with("domain/src/");
    let is_test = file.path.contains("/tests/") || file.path.ends_with("/tests.rs");
    if is_test || !in_domain && !file.path.starts_with("application/src/") {
        return Vec::new();
    }
    let extra = if in_domain { IMPURE_IN_DOMAIN } else { &[] };
    let code = file
        .text
        .lines()
        .take_while(|line| line.trim() != "#[cfg(test)]")
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>();
    IMPURE
        .iter()
        .chain(extra)
        .filter_map(|(words, instead)| {
            let line = code.iter().find(|line| names(line, words))?;
            Some(format!("{} names `{words}` in `{}`: {instead}", file.path, line.trim()))
        })
        .collect()
}

/// Whether `line` contains `words` and neither end goes on as an identifier.
fn names(line: &str, words: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(words).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + words.len()..].chars().next();
        !before.is_some_and(part_of_name) && !after.is_some_and(part_of_name)
    })
}

#[test]
fn the_inner_layers_name_no_clock_no_socket_and_no_technology() {
    assert!(files_with("rs").any(|f| f.path.starts_with("domain/src/")), "no model was found");
    assert_lawful(&files_with("rs").flat_map(check_purity).collect::<Vec<_>>());
}

/// The breaches that each check must see.
mod breaches {
    use super::*;

    #[test]
    fn every_impure_word_is_seen_in_the_model_and_in_the_use_cases() {
        for (words, instead) in IMPURE {
            for path in ["domain/src/room.rs", "application/src/ports/broker.rs"] {
                let complaints = check_purity(&File::new(path, &format!("    use {words}::x;\n")));
                assert!(complaints.iter().any(|c| c.contains(instead)), "{path} {complaints:?}");
            }
        }
    }

    #[test]
    fn what_only_the_model_may_not_name_is_seen_there() {
        for (words, instead) in IMPURE_IN_DOMAIN {
            let line = format!("    {words} x\n");
            let complaints = check_purity(&File::new("domain/src/room.rs", &line));
            assert!(complaints.iter().any(|c| c.contains(instead)), "{words}: {complaints:?}");
            assert_lawful(&check_purity(&File::new("application/src/shard.rs", &line)));
        }
    }

    #[test]
    fn a_word_inside_another_is_not_that_word() {
        let text = "fn operand(awaiting: Strand) {}\n// tokio::time is not used\n";
        assert_lawful(&check_purity(&File::new("domain/src/room.rs", text)));
        assert_complains(
            &check_purity(&File::new("domain/src/room.rs", "let x = rand::random();\n")),
            "randomness is an argument",
        );
    }

    #[test]
    fn tests_inside_a_file_may_name_what_they_need() {
        let text = "fn f() {}\n#[cfg(test)]\nmod tests { use std::collections::HashMap; }\n";
        assert_lawful(&check_purity(&File::new("domain/src/room.rs", text)));
        let line = "use std::collections::HashMap;\n";
        assert_lawful(&check_purity(&File::new("domain/src/protocol/tests/frames.rs", line)));
    }
}
