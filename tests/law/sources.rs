//! What every Rust file looks like: how it opens, how long it is, and what it never contains.
//!
//! The words that are searched for are put together from halves, so that this file is lawful too.

use crate::repository::{File, files, files_with};
use crate::{assert_complains, assert_lawful};

/// Longer than this and a file is two files. Tests at its end don't count.
const LINES_MAX: usize = 500;
/// The same for a file that is all tests or a contract suite.
const TEST_LINES_MAX: usize = 1000;

/// Never written, anywhere.
const NEVER: &[(&str, &str)] = &[
    (concat!("#[ig", "nore"), "a test runs or is deleted; what needs a tool asks tests::foreign"),
    (concat!("to", "do!("), "finish it or leave it out"),
    (concat!("unimpl", "emented!("), "finish it or leave it out"),
];

/// Waiting for time to pass, which tests don't do.
const SLEEPS: &[&str] = &[
    concat!("thread::sl", "eep("),
    concat!("time::sl", "eep("),
    concat!("time::sl", "eep_until("),
    concat!("use tokio::time::sl", "eep"),
];
/// Test files that may wait, each with its reason. Virtual time is no reason: it needs no entry,
/// since `tokio::time::advance` does it.
const SLEEPERS: &[(&str, &str)] = &[(
    "tests/support/false_server.rs",
    "it waits for nothing: it stalls, which a load tool has to see in real time",
)];

/// How a test would start a client in another language behind the back of `tests::foreign`.
const UNNOTED: &[&str] =
    &[concat!("Command::new(\"no", "de\")"), concat!("Command::new(\"py", "thon")];

/// How unsafe code begins.
const UNSAFE: &[&str] = &[
    concat!("uns", "afe {"),
    concat!("uns", "afe fn "),
    concat!("uns", "afe impl "),
    concat!("uns", "afe extern "),
];

/// Where the part that counts ends: at the tests.
fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take_while(|line| line.trim() != "#[cfg(test)]")
}

/// Lines that are no comment.
fn statements(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

fn check_opening(file: &File) -> Option<String> {
    (!file.text.starts_with("//!")).then(|| {
        format!("{} must open with `//!`: what it is, and what it must never do", file.path)
    })
}

fn check_length(file: &File) -> Option<String> {
    let suite = is_test_file(&file.path) || file.path.contains("/src/testing/");
    let most = if suite { TEST_LINES_MAX } else { LINES_MAX };
    let lines = code_lines(&file.text).count();
    (lines > most).then(|| {
        format!(
            "{} has {lines} lines before its tests, {most} are the most: split it by subject",
            file.path
        )
    })
}

fn check_place(file: &File) -> Option<String> {
    let name = file.path.rsplit('/').next().unwrap_or_default();
    (name == "mod.rs").then(|| {
        format!("{} must be named after its module: foo.rs beside foo/, not foo/mod.rs", file.path)
    })
}

fn check_blanks(file: &File) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        let place = format!("{}:{}", file.path, number + 1);
        if line.ends_with([' ', '\t']) {
            complaints.push(format!("{place} ends in a blank: delete it"));
        } else if line.contains('\t') {
            complaints.push(format!("{place} has a tab: use four spaces, or \\t in a string"));
        }
    }
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        complaints.push(format!("{} must end with a line break", file.path));
    }
    complaints
}

fn check_never(file: &File) -> Vec<String> {
    let said = |(words, instead): &(&str, &str)| {
        statements(&file.text)
            .any(|line| line.contains(words))
            .then(|| format!("{} contains `{words}`: {instead}", file.path))
    };
    NEVER.iter().filter_map(said).collect()
}

fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs")
}

fn check_sleep(file: &File, sleepers: &[(&str, &str)]) -> Option<String> {
    let excused = sleepers.iter().any(|(path, _)| *path == file.path);
    if excused || !is_test_file(&file.path) {
        return None;
    }
    let slept = |line: &&str| SLEEPS.iter().any(|words| line.contains(words));
    let line = statements(&file.text).find(slept)?;
    Some(format!(
        "{} waits for time to pass (`{}`): wait for the event itself with a deadline, use virtual \
         time, or list the file with its reason in SLEEPERS in tests/law/sources.rs",
        file.path,
        line.trim()
    ))
}

