//! Where what lasts is kept: in Postgres, in the data directory, or nowhere.
//!
//! Nothing behind this file may know which.

use std::sync::Arc;
use std::time::Duration;

use application::ports::spent_tokens::SPENT_TOKENS_MAX;
use application::ports::{
    ActsOfAll, Inbox, Matches, MatchesKept, Moderation, Revocations, SpentTokens,
};
use broker_memory::{
    MemoryInbox, MemoryMatches, MemoryModeration, MemoryRevocations, MemorySpentTokens,
};
use gateway_axum::Probe;

#[cfg(any(feature = "postgres", feature = "sqlite"))]
use super::part;
use super::{ServeError, SharedArchive, SharedLives};
use crate::exit::Exit;
use crate::settings::Settings;
#[cfg(feature = "postgres")]
use crate::settings::{Profile, tokens::chain};

/// Where durable rooms are kept, and what must not be forgotten.
pub enum Storage {
    /// Nowhere: all ends with this process.
    Nowhere,
    /// In a file of the data directory.
    #[cfg(feature = "sqlite")]
    Sqlite(Arc<store_sqlite::SqliteArchive>, std::path::PathBuf),
    /// In a Postgres.
    #[cfg(feature = "postgres")]
    Postgres(Arc<store_postgres::PostgresArchive>),
}

impl Storage {
    /// Opens the one that the settings ask for.
    ///
    /// # Errors
    /// [`ServeError`] when it can't be had.
    pub async fn open(settings: &Settings) -> Result<Self, ServeError> {
        if settings.store.url.is_some() {
            return Self::in_postgres(settings).await;
        }
        match &settings.server.data_dir {
            Some(directory) => Self::in_directory(directory).await,
            None => Ok(Self::Nowhere),
        }
    }

    #[cfg(feature = "sqlite")]
    async fn in_directory(directory: &std::path::Path) -> Result<Self, ServeError> {
        let config = store_sqlite::Config::in_directory(directory);
        let archive =
            store_sqlite::SqliteArchive::build(config).await.map_err(|e| part(&e, Exit::Io))?;
        Ok(Self::Sqlite(Arc::new(archive), directory.join(store_sqlite::FILE_NAME)))
    }

    #[cfg(not(feature = "sqlite"))]
    async fn in_directory(_: &std::path::Path) -> Result<Self, ServeError> {
        let text = "server.data_dir is set, but this build has no archive (feature sqlite)";
        Err(ServeError::Part(text.to_owned(), Exit::Settings))
    }

    #[cfg(feature = "postgres")]
    async fn in_postgres(settings: &Settings) -> Result<Self, ServeError> {
        use store_postgres::{BuildError, Config, PostgresArchive, Sharing};

        let store = &settings.store;
        let Some(url) = &store.url else { unreachable!("an address is set") };
        let config = Config::new(url.clone());
        let is_shared = settings.redis.url.is_some();
        let config = Config {
            password: store.password.clone(),
            schema: store.schema.clone(),
            // Nodes on one Redis agree there about positions.
            sharing: if is_shared { Sharing::Shared } else { Sharing::Alone },
            accepts_loss: settings.profile != Profile::Production,
            readers_max: store.connections_max.saturating_sub(config.writers).max(1),
            answer_timeout: Duration::from_millis(store.answer_timeout_ms),
            ..config
        };
        let exit = |error: &BuildError| match error {
            BuildError::Config(_) | BuildError::Unsafe { .. } => Exit::Settings,
            _ => Exit::Io,
        };
        let archive = PostgresArchive::build(config).await;
        let archive = archive.map_err(|error| {
            ServeError::Part(format!("store.url: {}", chain(&error)), exit(&error))
        })?;
        Ok(Self::Postgres(Arc::new(archive)))
    }

    #[cfg(not(feature = "postgres"))]
    async fn in_postgres(_: &Settings) -> Result<Self, ServeError> {
        let text =
            "store.url is set, but this build has no adapter for Postgres (feature postgres)";
        Err(ServeError::Part(text.to_owned(), Exit::Settings))
    }

    /// The archive behind its port.
    #[must_use]
    pub fn archive(&self) -> SharedArchive {
        match self {
            Self::Nowhere => None,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(archive, _) => Some(Arc::clone(archive) as _),
            #[cfg(feature = "postgres")]
            Self::Postgres(archive) => Some(Arc::clone(archive) as _),
        }
    }

    /// The same behind the port of rooms that several nodes write.
    #[must_use]
    pub fn lives(&self) -> SharedLives {
        match self {
            Self::Nowhere => None,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(..) => None,
            #[cfg(feature = "postgres")]
            Self::Postgres(archive) => Some(Arc::clone(archive) as _),
        }
    }

