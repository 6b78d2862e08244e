//! Opening the log: directory, lock, database, schema.
//!
//! It must never open a directory that another server uses, and never touch a database whose
//! schema it does not know.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::migrate::MigrateError;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use thiserror::Error;

use crate::config::Place;
use crate::migrations::migrations;

/// Locked while the directory is in use. Its own file: locks on the database belong to SQLite.
const LOCK_FILE_NAME: &str = "roomkeeper.lock";

/// Connections that read. Reads are short and come from caches mostly, so a few are enough.
const READERS_MAX: u32 = 4;

/// How long a statement waits for SQLite's own lock. Only checkpoints and tools that look into
/// the file can hold it.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a read waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Rows that SQLite reads ahead of whoever asked: a page that ends by its bytes has loaded that
/// many in vain.
const ROWS_AHEAD_MAX: usize = 8;

/// Prepared statements kept per connection; there are fewer different ones.
const STATEMENTS_MAX: usize = 64;

/// The writer's page cache (negative means KiB). A group over a thousand rooms touches the last
/// page of each; over 100 to 1,000 rooms this measured about a tenth faster than SQLite's 2 MB.
const WRITER_CACHE_KIB: &str = "-16384";

/// The write-ahead log is cut to this after a burst.
const WAL_BYTES_MAX: &str = "67108864";

/// Why the archive could not be opened.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The file is not a database, or a damaged one.
    #[error(
        "{} is damaged or not a database; move it away together with its -wal and -shm files \
         (rooms then begin anew), or restore a copy",
        file.display()
    )]
    Corrupt {
        /// The database.
        file: PathBuf,
        /// What SQLite says.
        source: sqlx::Error,
    },
    /// The disk is full.
    #[error("the disk that holds {} is full; free some space and start again", path.display())]
    Full {
        /// What could not be written.
        path: PathBuf,
        /// What the system says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another server has the directory.
    #[error(
        "the data directory {} is in use by another server; stop that one, or give this one a \
         data directory of its own",
        directory.display()
    )]
    InUse {
        /// The data directory.
        directory: PathBuf,
    },
    /// The database was written by a newer version.
    #[error(
        "{} has schema version {version}, which this version does not know; start the newer \
         version that wrote it, or give another data directory",
        file.display()
    )]
    Newer {
        /// The database.
        file: PathBuf,
        /// The unknown version.
        version: i64,
    },
    /// The database could not be opened for any other reason.
    #[error("cannot open the database {}; the cause below says why", file.display())]
    Open {
        /// The database.
        file: PathBuf,
        /// What sqlx says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The directory cannot be made or written.
    #[error(
        "cannot write to {}; give the server's user write access to it, or give another data \
         directory",
        path.display()
    )]
    Unwritable {
        /// What could not be written.
        path: PathBuf,
        /// What the system says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The connections of an archive.
#[derive(Clone, Debug)]
pub(crate) struct Pools {
    pub(crate) writer: SqlitePool,
    /// None in memory: such a database belongs to its one connection.
    readers: Option<SqlitePool>,
}

impl Pools {
    /// Where reads go.
    pub(crate) fn readers(&self) -> &SqlitePool {
        self.readers.as_ref().unwrap_or(&self.writer)
    }

    /// Moves the write-ahead log into the database and closes all connections. Readers go first:
    /// the log can only be cut when nobody reads it.
    pub(crate) async fn close(&self) {
        if let Some(readers) = &self.readers {
            readers.close().await;
        }
        let checkpoint = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)");
        if let Err(error) = checkpoint.execute(&self.writer).await {
            // Nothing is lost: the log is read again at the next start.
            tracing::warn!(%error, "the write-ahead log could not be moved into the database");
        }
        self.writer.close().await;
    }
}

/// Opens the place and brings its schema up to date. The file is the lock on the directory.
pub(crate) async fn open(place: &Place) -> Result<(Pools, Option<File>), BuildError> {
    match place {
        Place::Directory { path, file_name } => {
            let lock = lock_directory(path)?;
            let file = path.join(file_name);
            let pools = open_file(&file).await?;
            sync_directory(path).map_err(|source| io_error(path, source))?;
            Ok((pools, Some(lock)))
        }
        Place::Memory => Ok((open_memory().await?, None)),
    }
}