/// An excuse for a file that is gone, or that doesn't need it, is deleted.
fn check_sleepers(sleepers: &[(&str, &str)], files: &[File]) -> Vec<String> {
    let stale = |(path, reason): &(&str, &str)| {
        let needed = files.iter().any(|f| f.path == *path && check_sleep(f, &[]).is_some());
        (!needed || reason.is_empty()).then(|| {
            format!("SLEEPERS in tests/law/sources.rs excuses {path} in vain: delete the row")
        })
    };
    sleepers.iter().filter_map(stale).collect()
}

/// What clients in the tests publish is looked for in the server's log, so it has to be known.
fn check_noted(file: &File) -> Option<String> {
    if !file.path.starts_with("tests/") || file.path == "tests/support/foreign.rs" {
        return None;
    }
    let says = |words: &str| statements(&file.text).any(|line| line.contains(words));
    if UNNOTED.iter().any(|words| says(words)) {
        return Some(format!(
            "{} starts an interpreter itself: take `tests::foreign::interpreter` or `script`, which \
             note what is sent",
            file.path
        ));
    }
    (says("client_tungstenite") && says("PublishOptions") && !says("said(")).then(|| {
        format!(
            "{} publishes by the Rust client: give it `tests::leaks::said(data)`, so that logs are \
             searched for the data",
            file.path
        )
    })
}

fn check_unsafe(file: &File) -> Option<String> {
    let opens = |line: &str| UNSAFE.iter().any(|words| line.contains(words));
    if !statements(&file.text).any(opens) {
        return None;
    }
    let permitted = statements(&file.text).any(|line| line.contains("allow(unsafe_code"));
    let explained = file
        .text
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .any(|line| line.to_lowercase().contains("unsafe"));
    (!permitted || !explained).then(|| {
        format!(
            "{} has unsafe code: do without, or say `#![allow(unsafe_code)]` and why it is sound \
             in the file's header",
            file.path
        )
    })
}

#[test]
fn every_rust_file_opens_with_what_it_is() {
    assert!(files_with("rs").count() > 20, "the files were not found");
    assert_lawful(&files_with("rs").filter_map(check_opening).collect::<Vec<_>>());
}

#[test]
fn no_file_is_too_long_to_be_read() {
    assert_lawful(&files_with("rs").filter_map(check_length).collect::<Vec<_>>());
}

#[test]
fn modules_are_named_after_themselves() {
    assert_lawful(&files_with("rs").filter_map(check_place).collect::<Vec<_>>());
}

