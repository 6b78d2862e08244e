//! The settings: read from layers, checked, and each traceable to its source.
//!
//! Whatever is unknown, mistyped, out of range, contradictory or unsafe stops the start; nothing
//! is guessed, corrected or ignored. What loading needs from the process is an argument.
//!
//! Suggested reading order: [`tree`], [`schema`], [`layer`], [`documented`], [`error`],
//! [`effective`], [`checks`], [`secrets`], [`tokens`], [`tickets`], [`tls`], [`policies`], [`redis`], [`store`], [`reload`],
//! [`docs`].

pub mod checks;
pub mod docs;
pub mod documented;
pub mod documents;
pub mod effective;
pub mod error;
pub mod kind;
pub mod layer;
pub mod namespaces;
pub mod policies;
pub mod redis;
pub mod reload;
pub mod schema;
pub mod secrets;
pub mod store;
pub mod tickets;
pub mod tls;
pub mod tokens;
pub mod tree;

use std::collections::BTreeMap;
use std::path::PathBuf;

use config::{Config, ConfigError, Map, Source, Value, ValueKind};

pub use documents::{Channels, Chat, Game, Lobby, Messages};
pub use effective::Effective;
pub use error::{Problem, SettingsError};
pub use layer::FlagValue;
pub use namespaces::{AccessWord, ClassWord, Namespace};
pub use policies::to_policies;
pub use redis::Redis;
pub use store::Store;
pub use tree::{
    Api, ApiKey, Auth, Heartbeat, History, Limits, Log, LogFormat, Matches, Profile, Server,
    Settings, Tls, Traces,
};

use layer::{Entry, Origin};
use schema::{Raw, Typed};

/// The built-in value of every setting, with what it means.
pub const DEFAULTS: &str = include_str!("defaults.toml");
const DEVELOPMENT: &str = include_str!("development.toml");
const PRODUCTION: &str = include_str!("production.toml");
const TESTING: &str = include_str!("testing.toml");
const TESTING_ON_DISK: &str = include_str!("testing_on_disk.toml");

/// What the operator gives.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// The files of `--config`, in their order.
    pub files: Vec<PathBuf>,
    /// The variables of the environment; others than `ROOMKEEPER_*` and those of [`documented`]
    /// are not looked at.
    pub environment: BTreeMap<String, String>,
    /// The flags that set a key, in their order.
    pub flags: Vec<FlagValue>,
}

/// Settings that may be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub settings: Settings,
    /// Each value in a form that may be shown, with its source.
    pub effective: Effective,
    /// What is not wrong enough to stop the start.
    pub warnings: Vec<String>,
}

/// The variables of this process that may be settings. Bytes that are not Unicode become U+FFFD.
#[must_use]
pub fn environment_of_process() -> BTreeMap<String, String> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into(), value.to_string_lossy().into()))
        .filter(|(name, _): &(String, String)| {
            name.starts_with(layer::ENVIRONMENT_PREFIX) || documented::is_name(name)
        })
        .collect()
}

/// Reads, merges and checks all layers.
///
/// # Errors
/// Everything that is wrong at the first step that finds something: files and flags that cannot
/// be read, then single values, then secrets' files, then values that do not go together.
pub fn load(given: &Given) -> Result<Loaded, SettingsError> {
    let layers = layers(given)?;
    let (typed, effective) = check_values(layers)?;
    let mut settings = merge(typed)?;
    let mut warnings = secrets::read_files(&mut settings, &effective)?;
    let mut problems = checks::find(&settings, &effective);
    let (wrong_tls, warning) = tls::check(&settings, &effective);
    problems.extend(wrong_tls);
    warnings.extend(warning);
    if problems.is_empty() {
        Ok(Loaded { settings, effective, warnings })
    } else {
        Err(SettingsError { problems })
    }
}

/// All layers, the weakest first.
fn layers(given: &Given) -> Result<Vec<Vec<Entry>>, SettingsError> {
    let mut outer = Vec::new();
    for file in &given.files {
        outer.push(layer::from_file(file)?);
    }
    let documented = documented::entries(&given.environment);
    outer.push(documented.map_err(|problems| SettingsError { problems })?);
    outer.push(layer::from_environment(&given.environment));
    let flags = layer::from_flags(&given.flags);
    outer.push(flags.map_err(|problems| SettingsError { problems })?);

    // A profile that is no profile is found with all other values.
    let profile =
        last_text(&outer, &["profile"]).and_then(Profile::parse).unwrap_or(Profile::Development);
    let text = match profile {
        Profile::Development => DEVELOPMENT,
        Profile::Production => PRODUCTION,
        Profile::Testing => TESTING,
    };
    let origin = Origin::Profile(profile.word());
    let mut layers =
        vec![layer::built_in(DEFAULTS, &Origin::Default), layer::built_in(text, &origin)];
    let on_disk = last_text(&outer, &["server", "data_dir"]).is_some_and(|dir| !dir.is_empty());
    if profile == Profile::Testing && on_disk {
        layers.push(layer::built_in(TESTING_ON_DISK, &origin));
    }
    layers.extend(outer);
    Ok(layers)
}

