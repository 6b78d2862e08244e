//! The protocol for machines: what `roomkeeper schema` prints, read by others than ourselves, and
//! compared with what a running server says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::codes::{CloseCode, ErrorCode, should_reconnect};
use domain::protocol::VERSION;
use domain::protocol::catalog::{COMMANDS, FRAMES, LIMITS};
use jsonschema::Validator;
use serde_json::{Value, json};
use tests::foreign::{Tool, node, node_within, require};
use tests::server::{Server, exit_of};
use tests::token::{SECRET, claims, hs256, now, with_claim};

use crate::client::{PATH, secret};

/// The parser of AsyncAPI alone takes seconds on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn committed(name: &str) -> PathBuf {
    root().join("protocol").join(name)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn only_line(lines: &str) -> Value {
    serde_json::from_str(lines.trim()).unwrap_or_else(|error| panic!("{error}: {lines}"))
}

#[test]
fn the_binary_prints_and_writes_the_files_that_are_committed() {
    let dir = tempfile::tempdir().unwrap();
    let (code, _, stderr) = exit_of(&["schema", "--write", text(dir.path())]);
    assert_eq!(code, Some(0), "{stderr}");
    for (format, name) in [
        ("json", "roomkeeper.schema.json"),
        ("typescript", "roomkeeper.ts"),
        ("asyncapi", "asyncapi.json"),
    ] {
        let expected = fs::read_to_string(committed(name)).unwrap();
        let (code, printed, stderr) = exit_of(&["schema", format]);
        assert_eq!(code, Some(0), "{stderr}");
        assert!(printed == expected, "`roomkeeper schema {format}` is not protocol/{name}");
        assert!(fs::read_to_string(dir.path().join(name)).unwrap() == expected, "{name}");
    }
    let (code, _, stderr) = exit_of(&["schema"]);
    assert_eq!(code, Some(2), "{stderr}");
    let (code, _, stderr) = exit_of(&["schema", "--write", "/nowhere/at/all"]);
    assert_eq!((code, stderr.contains("/nowhere/at/all")), (Some(74), true), "{stderr}");
}

#[test]
fn the_types_compile_and_refuse_what_the_server_would_refuse() {
    if !require(Tool::ProtocolReaders) {
        return;
    }
    let project = root().join("tests/node/protocol/tsconfig.json");
    let said = node_within(PATIENCE, TSC, &["--project", text(&project)]);
    assert_eq!(said.trim(), "");
}

const TSC: &str = "node_modules/typescript/bin/tsc";

#[test]
fn the_compiled_tables_are_those_of_the_code() {
    if !require(Tool::ProtocolReaders) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let source = committed("roomkeeper.ts");
    let out = ["--outDir", text(dir.path()), "--target", "es2022", "--module", "esnext"];
    let _ = node_within(PATIENCE, TSC, &[&[text(&source), "--ignoreConfig"][..], &out].concat());
    // A module, whatever stands above it.
    let module = dir.path().join("roomkeeper.mjs");
    fs::rename(dir.path().join("roomkeeper.js"), &module).unwrap();
    let said = only_line(&node("protocol/tables.mjs", &["--module", text(&module)]));

    let map = |rows: Vec<(&str, u64)>| json!(rows.into_iter().collect::<BTreeMap<_, _>>());
    let errors = ErrorCode::ALL.map(|code| (code.word(), u64::from(code.number())));
    let closes = CloseCode::ALL.map(|code| (code.reason(), u64::from(code.number())));
    assert_eq!(said["version"], VERSION);
    assert_eq!(said["errors"], map(errors.into()));
    assert_eq!(said["closes"], map(closes.into()));
    assert_eq!(said["limits"], map(LIMITS.iter().map(|limit| (limit.name, limit.value)).collect()));
    let temporary = ErrorCode::ALL.into_iter().filter(|code| code.is_temporary());
    assert_eq!(said["temporary"], json!(temporary.map(ErrorCode::number).collect::<Vec<_>>()));
    let back = (0..5000).filter(|number| should_reconnect(*number)).collect::<Vec<_>>();
    assert_eq!(said["reconnect"], json!(back));
}

#[test]
fn the_parser_of_asyncapi_reads_the_document_without_a_fault() {
    if !require(Tool::ProtocolReaders) {
        return;
    }
    let file = committed("asyncapi.json");
    let lines = node_within(PATIENCE, "protocol/asyncapi.mjs", &["--file", text(&file)]);
    let said = only_line(&lines);
    assert_eq!((&said["version"], &said["addresses"]), (&json!("3.0.0"), &json!([PATH])));
    let names: BTreeSet<_> =
        said["messages"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let frames = COMMANDS.iter().chain(FRAMES).map(|frame| frame.record.name);
    assert_eq!(names, frames.chain(["HostCommand"]).collect());
    assert_eq!(said["operations"].as_array().unwrap().len(), names.len());
}

fn validator(schema: &Value, name: &str) -> Validator {
    let one = json!({
        "$schema": schema["$schema"],
        "$ref": format!("#/$defs/{name}"),
        "$defs": schema["$defs"],
    });
    jsonschema::validator_for(&one).unwrap()
}

/// Names of the frames that the catalogue lets answer a command, besides `error`.
fn answers_of(command: &str) -> &'static [&'static str] {
    let row = COMMANDS.iter().find(|frame| frame.record.name == command);
    row.unwrap_or_else(|| panic!("no row {command}")).answers
}

#[test]
fn every_frame_between_node_and_a_running_server_fits_the_schema() {
    if !require(Tool::ProtocolReaders) {
        return;
    }
    let server = Server::start(&[
        "--set",
        &secret(),
        "--set",
        "heartbeat.interval_ms=2000",
        "--set",
        "limits.history_page=2",
        "--set",
        "namespaces.public.patterns=true",
        // Whoever comes there is counted only.
        "--set",
        "namespaces.crowd.subscribe=anyone",
        "--set",
        "namespaces.crowd.presence=anyone",
        "--set",
        "namespaces.crowd.presence_named_max=0",
    ]);
    let ends_in = |seconds: u64| {
        hs256(SECRET, &with_claim(claims("ann", "public:*"), "exp", json!(now() + seconds)))
    };
    let file = committed("roomkeeper.schema.json");
    let lines = node_within(
        PATIENCE,
        "protocol/session.mjs",
        &[
            "--url",
            &server.ws(PATH),
            "--schema",
            text(&file),
            "--token",
            &ends_in(50),
            "--fresh",
            &ends_in(3600),
        ],
    );
    let schema: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let mut seen = BTreeSet::new();
    for line in lines.lines() {
        let said: Value = serde_json::from_str(line).unwrap();
        let name = said["definition"].as_str().unwrap().to_owned();
        if seen.insert(name.clone()) {
            // Ajv has seen all of them; a second reader has to agree on one of each.
            assert!(validator(&schema, &name).is_valid(&said["frame"]), "{line}");
        }
        if let Some(command) = said["answers"].as_str() {
            let is_answer = name == "ErrorFrame" || answers_of(command).contains(&&*name);
            assert!(is_answer, "{command} is answered by {line}");
        }
    }
    let is_inside =
        |name: &str| name == "TombstoneFrame" && lines.contains(r#""type":"tombstone""#);
    let of_protocol = COMMANDS.iter().chain(FRAMES).filter(|frame| frame.kind.is_some());
    let unseen: Vec<_> = of_protocol
        .map(|frame| frame.record.name)
        .filter(|name| !seen.contains(*name) && !is_inside(name))
        .collect();
    assert_eq!(unseen, [] as [&str; 0], "not met in the session");
}