#[test]
fn no_rust_file_has_tabs_or_trailing_blanks() {
    assert_lawful(&files_with("rs").flat_map(check_blanks).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_unfinished_or_switched_off() {
    assert_lawful(&files_with("rs").flat_map(check_never).collect::<Vec<_>>());
}

#[test]
fn no_test_waits_for_time_to_pass() {
    let mut complaints =
        files_with("rs").filter_map(|file| check_sleep(file, SLEEPERS)).collect::<Vec<_>>();
    complaints.extend(check_sleepers(SLEEPERS, files()));
    assert_lawful(&complaints);
}

#[test]
fn what_clients_send_in_tests_is_known_to_whoever_searches_the_logs() {
    assert_lawful(&files_with("rs").filter_map(check_noted).collect::<Vec<_>>());
}

#[test]
fn unsafe_code_is_permitted_and_explained_where_it_stands() {
    assert_lawful(&files_with("rs").filter_map(check_unsafe).collect::<Vec<_>>());
}

/// The breaches that each check must see.
mod breaches {
    use super::*;

    fn file(text: &str) -> File {
        File::new("tests/e2e/x.rs", text)
    }

    #[test]
    fn a_file_without_an_opening_is_seen() {
        assert_complains(check_opening(&file("use std::fmt;\n")).as_slice(), "open with `//!`");
        assert!(check_opening(&file("//! A thing.\n")).is_none());
    }

    #[test]
    fn a_long_file_is_seen_and_its_tests_do_not_count() {
        let file = |text: &str| File::new("domain/src/x.rs", text);
        let code = "let x = 1;\n".repeat(LINES_MAX);
        assert!(check_length(&file(&code)).is_none());
        assert!(check_length(&file(&format!("{code}#[cfg(test)]\n{code}"))).is_none());
        assert_complains(check_length(&file(&format!("{code}\n"))).as_slice(), "split it");
    }

    #[test]
    fn a_file_of_tests_may_be_longer_but_not_endless() {
        let suite = |text: &str| File::new("application/src/testing/broker_contract.rs", text);
        let code = "let x = 1;\n".repeat(TEST_LINES_MAX);
        assert!(check_length(&suite(&code)).is_none());
        assert_complains(check_length(&suite(&format!("{code}\n"))).as_slice(), "split it");
    }

    #[test]
    fn a_module_file_without_a_name_is_seen() {
        let nameless = File::new("domain/src/protocol/mod.rs", "//! x\n");
        assert_complains(check_place(&nameless).as_slice(), "named after its module");
        assert!(check_place(&File::new("domain/src/protocol.rs", "")).is_none());
    }

    #[test]
    fn blanks_tabs_and_a_missing_line_break_are_seen() {
        assert_complains(&check_blanks(&file("a \n")), "ends in a blank");
        assert_complains(&check_blanks(&file("\ta\n")), "has a tab");
        assert_complains(&check_blanks(&file("a")), "line break");
        assert_lawful(&check_blanks(&file("    a\n")));
    }

    #[test]
    fn what_is_unfinished_or_switched_off_is_seen() {
        for (words, _) in NEVER {
            assert_complains(&check_never(&file(&format!("    {words}\n"))), words);
        }
        assert_lawful(&check_never(&file(concat!("// a comment on to", "do!()\n"))));
    }

    #[test]
    fn a_test_that_sleeps_is_seen_unless_it_is_excused() {
        for words in SLEEPS {
            let sleeper = file(&format!("    {words}\n"));
            assert_complains(check_sleep(&sleeper, &[]).as_slice(), "waits for time to pass");
            assert!(check_sleep(&sleeper, &[("tests/e2e/x.rs", "why")]).is_none());
        }
        let elsewhere = File::new("adapters/a_b/src/lib.rs", SLEEPS[0]);
        assert!(check_sleep(&elsewhere, &[]).is_none());
    }

    #[test]
    fn an_excuse_in_vain_is_seen() {
        let excuses = [("tests/e2e/x.rs", "why")];
        assert_complains(&check_sleepers(&excuses, &[]), "in vain");
        assert_complains(&check_sleepers(&excuses, &[file("//! awake\n")]), "in vain");
        assert_lawful(&check_sleepers(&excuses, &[file(SLEEPS[0])]));
    }

    #[test]
    fn a_client_whose_words_nobody_notes_is_seen() {
        for words in UNNOTED {
            assert_complains(check_noted(&file(words)).as_slice(), "starts an interpreter itself");
        }
        let rust = "use client_tungstenite::{Client, PublishOptions};\n";
        assert_complains(check_noted(&file(rust)).as_slice(), "said(data)");
        assert!(check_noted(&file(&format!("{rust}publish(said(&data))\n"))).is_none());
        assert!(check_noted(&File::new("adapters/a_b/tests/x.rs", rust)).is_none());
    }

    #[test]
    fn unsafe_code_needs_both_the_permission_and_the_reason() {
        let body = concat!("fn f() { uns", "afe { g() } }\n");
        let permission = "#![allow(unsafe_code)]\n";
        let reason = "//! Unsafe code: the buffer is initialised.\n";
        assert_complains(check_unsafe(&file(body)).as_slice(), "has unsafe code");
        assert_complains(check_unsafe(&file(&format!("{permission}{body}"))).as_slice(), "unsafe");
        assert_complains(check_unsafe(&file(&format!("{reason}{body}"))).as_slice(), "unsafe");
        assert!(check_unsafe(&file(&format!("{reason}{permission}{body}"))).is_none());
        assert!(check_unsafe(&file(concat!("//! Nothing uns", "afe { here }.\n"))).is_none());
    }
}
