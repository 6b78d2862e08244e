//! Keeps `defaults.toml`, the list of settings and `docs/configuration.md` the same.
//!
//! `UPDATE_DOCS=1 cargo test -p bootstrap` writes the document's generated part anew.

use super::docs::{markdown, rows};
use super::schema::{self, KEYS};
use super::*;

const BEGIN: &str = "<!-- generated from bootstrap/src/defaults.toml -->\n";
const END: &str = "<!-- end of the generated part -->\n";

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
        rows().iter().filter(|row| !row.about.is_empty()).map(docs::Row::path).collect();
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
    let wanted = format!("\n{}\n", markdown());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(file, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(now, wanted, "run UPDATE_DOCS=1 cargo test -p bootstrap");
}
