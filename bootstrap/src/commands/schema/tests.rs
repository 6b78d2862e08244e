//! The files in `protocol/` are what this command makes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use domain::protocol::catalog::{COMMANDS, FRAMES};
use serde_json::Value;

use super::json::Json;
use super::types::named;
use super::*;

fn committed(format: SchemaFormat) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol").join(format.file_name())
}

#[test]
fn the_committed_files_are_those_that_are_made_from_the_code() {
    for format in SchemaFormat::ALL {
        let path = committed(format);
        let file = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}: run `{COMMAND}`", path.display()));
        let made = format.document();
        let differs = file.lines().zip(made.lines()).position(|(old, new)| old != new);
        assert!(
            file == made,
            "protocol/{} is not what the code says (first at line {:?}): run `{COMMAND}` and look \
             at what has changed",
            format.file_name(),
            differs.map_or(file.lines().count().min(made.lines().count()), |line| line) + 1,
        );
    }
}

#[test]
fn every_name_in_the_documents_means_one_thing() {
    let frames = COMMANDS.iter().chain(FRAMES).map(|frame| frame.record.name);
    let built_in = ["HostCommand", "Tags", "Condition", "ErrorCode", "ErrorWord", "CloseCode"];
    let others = ["CloseReason", "Limits", "ClientFrame", "ServerFrame"];
    let all: Vec<_> = frames
        .chain(named().into_iter().map(super::types::Named::name))
        .chain(built_in)
        .chain(others)
        .collect();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{all:?}");
}

#[test]
fn every_answer_of_a_command_is_a_frame() {
    for command in COMMANDS {
        for answer in command.answers {
            assert!(FRAMES.iter().any(|frame| frame.record.name == *answer), "{answer}");
        }
    }
}

#[test]
fn what_is_written_is_json_with_the_same_values_in_the_same_order() {
    let value = super::json::object([
        ("z", Json::from(false)),
        ("a\"", vec![Json::from(1), "two\n".into(), true.into()].into()),
        ("long", super::json::texts(["x"; 60])),
    ]);
    let text = value.to_text();
    let read: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(read["a\""], serde_json::json!([1, "two\n", true]));
    assert_eq!((&read["z"], read["long"].as_array().unwrap().len()), (&Value::Bool(false), 60));
    assert!(text.find("\"z\"").unwrap() < text.find("\"long\"").unwrap());
    assert!(text.lines().all(|line| line.len() <= 100), "{text}");
}

#[test]
fn files_are_written_into_a_directory_that_exists_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut out = Vec::new();
    write(dir.path(), &mut out).unwrap();
    let said = String::from_utf8(out).unwrap();
    for format in SchemaFormat::ALL {
        let text = fs::read_to_string(dir.path().join(format.file_name())).unwrap();
        assert_eq!(text, format.document());
        assert!(said.contains(format.file_name()));
    }
    let missing = dir.path().join("missing");
    let error = write(&missing, &mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(error.to_string().contains("missing"), "{error}");
}
