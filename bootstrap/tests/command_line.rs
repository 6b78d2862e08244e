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
fn what_the_binary_is_can_be_read_by_a_machine() {
    let output = run(&["version", "--json"], &[]);
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert!(version["rustc"].as_str().unwrap().starts_with("rustc 1."), "{version}");
    assert_eq!(version["protocols"], serde_json::json!(["roomkeeper.v2"]));
    let commit = &version["commit"];
    assert!(commit.is_null() || commit.as_str().is_some_and(|c| c.len() >= 7), "{version}");
    assert!(version["features"].is_array() && version["target"].is_string(), "{version}");
}

#[test]
fn each_shell_gets_completions_that_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(&["completions", shell], &[]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        let script = text(&output.stdout);
        for word in ["subscribe", "health", "inspect", "data-dir"] {
            assert!(script.contains(word), "{word} is missing for {shell}");
        }
    }
    assert_eq!(run(&["completions", "cmd"], &[]).status.code(), Some(2));
}

#[test]
fn the_manual_page_is_printed_and_a_directory_that_is_not_there_is_named() {
    let output = run(&["man"], &[]);
    let page = text(&output.stdout);
    assert!(page.contains(".TH roomkeeper 1") && page.contains("Exit codes"), "{page}");
    let output = run(&["man", "--dir", "/nowhere/man"], &[]);
    assert_eq!(output.status.code(), Some(74));
    assert!(text(&output.stderr).contains("/nowhere/man"), "{}", text(&output.stderr));
}

#[test]
fn the_settings_are_documented_by_the_binary_as_in_the_document() {
    let printed = run(&["config", "docs"], &[]);
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    let document = std::fs::read_to_string(document).unwrap();
    assert!(document.contains(text(&printed.stdout)));
    for word in ["| `limits.commands_burst` |", "at once", "next start", "REDIS_URL"] {
        assert!(text(&printed.stdout).contains(word), "{word}");
    }
}

#[test]
fn a_token_is_looked_at_from_an_argument_the_environment_or_standard_input() {
    let dir = tempfile::tempdir().unwrap();
    let data = ["--data-dir", dir.path().to_str().unwrap()];
    let made = run(&[&["token", "create", "--user", "ada"], &data[..]].concat(), &[]);
    let token = text(&made.stdout).trim();
    let by_argument = run(&[&["token", "inspect", token], &data[..]].concat(), &[]);
    let by_environment =
        run(&[&["token", "inspect"], &data[..]].concat(), &[("ROOMKEEPER_TOKEN", token)]);
    for output in [by_argument, by_environment] {
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
        assert!(text(&output.stdout).contains("valid: user ada"), "{}", text(&output.stdout));
        assert!(!text(&output.stdout).contains(token.rsplit('.').next().unwrap()));
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let other = ["--data-dir", elsewhere.path().to_str().unwrap()];
    let output = run(&[&["token", "inspect", token], &other[..]].concat(), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("another secret or key"), "{}", text(&output.stdout));
    // Standard input is empty here.
    let output = run(&[&["token", "inspect", "-"], &data[..]].concat(), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "not valid: the token is malformed\n");
}

#[test]
fn a_server_that_does_not_answer_is_not_healthy() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    drop(taken);
    let output = run(&["health", "--listen", &address], &[]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains(&format!("http://{address}/readyz: does not answer")), "{said}");
    assert_eq!(run(&["health", "--listen", "nonsense"], &[]).status.code(), Some(78));
    assert_eq!(run(&["health", "--timeout", "0s"], &[]).status.code(), Some(2));
}

#[test]
fn a_database_that_is_no_postgres_stops_the_start_but_not_a_client() {
    let environment = [("DATABASE_URL", "mysql://user:hunter2@example/rooms")];
    for args in [&["serve"][..], &["config", "check"], &["config", "print"]] {
        let output = run(args, &environment);
        assert_eq!(output.status.code(), Some(78), "{args:?}");
        let said = text(&output.stderr);
        assert!(said.contains("DATABASE_URL") && said.contains("postgres://"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    assert_eq!(run(&["version"], &environment).status.code(), Some(0));
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
fn the_help_of_a_debugging_command_names_what_it_can_choose_by() {
    for (command, words) in [
        (
            "subscribe",
            &["--pattern", "'game:zone/*'", "--filter", "eq", "--since", "--presence"][..],
        ),
        ("publish", &["--tag", "NAME=VALUE", "lang=de", "--msg-id"]),
    ] {
        let output = run(&[command, "--help"], &[]);
        let help = text(&output.stdout);
        for word in words {
            assert!(help.contains(word), "{word} is missing in {help}");
        }
        let dir = tempfile::tempdir().unwrap();
        run(&["man", "--dir", dir.path().to_str().unwrap()], &[]);
        let page = dir.path().join(format!("roomkeeper-{command}.1"));
        let page = std::fs::read_to_string(page).unwrap().replace("\\-", "-");
        let fish = run(&["completions", "fish"], &[]);
        for word in words.iter().filter_map(|word| word.strip_prefix("--")) {
            assert!(page.contains(word), "{word} is missing in the page of {command}");
            assert!(text(&fish.stdout).contains(word), "{word} is missing in the completions");
        }
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
