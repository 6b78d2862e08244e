//! `roomkeeper schema`: the protocol for machines, made from the catalogue of its frames.
//!
//! It must never add anything to what the catalogue and the tables of codes say, but for the form.

mod asyncapi;
mod json;
mod json_schema;
mod types;
mod typescript;

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use crate::cli::SchemaFormat;

/// How the files are made again; also what a test says when they are old.
pub const COMMAND: &str = "cargo run -- schema --write protocol";

impl SchemaFormat {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::Json, Self::Typescript, Self::Asyncapi];

    /// The name of the file that `--write` makes.
    #[must_use]
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Json => "roomkeeper.schema.json",
            Self::Typescript => "roomkeeper.ts",
            Self::Asyncapi => "asyncapi.json",
        }
    }

    /// The document, with a line break at its end.
    #[must_use]
    pub fn document(self) -> String {
        match self {
            Self::Json => json_schema::document().to_text(),
            Self::Typescript => typescript::document(),
            Self::Asyncapi => asyncapi::document().to_text(),
        }
    }
}

/// Prints one document.
///
/// # Errors
/// The writer's.
pub fn print(format: SchemaFormat, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(format.document().as_bytes())
}

/// Writes all documents as files into a directory, which must exist, and says so.
///
/// # Errors
/// Those of the directory, with the path in their words, and the writer's.
pub fn write(dir: &Path, out: &mut dyn Write) -> io::Result<()> {
    for format in SchemaFormat::ALL {
        let path = dir.join(format.file_name());
        fs::write(&path, format.document()).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        })?;
        writeln!(out, "{}", path.display())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
