//! `roomkeeper config`: the settings for people to look at.
//!
//! A secret's value is never printed; it is not even known here.

use std::io::{self, Write};

use crate::settings::{DEFAULTS, Loaded, docs};

/// `config check`: the settings are loaded, so they are right.
///
/// # Errors
/// The writer's.
pub fn check(loaded: &Loaded, out: &mut dyn Write) -> io::Result<()> {
    for warning in &loaded.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    writeln!(out, "the settings are right (profile {})", loaded.settings.profile)
}

/// `config print`: every setting that counts, with its source.
///
/// # Errors
/// The writer's.
pub fn print(loaded: &Loaded, out: &mut dyn Write) -> io::Result<()> {
    for (key, shown) in loaded.effective.iter() {
        write!(out, "{key} = {} # {}", shown.value, shown.origin)?;
        match &shown.overruled {
            Some((value, origin)) => writeln!(out, "; wins over {value} from {origin}")?,
            None => writeln!(out)?,
        }
    }
    Ok(())
}

/// `config docs`: all settings as tables in Markdown.
///
/// # Errors
/// The writer's.
pub fn docs(out: &mut dyn Write) -> io::Result<()> {
    out.write_all(docs::markdown().as_bytes())
}

/// `config default`: the built-in values with what they mean.
///
/// # Errors
/// The writer's.
pub fn default(out: &mut dyn Write) -> io::Result<()> {
    out.write_all(DEFAULTS.as_bytes())
}
