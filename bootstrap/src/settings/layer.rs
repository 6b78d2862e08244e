//! One layer of settings: what a file, the environment or the flags say, with where each value
//! stands.
//!
//! A layer knows no other layer. It must never read the process's environment by itself, and the
//! text of a file never gets into a message, because a secret may stand beside the mistake.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::error::Problem;
use super::schema::{self, Raw, Typed};

/// The largest file that is read as settings or as a secret.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// What the names of the environment's variables start with.
pub const ENVIRONMENT_PREFIX: &str = "ROOMKEEPER_";

/// Where a value comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    /// The built-in defaults.
    Default,
    /// The values of a profile, by its name.
    Profile(&'static str),
    /// A file.
    File {
        /// Its path as it was given.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// A variable of the environment, by its name.
    Environment(String),
    /// A flag, as it is written.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("built-in default"),
            Self::Profile(name) => write!(f, "profile {name}"),
            Self::File { path, line } => write!(f, "file {}, line {line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// One value of a layer.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The parts of its key.
    pub path: Vec<String>,
    /// The value.
    pub raw: Raw,
    /// Where it stands.
    pub origin: Origin,
}

/// A text that belongs to a flag.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FlagValue {
    /// The flag as it is written, like `--listen`.
    pub flag: &'static str,
    /// The key it sets, like `server.listen`.
    pub key: String,
    /// The value.
    pub value: String,
}

/// The values of a text that is part of the program.
#[must_use]
pub fn built_in(text: &str, origin: &Origin) -> Vec<Entry> {
    // A mistake in these texts is found by the tests; here it shows as settings that are missing.
    parse(text, &|_| origin.clone()).unwrap_or_default()
}

/// The values of a file.
///
/// # Errors
/// The file cannot be read, is too large, or is not TOML.
pub fn from_file(path: &Path) -> Result<Vec<Entry>, Problem> {
    let fault = |reason: String| Problem::about(format!("file {}", path.display()), reason);
    let text = read_text(path).map_err(&fault)?;
    let origin = |at: usize| Origin::File { path: path.to_owned(), line: line_of(&text, at) };
    parse(&text, &origin).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(&text, span.start));
        // Only the first line of the message: the others quote the file.
        let message = error.message().lines().next().unwrap_or("is not TOML").to_owned();
        fault(format!("line {line} is not TOML: {message}"))
    })
}

/// Reads a file of a sensible size.
///
/// # Errors
/// Why it cannot be read, in words.
pub fn read_text(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    let bytes = read.map_err(|error| format!("cannot be read: {error}"))?;
    if bytes as u64 > FILE_BYTES_MAX {
        return Err(format!("is larger than {FILE_BYTES_MAX} bytes"));
    }
    Ok(text)
}

/// The values of the environment; an empty variable counts as not set. A variable without `__`
/// is a setting only when a key has no section, since others put such variables there: Kubernetes
/// sets `ROOMKEEPER_PORT` for a service of that name.
#[must_use]
pub fn from_environment(variables: &BTreeMap<String, String>) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (name, value) in variables {
        let Some(key) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
        let path: Vec<String> = key.split("__").map(str::to_lowercase).collect();
        let is_setting = path.len() > 1 || schema::find(&path).is_some();
        if value.is_empty() || !is_setting {
            continue;
        }
        let origin = Origin::Environment(name.clone());
        entries.push(Entry { path, raw: Raw::Untyped(value.clone()), origin });
    }
    entries
}

/// The values of the flags.
///
/// # Errors
/// Each flag whose key cannot be a key.
pub fn from_flags(flags: &[FlagValue]) -> Result<Vec<Entry>, Vec<Problem>> {
    let (mut entries, mut problems) = (Vec::new(), Vec::new());
    for FlagValue { flag, key, value } in flags {
        let origin = Origin::Flag((*flag).to_owned());
        match dotted(key) {
            Some(path) => {
                entries.push(Entry { path, raw: Raw::Untyped(value.clone()), origin });
            }
            None => problems.push(Problem {
                key: format!("{key:?}"),
                value: None,
                reason:
                    "is not a key; write it like server.listen or rooms.\"chat:global\".publish"
                        .to_owned(),
                origin: Some(origin),
            }),
        }
    }
    if problems.is_empty() { Ok(entries) } else { Err(problems) }
}

/// Joins the parts of a key as TOML writes them.
#[must_use]
pub fn written(path: &[String]) -> String {
    let bare = |part: &String| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    };
    let parts = path.iter().map(|part| if bare(part) { part.clone() } else { format!("{part:?}") });
    parts.collect::<Vec<_>>().join(".")
}

/// Splits a key as TOML does, so that a quoted part may hold dots.
fn dotted(key: &str) -> Option<Vec<String>> {
    if key.contains(['\n', '\r', '=', '#']) {
        return None;
    }
    let text = format!("{key} = 0");
    let mut entries = parse(&text, &|_| Origin::Default).ok()?;
    entries.pop().filter(|_| entries.is_empty()).map(|entry| entry.path)
}

fn parse(text: &str, origin: &dyn Fn(usize) -> Origin) -> Result<Vec<Entry>, toml::de::Error> {
    let mut entries = Vec::new();
    flatten(DeTable::parse(text)?.get_ref(), &mut Vec::new(), origin, &mut entries);
    Ok(entries)
}

fn flatten(
    table: &DeTable<'_>,
    path: &mut Vec<String>,
    origin: &dyn Fn(usize) -> Origin,
    entries: &mut Vec<Entry>,
) {
    for (key, value) in table {
        path.push(key.get_ref().to_string());
        match value.get_ref() {
            DeValue::Table(inner) if !inner.is_empty() => flatten(inner, path, origin, entries),
            leaf => entries.push(Entry {
                path: path.clone(),
                raw: raw(leaf),
                origin: origin(key.span().start),
            }),
        }
        path.pop();
    }
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::Boolean(flag) => Raw::Typed(Typed::Flag(*flag)),
        DeValue::String(text) => Raw::Typed(Typed::Text(text.to_string())),
        DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(
                |_| Raw::Other(number.as_str().to_owned()),
                |n| Raw::Typed(Typed::Number(n)),
            ),
        DeValue::Array(items) => {
            let texts = items.iter().map(|item| item.get_ref().as_str().map(str::to_owned));
            texts.collect::<Option<Vec<_>>>().map_or_else(
                || Raw::Other("a list that holds something else than texts".to_owned()),
                |texts| Raw::Typed(Typed::List(texts)),
            )
        }
        DeValue::Float(number) => Raw::Other(number.as_str().to_owned()),
        DeValue::Datetime(time) => Raw::Other(time.to_string()),
        DeValue::Table(_) => Raw::EmptySection,
    }
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count()
}
