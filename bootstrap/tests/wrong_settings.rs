//! Every setting, wrong in every way, as a start of the binary sees it: exit code 78, quickly, with
//! one line that helps. `config check` says the same.
//!
//! The list of settings gives the cases, so that a new setting is tested by being there.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed step of a test stops the test, with words"
)]

use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use bootstrap::settings::schema::{KEYS, Key, Kind};

struct Starts {
    folder: tempfile::TempDir,
    /// Somebody has this address, so that a start with right settings ends as well.
    taken: String,
    _held: TcpListener,
    n_starts: u32,
    slowest: Duration,
}

impl Starts {
    fn new() -> Self {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = held.local_addr().unwrap().to_string();
        let folder = tempfile::tempdir().unwrap();
        Self { folder, taken, _held: held, n_starts: 0, slowest: Duration::ZERO }
    }

    fn run(&mut self, words: &[&str], set: &str, file: &str) -> Output {
        let path = self.folder.path().join("given.toml");
        std::fs::write(&path, file).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_roomkeeper"));
        command.args(words).args(["--profile", "testing", "--config"]).arg(&path);
        command.args(["--set", &format!("server.listen={}", self.taken)]);
        if !set.is_empty() {
            command.args(["--set", set]);
        }
        let begun = Instant::now();
        let output = command.env_clear().current_dir(self.folder.path()).output().unwrap();
        self.n_starts += 1;
        self.slowest = self.slowest.max(begun.elapsed());
        output
    }

    /// A start, which must end as `config check` does; its exit code and standard error.
    fn both(&mut self, set: &str, file: &str) -> (i32, String) {
        let start = self.run(&["serve"], set, file);
        let check = self.run(&["config", "check"], set, file);
        let (start_code, check_code) = (start.status.code().unwrap(), check.status.code().unwrap());
        let words = String::from_utf8(start.stderr).unwrap();
        assert!(start.stdout.is_empty(), "{set} {file}");
        if start_code == 78 {
            assert_eq!(String::from_utf8(check.stderr).unwrap(), words, "{set} {file}");
            assert_eq!(check_code, 78, "{set} {file}");
        } else {
            // The settings are right, and the port is not to be had.
            assert_eq!((start_code, check_code), (74, 0), "{set} {file}: {words}");
        }
        (start_code, words)
    }

    fn refused(&mut self, key: &str, set: &str, file: &str) -> String {
        let (code, words) = self.both(set, file);
        assert_eq!(code, 78, "{set} {file}: {words}");
        assert_eq!(words.lines().count(), 1, "{set} {file}: {words}");
        assert!(words.starts_with(&format!("roomkeeper: {key}")), "{set} {file}: {words}");
        words
    }
}

fn concrete(key: &Key) -> String {
    key.path.replace("api.keys.*", "api.keys.backend").replace('*', "chat")
}

/// Of another type than any setting of this kind, as TOML.
fn of_another_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Flag | Kind::Number(..) => "\"hunter2\"",
        Kind::Word(_) | Kind::Text(..) | Kind::Secret => "1234567",
        Kind::List(..) => "7",
    }
}

/// C01. C05.
#[test]
fn every_setting_that_is_wrong_ends_a_start_as_it_ends_the_check() {
    let mut starts = Starts::new();
    for key in KEYS.iter().filter(|key| key.path != "profile") {
        let path = concrete(key);
        let file = format!("\n{path} = {}\n", of_another_type(key.kind));
        let words = starts.refused(&path, "", &file);
        let (shown, from) = if key.kind.is_secret() {
            ("(hidden)", "given.toml, line 2")
        } else {
            (of_another_type(key.kind), "given.toml, line 2")
        };
        assert!(words.contains(from) && words.contains(&key.kind.allowed()), "{words}");
        assert!(matches!(key.kind, Kind::List(..)) || words.contains(shown), "{words}");
        assert!(!key.kind.is_secret() || !words.contains("1234567"), "{words}");

        // No value at all.
        let words = starts.both("", &format!("{path} =\n")).1;
        assert!(words.contains("line 1 is not TOML"), "{words}");

        let typo = format!("{path}x");
        let words = starts.refused(&typo, &format!("{typo}=1"), "");
        assert!(words.contains(&format!("did you mean {path}?")), "{words}");
    }
    assert!(starts.slowest < Duration::from_secs(30), "{:?}", starts.slowest);
}

/// C01. C02: a limit of nothing. C05.
#[test]
fn every_number_that_is_negative_zero_or_huge_is_refused_or_is_within_the_range_that_is_named() {
    let mut starts = Starts::new();
    for key in KEYS {
        let Kind::Number(min, max) = key.kind else { continue };
        let path = concrete(key);
        for value in ["-1".to_owned(), u64::MAX.to_string(), (max + 1).to_string()] {
            let words = starts.refused(&path, &format!("{path}={value}"), "");
            assert!(words.contains(&value) && words.contains(&key.kind.allowed()), "{words}");
            assert!(words.contains("from flag --set"), "{words}");
        }
        let zero = format!("{path}=0");
        if min > 0 {
            starts.refused(&path, &zero, "");
        } else {
            assert_eq!(starts.both(&zero, "").0, 74, "{path}");
        }
    }
}

/// C01.
#[test]
fn wrong_settings_are_told_within_a_second() {
    let mut starts = Starts::new();
    let begun = Instant::now();
    for _ in 0..20 {
        starts.refused("server.workers", "server.workers=many", "");
    }
    // Two starts each. The mean, since other tests may have the processor for a while.
    let mean = begun.elapsed() / starts.n_starts;
    assert!(mean < Duration::from_secs(1), "{mean:?}");
}
