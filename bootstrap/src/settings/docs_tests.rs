//! Keeps `defaults.toml`, the list of settings and `docs/configuration.md` the same.
//!
//! `UPDATE_DOCS=1 cargo test -p bootstrap` writes the document's generated part anew.

use super::schema::{self, KEYS};
use super::*;

const BEGIN: &str = "<!-- generated from bootstrap/src/defaults.toml -->\n";
const END: &str = "<!-- end of the generated part -->\n";

struct Row {
    section: String,
    key: String,
    default: String,
    about: String,
}

/// Reads the commented text: an explanation above each key, keys without a value behind `#`.
fn rows() -> Vec<Row> {
    let (mut rows, mut section, mut about) = (Vec::new(), String::new(), Vec::new());
    for line in DEFAULTS.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            about.push(comment);
            continue;
        }
        let (line, is_set) = line.strip_prefix('#').map_or((line, true), |line| (line, false));
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if let Some((key, value)) = line.split_once(" = ") {
            let default = if is_set { value.to_owned() } else { String::new() };
            let (section, key) = (section.clone(), key.to_owned());
            rows.push(Row { section, key, default, about: about.join(" ") });
        }
        about.clear();
    }
    rows
}

/// The name of a section in the list of settings.
fn pattern(section: &str) -> String {
    match section.split_once('.') {
        Some(("namespaces" | "rooms", _)) => "namespaces.*".to_owned(),
        Some(("api", _)) => "api.keys.*".to_owned(),
        _ => section.to_owned(),
    }
}

fn path(row: &Row) -> String {
    let section = pattern(&row.section);
    if section.is_empty() { row.key.clone() } else { format!("{section}.{}", row.key) }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;").replace('*', "\\*")
}

fn generated() -> String {
    let mut text =
        String::from("| key | built-in value | allowed | meaning |\n|---|---|---|---|\n");
    for row in rows().iter().filter(|row| !row.about.is_empty()) {
        let path = path(row);
        let key = KEYS.iter().find(|key| key.path == path).unwrap();
        // What a built-in namespace has says nothing about the others.
        let built_in = if path.contains('*') || row.default.is_empty() {
            String::new()
        } else {
            format!("`{}`", row.default)
        };
        let (allowed, about) = (cell(&key.kind.allowed()), cell(&row.about));
        text.push_str(&format!("| `{path}` | {built_in} | {allowed} | {about} |\n"));
    }
    text.push_str(
        "\n| section | key | development | production | testing |\n|---|---|---|---|---|\n",
    );
    let profiles = [DEVELOPMENT, PRODUCTION, TESTING].map(|t| layer::built_in(t, &Origin::Default));
    let value = |entries: &[Entry], path: &[String]| {
        let entry = entries.iter().find(|entry| entry.path == path)?;
        Some(format!("`{}`", effective::shown_raw(&entry.raw, false)))
    };
    let mut seen: Vec<Vec<String>> = Vec::new();
    for entry in profiles.iter().flatten() {
        if seen.contains(&entry.path) {
            continue;
        }
        seen.push(entry.path.clone());
        let (key, section) = entry.path.split_last().unwrap();
        let cells = profiles.each_ref().map(|p| value(p, &entry.path).unwrap_or_default());
        text.push_str(&format!("| `{}` | `{key}` | {} |\n", section.join("."), cells.join(" | ")));
    }
    text
}

#[test]
fn the_built_in_texts_are_toml_and_hold_known_keys_only() {
    for text in [DEFAULTS, DEVELOPMENT, PRODUCTION, TESTING, TESTING_ON_DISK] {
        assert!(toml::from_str::<toml::Table>(text).is_ok());
        let entries = layer::built_in(text, &Origin::Default);
        assert!(!entries.is_empty());
        for entry in entries {
            assert!(schema::find(&entry.path).is_some(), "{:?}", entry.path);
        }
    }
}

#[test]
fn every_setting_is_explained_once_and_in_the_order_of_the_list() {
    let explained: Vec<String> =
        rows().iter().filter(|row| !row.about.is_empty()).map(path).collect();
    let listed: Vec<&str> = KEYS.iter().map(|key| key.path).collect();
    assert_eq!(explained, listed);
}

#[test]
fn every_setting_without_a_place_holder_has_a_built_in_value() {
    let defaults = layer::built_in(DEFAULTS, &Origin::Default);
    for key in KEYS.iter().filter(|key| !key.path.contains('*')) {
        let has = defaults.iter().any(|entry| layer::written(&entry.path) == key.path);
        assert!(has, "{}", key.path);
    }
}

#[test]
fn the_document_says_what_the_program_does() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    let text = std::fs::read_to_string(file).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (now, after) = rest.split_once(END).unwrap();
    let wanted = format!("\n{}\n", generated());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(file, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(now, wanted, "run UPDATE_DOCS=1 cargo test -p bootstrap");
}
