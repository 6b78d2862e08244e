//! What is wrong with the settings: one line each, saying key, value, reason and source.
//!
//! A line must never hold a secret's value, and never a control character of somebody's input.

use std::fmt;

use super::layer::Origin;

/// One thing that stops the start.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The key, or what else is meant.
    pub key: String,
    /// The value in a form that may be shown; none when it is not known or not to be shown.
    pub value: Option<String>,
    /// Why it is not accepted, and what would be.
    pub reason: String,
    /// Where the value comes from.
    pub origin: Option<Origin>,
}

impl Problem {
    /// A problem with something that has no value or source of its own.
    #[must_use]
    pub const fn about(key: String, reason: String) -> Self {
        Self { key, value: None, reason, origin: None }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = self.key.clone();
        if let Some(value) = &self.value {
            line = format!("{line} = {value}");
        }
        if let Some(origin) = &self.origin {
            line = format!("{line} (from {origin})");
        }
        line = format!("{line}: {}", self.reason);
        for c in line.chars() {
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

/// Everything that stops the start; the exit code is 78.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SettingsError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl From<Problem> for SettingsError {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SettingsError {}