    /// Where it is, for people; none where it is nowhere.
    #[must_use]
    pub fn place(&self) -> Option<String> {
        match self {
            Self::Nowhere => None,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_, file) => Some(format!("sqlite, {}", file.display())),
            #[cfg(feature = "postgres")]
            Self::Postgres(archive) => Some(format!("postgres, {}", archive.address())),
        }
    }

    /// How it stands with Postgres, if that is where.
    #[must_use]
    #[cfg(feature = "postgres")]
    pub fn status(&self) -> Option<&Arc<store_postgres::Status>> {
        match self {
            Self::Postgres(archive) => Some(archive.status()),
            _ => None,
        }
    }

    /// Says whether it can be reached; none where that is no question.
    #[must_use]
    pub fn probe(&self) -> Option<Probe> {
        #[cfg(feature = "postgres")]
        if let Some(status) = self.status() {
            let status = Arc::clone(status);
            return Some(Probe::new(move || status.is_up()));
        }
        None
    }

    /// Writes what is left and lets go of it.
    pub async fn close(&self) {
        match self {
            Self::Nowhere => {}
            #[cfg(feature = "sqlite")]
            Self::Sqlite(archive, _) => archive.close().await,
            #[cfg(feature = "postgres")]
            Self::Postgres(archive) => archive.close().await,
        }
    }

    /// What must not be forgotten: beside the log where there is one, so that a restart knows it.
    ///
    /// # Errors
    /// [`ServeError`] when it can't be read.
    pub async fn remembered(&self, settings: &Settings) -> Result<Remembered, ServeError> {
        match self {
            Self::Nowhere => Ok(Remembered::in_memory(settings)),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(archive, _) => Remembered::in_file(archive, settings).await,
            #[cfg(feature = "postgres")]
            Self::Postgres(archive) => Remembered::in_postgres(archive, settings).await,
        }
    }
}

/// What was taken back, what is used up, what waits for users, who is muted or banned, and which matches
/// there are.
#[derive(Clone)]
pub struct Remembered {
    /// What was taken back.
    pub revocations: Arc<dyn Revocations>,
    /// Which tokens that count once are used up.
    pub spent_tokens: Arc<dyn SpentTokens>,
    /// What is said to users who are away.
    pub inbox: Arc<dyn Inbox>,
    /// Who is muted or banned.
    pub moderation: Arc<dyn Moderation>,
    /// The log of what moderators did; none where other nodes have others.
    pub acts_of_all: Option<Arc<dyn ActsOfAll>>,
    /// The matches.
    pub matches: Arc<dyn Matches>,
}

impl Remembered {
    /// All of it in this process's memory.
    #[must_use]
    pub fn in_memory(settings: &Settings) -> Self {
        Self {
            revocations: Arc::new(MemoryRevocations::new(revocation_span(settings))),
            spent_tokens: Arc::new(MemorySpentTokens::new(SPENT_TOKENS_MAX)),
            inbox: Arc::new(MemoryInbox::default()),
            moderation: Arc::new(MemoryModeration::default()),
            acts_of_all: None,
            matches: Arc::new(MemoryMatches::new(matches_kept(settings))),
        }
    }

    #[cfg(feature = "sqlite")]
    async fn in_file(
        archive: &Arc<store_sqlite::SqliteArchive>,
        settings: &Settings,
    ) -> Result<Self, ServeError> {
        use store_sqlite::{
            SqliteInbox, SqliteMatches, SqliteModeration, SqliteRevocations, SqliteSpentTokens,
        };
        let span = revocation_span(settings);
        let revocations = SqliteRevocations::load(Arc::clone(archive), span).await;
        let spent_tokens = SqliteSpentTokens::load(Arc::clone(archive), SPENT_TOKENS_MAX).await;
        let matches = SqliteMatches::load(Arc::clone(archive), matches_kept(settings)).await;
        let moderation = SqliteModeration::load(Arc::clone(archive)).await;
        let inbox = SqliteInbox::load(Arc::clone(archive)).await;
        Ok(Self {
            revocations: Arc::new(revocations.map_err(|e| part(&e, Exit::Io))?),
            spent_tokens: Arc::new(spent_tokens.map_err(|e| part(&e, Exit::Io))?),
            inbox: Arc::new(inbox.map_err(|e| part(&e, Exit::Io))?),
            moderation: Arc::new(moderation.map_err(|e| part(&e, Exit::Io))?),
            acts_of_all: None,
            matches: Arc::new(matches.map_err(|e| part(&e, Exit::Io))?),
        })
    }

    #[cfg(feature = "postgres")]
    async fn in_postgres(
        archive: &Arc<store_postgres::PostgresArchive>,
        settings: &Settings,
    ) -> Result<Self, ServeError> {
        use store_postgres::{
            PostgresInbox, PostgresMatches, PostgresModeration, PostgresRevocations,
            PostgresSpentTokens,
        };
        let span = revocation_span(settings);
        let revocations = PostgresRevocations::load(Arc::clone(archive), span).await;
        let spent_tokens = PostgresSpentTokens::load(Arc::clone(archive), SPENT_TOKENS_MAX).await;
        let moderation = PostgresModeration::load(Arc::clone(archive)).await;
        let inbox = PostgresInbox::load(Arc::clone(archive)).await;
        let moderation = Arc::new(moderation.map_err(|e| part(&e, Exit::Io))?);
        Ok(Self {
            revocations: Arc::new(revocations.map_err(|e| part(&e, Exit::Io))?),
            spent_tokens: Arc::new(spent_tokens.map_err(|e| part(&e, Exit::Io))?),
            inbox: Arc::new(inbox.map_err(|e| part(&e, Exit::Io))?),
            acts_of_all: Some(Arc::clone(&moderation) as _),
            moderation,
            matches: Arc::new(PostgresMatches::new(Arc::clone(archive), matches_kept(settings))),
        })
    }
}

fn revocation_span(settings: &Settings) -> Duration {
    Duration::from_millis(settings.auth.revocation_age_ms)
}

fn matches_kept(settings: &Settings) -> MatchesKept {
    let matches = &settings.matches;
    let retention = Duration::from_millis(matches.retention_ms);
    MatchesKept { matches_max: matches.matches_max, retention }
}