fn last_text<'a>(layers: &'a [Vec<Entry>], path: &[&str]) -> Option<&'a str> {
    let entry = layers.iter().flatten().rev().find(|entry| entry.path == path)?;
    match &entry.raw {
        Raw::Untyped(text) | Raw::Typed(Typed::Text(text)) => Some(text),
        Raw::Typed(_) | Raw::Other(_) | Raw::EmptySection => None,
    }
}

/// One layer whose values have their types.
#[derive(Clone, Debug, Default)]
struct TypedLayer {
    tree: Map<String, Value>,
}

impl Source for TypedLayer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.tree.clone())
    }
}

/// Gives each value its type, or says what is wrong with it.
fn check_values(layers: Vec<Vec<Entry>>) -> Result<(Vec<TypedLayer>, Effective), SettingsError> {
    let (mut typed_layers, mut effective) = (Vec::new(), Effective::default());
    let mut problems = Vec::new();
    for entries in layers {
        let mut layer = TypedLayer::default();
        for entry in entries {
            match check_value(&entry) {
                Ok(None) => insert(&mut layer.tree, &entry.path, empty_table()),
                Ok(Some((typed, secret))) => {
                    insert(&mut layer.tree, &entry.path, value_of(&typed));
                    effective.set(layer::written(&entry.path), &typed, secret, entry.origin);
                }
                Err(problem) => problems.push(problem),
            }
        }
        typed_layers.push(layer);
    }
    if problems.is_empty() {
        Ok((typed_layers, effective))
    } else {
        Err(SettingsError { problems })
    }
}

/// The typed value and whether it is secret; nothing for a section without settings.
fn check_value(entry: &Entry) -> Result<Option<(Typed, bool)>, Problem> {
    let problem = |value: Option<String>, reason: String| Problem {
        key: layer::written(&entry.path),
        value,
        reason,
        origin: Some(entry.origin.clone()),
    };
    let Some(key) = schema::find(&entry.path) else {
        if !schema::is_section(&entry.path) {
            return Err(problem(None, unknown(&entry.path)));
        }
        return match (&entry.raw, schema::name_fault(&entry.path)) {
            (_, Some(fault)) => Err(problem(None, fault)),
            (Raw::EmptySection, None) => Ok(None),
            _ => Err(problem(None, "is a section, not a setting".to_owned())),
        };
    };
    if let Some(fault) = schema::name_fault(&entry.path) {
        return Err(problem(None, fault));
    }
    let secret = key.kind.is_secret();
    let typed = key
        .kind
        .read(&entry.raw)
        .map_err(|reason| problem(Some(effective::shown_raw(&entry.raw, secret)), reason))?;
    Ok(Some((typed, secret)))
}

fn unknown(path: &[String]) -> String {
    schema::nearest(path).map_or_else(
        || "there is no such setting".to_owned(),
        |nearest| format!("there is no such setting; did you mean {nearest}?"),
    )
}

fn merge(layers: Vec<TypedLayer>) -> Result<Settings, SettingsError> {
    let mut builder = Config::builder();
    for layer in layers {
        builder = builder.add_source(layer);
    }
    // Single values are checked by now; what is left is a key that the types know and the list
    // of settings does not, or the other way round, which a test rules out.
    let merged = builder.build().map_err(|e| internal(String::new(), &e))?;
    serde_path_to_error::deserialize(merged)
        .map_err(|error| internal(error.path().to_string(), error.inner()))
}

fn internal(key: String, error: &ConfigError) -> SettingsError {
    Problem::about(key, format!("cannot be used: {error}")).into()
}

fn insert(tree: &mut Map<String, Value>, path: &[String], value: Value) {
    match path {
        [] => {}
        [last] => {
            tree.insert(last.clone(), value);
        }
        [first, rest @ ..] => {
            let child = tree.entry(first.clone()).or_insert_with(empty_table);
            if let ValueKind::Table(inner) = &mut child.kind {
                insert(inner, rest, value);
            }
        }
    }
}

fn empty_table() -> Value {
    Value::new(None, ValueKind::Table(Map::new()))
}

fn value_of(typed: &Typed) -> Value {
    let kind = match typed {
        Typed::Flag(flag) => ValueKind::Boolean(*flag),
        Typed::Number(number) => ValueKind::U64(*number),
        Typed::Text(text) => ValueKind::String(text.clone()),
        Typed::List(items) => {
            let items = items.iter().map(|i| Value::new(None, ValueKind::String(i.clone())));
            ValueKind::Array(items.collect())
        }
    };
    Value::new(None, kind)
}

#[cfg(test)]
mod contradiction_tests;
#[cfg(test)]
mod docs_tests;
#[cfg(test)]
mod documented_tests;
#[cfg(test)]
mod production_tests;
#[cfg(test)]
mod reload_tests;
#[cfg(test)]
mod tests;
