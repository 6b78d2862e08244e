//! The binary as its caller sees it: exit codes, and what goes where.

// Helpers are outside of test functions, where the house rules would not let them unwrap.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

fn run(args: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_roomkeeper"))
        .args(args)
        // No HOME, no PATH, no locale: none of them may be needed.
        .env_clear()
        .envs(environment.iter().copied())
        .current_dir(Path::new("/"))
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn wrong_settings_end_with_78_and_one_line_on_standard_error() {
    let environment = [("ROOMKEEPER_SERVER__LISTNE", "127.0.0.1:0")];
    let output = run(&["serve"], &environment);
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(text(&output.stdout), "");
    assert_eq!(
        text(&output.stderr),
        "roomkeeper: server.listne (from environment variable ROOMKEEPER_SERVER__LISTNE): \
         there is no such setting; did you mean server.listen?\n"
    );
    for args in [
        &["--listen", "8000"][..],
        &["--config", "/nowhere.toml"],
        &["--set", "limits.fragments_max=0"],
        &["--profile", "production"],
    ] {
        let (start, check) = (run(args, &[]), run(&[args, &["config", "check"]].concat(), &[]));
        assert_eq!(start.status.code(), Some(78), "{args:?}");
        assert_eq!(text(&start.stdout), "", "{args:?}");
        assert_eq!((check.status, check.stderr), (start.status, start.stderr), "{args:?}");
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    for args in [&["fly"][..], &["--profile", "prod"], &["token", "create"], &["--set", "x"]] {
        assert_eq!(run(args, &[]).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn the_settings_that_count_are_printed_with_their_sources_and_without_secrets() {
    let secret = "9f86d081884c7d659a2feaa0c55ad015";
    let environment = [("ROOMKEEPER_AUTH__HMAC_SECRET", secret)];
    let output = run(&["config", "print", "--listen", "127.0.0.1:0"], &environment);
    assert_eq!(output.status.code(), Some(0));
    let printed = text(&output.stdout);
    assert!(printed.contains("server.listen = \"127.0.0.1:0\" # flag --listen\n"), "{printed}");
    assert!(printed.contains("limits.fragments_max = 1024 # built-in default\n"), "{printed}");
    assert!(printed.contains("auth.hmac_secret = (hidden) # environment variable"), "{printed}");
    assert!(!printed.contains(secret));
}

#[test]
fn the_built_in_values_are_a_file_to_start_from() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("all.toml");
    std::fs::write(&file, run(&["config", "default"], &[]).stdout).unwrap();
    let output = run(&["config", "check", "--config", file.to_str().unwrap()], &[]);
    assert_eq!(text(&output.stderr), "");
    assert_eq!(text(&output.stdout), "the settings are right (profile development)\n");
}

#[test]
fn the_version_is_printed() {
    let expected = format!("roomkeeper {}\n", env!("CARGO_PKG_VERSION"));
    for args in [&["version"][..], &["--version"], &["-V"]] {
        assert_eq!(text(&run(args, &[]).stdout), expected);
    }
}

#[test]
fn the_help_names_each_command_and_the_exit_codes() {
    let output = run(&["-h"], &[]);
    let help = text(&output.stdout);
    for word in ["serve", "subscribe", "publish", "token", "config", "--listen", "78", "Examples"] {
        assert!(help.contains(word), "{word} is missing in {help}");
    }
}

#[test]
fn a_token_is_made_without_any_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["token", "create", "--user", "ada", "--data-dir", dir.path().to_str().unwrap()];
    let output = run(&args, &[]);
    assert_eq!(text(&output.stderr), "");
    assert_eq!(text(&output.stdout).matches('.').count(), 2);
    let testing = run(&["token", "create", "--user", "ada", "--profile", "testing"], &[]);
    assert_eq!(testing.status.code(), Some(78));
}
