//! The names of the environment that the protocol's documents give, with their units.
//!
//! They are weaker than the `ROOMKEEPER_…` names.

use std::collections::BTreeMap;

use super::error::Problem;
use super::layer::{Entry, Origin};
use super::schema::{self, Kind, Raw};

/// What a name's number counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unit {
    /// Thousands of the setting's unit.
    Seconds,
    /// The setting's own unit.
    Milliseconds,
}

impl Unit {
    /// As the documentation says it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Milliseconds => "milliseconds",
        }
    }

    const fn ms(self) -> u64 {
        match self {
            Self::Seconds => 1_000,
            Self::Milliseconds => 1,
        }
    }
}

/// A name for a setting.
#[derive(Clone, Copy, Debug)]
pub struct Documented {
    /// The variable.
    pub name: &'static str,
    /// The setting, which is in milliseconds.
    pub key: &'static str,
    /// What the variable counts.
    pub unit: Unit,
}

const fn name(name: &'static str, key: &'static str, unit: Unit) -> Documented {
    Documented { name, key, unit }
}

/// The names that set something.
pub const NAMES: [Documented; 5] = [
    name("WS_HEARTBEAT_INTERVAL_MS", "heartbeat.interval_ms", Unit::Milliseconds),
    name("WS_CONNECTION_TIMEOUT_MS", "heartbeat.timeout_ms", Unit::Milliseconds),
    name("WEBSOCKET_HEARTBEAT_INTERVAL", "channels.heartbeat_interval_ms", Unit::Seconds),
    name("WEBSOCKET_CLEANUP_INTERVAL", "channels.cleanup_interval_ms", Unit::Seconds),
    name("WEBSOCKET_CONNECTION_TIMEOUT", "channels.connection_timeout_ms", Unit::Seconds),
];

/// The names that set a text, which may hold a password.
pub const TEXTS: [(&str, &str); 3] = [
    ("REDIS_URL", "redis.url"),
    ("REDIS_PASSWORD", "redis.password"),
    ("DATABASE_URL", "store.url"),
];

/// Whether this is one of the names.
#[must_use]
pub fn is_name(variable: &str) -> bool {
    NAMES.iter().any(|documented| documented.name == variable)
        || TEXTS.iter().any(|(name, _)| *name == variable)
}

/// The values of the environment under these names; an empty variable counts as not set.
///
/// # Errors
/// Each value that is no number of its unit within the setting's range.
pub fn entries(variables: &BTreeMap<String, String>) -> Result<Vec<Entry>, Vec<Problem>> {
    let (mut entries, mut problems) = (Vec::new(), Vec::new());
    let value = |name: &str| variables.get(name).filter(|value| !value.is_empty());
    for (name, key) in TEXTS {
        let Some(text) = value(name) else { continue };
        let path = key.split('.').map(str::to_owned).collect();
        let (raw, origin) = (Raw::Untyped(text.clone()), Origin::Environment(name.to_owned()));
        entries.push(Entry { path, raw, origin });
    }
    for documented in NAMES {
        let Some(text) = value(documented.name) else { continue };
        match read(documented, text) {
            Ok(entry) => entries.push(entry),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(entries) } else { Err(problems) }
}

fn read(documented: Documented, text: &str) -> Result<Entry, Problem> {
    let Documented { name, key, unit } = documented;
    let path: Vec<String> = key.split('.').map(str::to_owned).collect();
    let (least, most) = range(&path, unit);
    let number = text.parse::<u64>().ok().filter(|number| (least..=most).contains(number));
    let origin = Origin::Environment(name.to_owned());
    match number {
        Some(number) => {
            let raw = Raw::Untyped((number * unit.ms()).to_string());
            Ok(Entry { path, raw, origin })
        }
        None => Err(Problem {
            key: key.to_owned(),
            value: Some(super::effective::shown_raw(&Raw::Untyped(text.to_owned()), false)),
            reason: format!("must be a whole number of {} from {least} to {most}", unit.word()),
            origin: Some(origin),
        }),
    }
}

/// What the setting allows, in the variable's unit. 0 is a word of ours ("as it follows from
/// another setting") and not one of the documents.
fn range(path: &[String], unit: Unit) -> (u64, u64) {
    match schema::find(path).map(|key| key.kind) {
        Some(Kind::Number(min, max)) => (min.div_ceil(unit.ms()).max(1), max / unit.ms()),
        _ => (1, 0),
    }
}
