//! All settings as tables in Markdown: the one source of what the documentation says of them.
//!
//! It is made from `defaults.toml`, whose comments are the explanations, and the list of settings.
//! Nothing about a setting may be written here.

use std::fmt::Write;

use super::documented;
use super::layer::{self, Entry, Origin};
use super::schema::KEYS;
use super::{DEFAULTS, DEVELOPMENT, PRODUCTION, TESTING, effective, reload};

/// One line of the commented text that sets a key.
#[derive(Debug)]
pub(super) struct Row {
    section: String,
    key: String,
    /// Empty for a key without a value.
    default: String,
    /// Empty where the key was explained before.
    pub(super) about: String,
}

impl Row {
    /// The key as the list of settings writes it.
    pub(super) fn path(&self) -> String {
        let section = match self.section.split_once('.') {
            Some(("namespaces" | "rooms", _)) => "namespaces.*",
            Some(("api", _)) => "api.keys.*",
            _ => &self.section,
        };
        if section.is_empty() { self.key.clone() } else { format!("{section}.{}", self.key) }
    }
}

/// Reads the commented text: an explanation above each key, keys without a value behind `#`.
pub(super) fn rows() -> Vec<Row> {
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

/// All settings, what the profiles change, and the names that the protocol's documents give.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::new();
    settings(&mut text);
    profiles(&mut text);
    names(&mut text);
    text
}

// Writing to a String cannot fail, so the results below say nothing.

fn settings(text: &mut String) {
    text.push_str("| key | built-in value | allowed | reload | meaning |\n|---|---|---|---|---|\n");
    for row in rows().iter().filter(|row| !row.about.is_empty()) {
        let path = row.path();
        let Some(key) = KEYS.iter().find(|key| key.path == path) else { continue };
        // What a built-in namespace has says nothing about the others.
        let built_in = if path.contains('*') || row.default.is_empty() {
            String::new()
        } else {
            format!("`{}`", row.default)
        };
        let (allowed, about) = (cell(&key.kind.allowed()), cell(&row.about));
        let reload = reload::of(&path).word();
        let _ = writeln!(text, "| `{path}` | {built_in} | {allowed} | {reload} | {about} |");
    }
}

fn profiles(text: &mut String) {
    text.push_str(
        "\n| section | key | development | production | testing |\n|---|---|---|---|---|\n",
    );
    let profiles = [DEVELOPMENT, PRODUCTION, TESTING].map(|t| layer::built_in(t, &Origin::Default));
    let value = |entries: &[Entry], path: &[String]| {
        let entry = entries.iter().find(|entry| entry.path == path)?;
        Some(format!("`{}`", effective::shown_raw(&entry.raw, false)))
    };
    let mut seen: Vec<&[String]> = Vec::new();
    for entry in profiles.iter().flatten() {
        if seen.contains(&&*entry.path) {
            continue;
        }
        seen.push(&entry.path);
        let Some((key, section)) = entry.path.split_last() else { continue };
        let cells = profiles.each_ref().map(|p| value(p, &entry.path).unwrap_or_default());
        let (section, cells) = (section.join("."), cells.join(" | "));
        let _ = writeln!(text, "| `{section}` | `{key}` | {cells} |");
    }
}

fn names(text: &mut String) {
    text.push_str("\n| variable | counts | sets |\n|---|---|---|\n");
    for documented::Documented { name, key, unit } in documented::NAMES {
        let unit = unit.word();
        let _ = writeln!(text, "| `{name}` | {unit} | `{key}` |");
    }
    for (name, key) in documented::TEXTS {
        let _ = writeln!(text, "| `{name}` |  | `{key}` |");
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;").replace('*', "\\*")
}
