//! What an archive is built from. Nothing here may read a file or the environment.

use std::path::PathBuf;

/// The database's name in the data directory, unless the configuration gives another.
pub const FILE_NAME: &str = "roomkeeper.db";

/// Where the log is and how much may wait for it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// Where the log is.
    pub place: Place,
    /// How much may wait, and how much is committed at once.
    pub limits: Limits,
}

impl Config {
    /// A log in a directory, under the usual name, with the usual limits.
    #[must_use]
    pub fn in_directory(path: impl Into<PathBuf>) -> Self {
        let file_name = FILE_NAME.to_owned();
        let place = Place::Directory { path: path.into(), file_name };
        Self { place, limits: Limits::default() }
    }

    /// A log that ends with its archive, with the usual limits.
    #[must_use]
    pub fn in_memory() -> Self {
        Self { place: Place::Memory, limits: Limits::default() }
    }
}

/// Where a log is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// In a file; survives whatever the disk survives.
    Directory {
        /// The data directory; made if it is missing, and locked while the archive is open.
        path: PathBuf,
        /// The database's name in it.
        file_name: String,
    },
    /// Nowhere else; for tests. One connection serves reads and writes alike.
    Memory,
}

/// How much may wait to be written, and how much one transaction takes. A single call may pass a
/// limit when nothing else waits: refused, it could never be made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// The most records that may wait; more are refused as overload.
    pub queue_records_max: usize,
    /// The most bytes that may wait; more are refused as overload.
    pub queue_bytes_max: usize,
    /// Where a transaction stops taking calls: beyond this, a larger group saves no more time
    /// and everyone in it waits longer.
    pub batch_records_max: usize,
    /// The same in bytes, so that large messages do not make a long transaction either.
    pub batch_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Well under a second of work for one disk; what waits longer is better refused.
            queue_records_max: 32_768,
            queue_bytes_max: 64 * 1024 * 1024,
            batch_records_max: 2_000,
            batch_bytes_max: 4 * 1024 * 1024,
        }
    }
}