async fn open_file(file: &Path) -> Result<Pools, BuildError> {
    create_private(file).map_err(|source| io_error(file, source))?;
    let options = SqliteConnectOptions::new().filename(file);
    let writing = common(options.clone())
        .journal_mode(SqliteJournalMode::Wal)
        // Each commit reaches the disk; see `SqliteArchive`.
        .synchronous(SqliteSynchronous::Full)
        .pragma("journal_size_limit", WAL_BYTES_MAX)
        .pragma("cache_size", WRITER_CACHE_KIB);
    let writer = pool(1).connect_with(writing).await.map_err(|e| sql_error(file, e))?;
    migrate(file, &writer).await?;
    forget_empty_rooms(&writer).await;
    let readers = pool(READERS_MAX)
        .connect_with(common(options).read_only(true).row_buffer_size(ROWS_AHEAD_MAX))
        .await
        .map_err(|e| sql_error(file, e))?;
    Ok(Pools { writer, readers: Some(readers) })
}

async fn open_memory() -> Result<Pools, BuildError> {
    let file = Path::new(":memory:");
    let options =
        SqliteConnectOptions::from_str("sqlite::memory:").map_err(|e| sql_error(file, e))?;
    let writer = pool(1).connect_with(common(options)).await.map_err(|e| sql_error(file, e))?;
    migrate(file, &writer).await?;
    Ok(Pools { writer, readers: None })
}

fn common(options: SqliteConnectOptions) -> SqliteConnectOptions {
    options
        .busy_timeout(BUSY_TIMEOUT)
        // The schema has none; the check would cost a look per row.
        .foreign_keys(false)
        .statement_cache_capacity(STATEMENTS_MAX)
        .disable_statement_logging()
}

fn pool(connections_max: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // A file does not hang up: connections neither age nor need a test before use.
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

async fn migrate(file: &Path, writer: &SqlitePool) -> Result<(), BuildError> {
    migrations().run(writer).await.map_err(|error| match error {
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => {
            sql_error(file, source)
        }
        MigrateError::VersionMissing(version) => {
            BuildError::Newer { file: file.to_owned(), version }
        }
        other => BuildError::Open { file: file.to_owned(), source: Box::new(other) },
    })
}

/// Forgets the rooms that were opened and never got a message: nothing was given out in their
/// epochs. Only before anybody can know one of them as open.
async fn forget_empty_rooms(writer: &SqlitePool) {
    let forget = sqlx::query("DELETE FROM rooms WHERE last_offset = 0");
    if let Err(error) = forget.execute(writer).await {
        // They only take space; a full disk must not keep the log from being read.
        tracing::warn!(%error, "rooms without a message could not be forgotten");
    }
}

/// Makes the directory, for its owner only, and locks it. The system gives the lock back when the
/// process ends, however it ends.
fn lock_directory(directory: &Path) -> Result<File, BuildError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory).map_err(|source| io_error(directory, source))?;
    let lock = create_private(&directory.join(LOCK_FILE_NAME))
        .map_err(|source| io_error(directory, source))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(BuildError::InUse { directory: directory.to_owned() }),
        Err(TryLockError::Error(source)) => Err(io_error(directory, source)),
    }
}

/// Opens a file for writing, made for its owner only; SQLite gives its side files the same mode.
fn create_private(file: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(file)
}

/// A file is only as durable as its name, and the directory as its own.
fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(directory)?.sync_all()?;
        if let Some(parent) = directory.canonicalize()?.parent() {
            // The parent may be closed to us, and then it was not us who made the directory.
            if let Ok(parent) = File::open(parent) {
                parent.sync_all()?;
            }
        }
    }
    Ok(())
}

fn io_error(path: &Path, source: io::Error) -> BuildError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            BuildError::Full { path, source: Box::new(source) }
        }
        _ => BuildError::Unwritable { path, source: Box::new(source) },
    }
}

/// SQLite's primary result codes are the low byte of the extended ones.
fn sql_error(file: &Path, source: sqlx::Error) -> BuildError {
    let file = file.to_owned();
    let code = source.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
    match code.map(|code| code & 0xff) {
        // SQLITE_READONLY, SQLITE_CANTOPEN
        Some(8 | 14) => BuildError::Unwritable { path: file, source: Box::new(source) },
        // SQLITE_CORRUPT, SQLITE_NOTADB
        Some(11 | 26) => BuildError::Corrupt { file, source },
        // SQLITE_FULL
        Some(13) => BuildError::Full { path: file, source: Box::new(source) },
        _ => BuildError::Open { file, source: Box::new(source) },
    }
}
