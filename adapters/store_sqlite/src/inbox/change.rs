//! A change of an inbox as the writer carries it out, in the transaction that it shares with others.
//!
//! It must never take more statements than a few, however many letters come or go: everybody's messages
//! wait for the transaction.

use std::collections::BTreeSet;

use application::ports::inbox::{Letter, LetterId, LetterLimits};
use domain::time::Wall;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::block::{self, BLOCK_BYTES_MAX, BLOCK_LETTERS_MAX, Place};
use super::counts::{self, Counts, sender_of};

/// The most blocks that are looked through for old letters in one transaction.
const BLOCKS_FORGOTTEN_AT_ONCE: u32 = if cfg!(test) { 1 } else { 32 };

/// What a command holds in memory while it waits, roughly; and a removal besides so much that a
/// transaction takes a thousand of them and not more.
const COMMAND_BYTES: usize = 512;
const REMOVAL_BYTES: usize = 4 << 10;

/// A change of an inbox.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Put {
        user: String,
        letter: Letter,
        limits: LetterLimits,
    },
    Remove {
        user: String,
        up_to: LetterId,
    },
    /// Forgets what is old in some of the blocks that hold such letters.
    Forget {
        before: Wall,
    },
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Changed {
    /// How many letters came or went.
    pub(crate) letters: u64,
    /// How many blocks were looked into.
    pub(crate) blocks: usize,
}

impl Change {
    /// What it weighs in the queue.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Put { letter, .. } => COMMAND_BYTES + letter.data.len(),
            Self::Remove { .. } => REMOVAL_BYTES,
            Self::Forget { .. } => COMMAND_BYTES,
        }
    }

    /// Part of the writer's transaction.
    pub(crate) async fn carry_out(
        &self,
        connection: &mut SqliteConnection,
    ) -> Result<Changed, sqlx::Error> {
        match self {
            Self::Put { user, letter, limits } => put(connection, user, letter, limits).await,
            Self::Remove { user, up_to } => remove(connection, user, Place::of(*up_to)).await,
            Self::Forget { before } => forget(connection, *before).await,
        }
    }
}

/// What a letter that comes has to know of an inbox and of who writes to it.
struct Standing {
    of_user: i64,
    of_pair: i64,
    of_sender: i64,
    /// The user's last block, if it may take another letter.
    last: Option<Last>,
}

struct Last {
    id: i64,
    next: u16,
    oldest: Wall,
    letters: Vec<u8>,
}

impl Standing {
    async fn read(
        connection: &mut SqliteConnection,
        user: &str,
        sender: &str,
    ) -> Result<Self, sqlx::Error> {
        // A long block takes no further letter and is not read.
        let row = sqlx::query(
            "SELECT c.of_user, c.of_pair, c.of_sender, b.id, b.next, b.oldest_ms, \
                 CASE WHEN length(b.letters) < ?3 THEN b.letters END AS letters FROM (SELECT \
                     (SELECT sum(n) FROM letter_blocks WHERE user = ?1) AS of_user, \
                     (SELECT n FROM letter_pairs WHERE sender = ?2 AND user = ?1) AS of_pair, \
                     (SELECT sum(n) FROM letter_pairs WHERE sender = ?2) AS of_sender) AS c \
             LEFT JOIN letter_blocks AS b \
             ON b.id = (SELECT max(id) FROM letter_blocks WHERE user = ?1)",
        )
        .bind(user.to_owned())
        .bind(sender.to_owned())
        .bind(BLOCK_BYTES_MAX as i64)
        .fetch_one(connection)
        .await?;
        let count = |name| Ok::<_, sqlx::Error>(row.try_get::<Option<i64>, _>(name)?.unwrap_or(0));
        Ok(Self {
            of_user: count("of_user")?,
            of_pair: count("of_pair")?,
            of_sender: count("of_sender")?,
            last: Last::read(&row)?,
        })
    }

    fn is_full(&self, limits: &LetterLimits) -> bool {
        self.of_user >= i64::from(limits.of_user)
            || self.of_pair >= i64::from(limits.of_pair)
            || self.of_sender >= i64::from(limits.of_sender)
    }
}

impl Last {
    /// None that is full, nor one that is damaged: whatever came into it would be lost.
    fn read(row: &SqliteRow) -> Result<Option<Self>, sqlx::Error> {
        let Some(letters) = row.try_get::<Option<Vec<u8>>, _>("letters")? else { return Ok(None) };
        let next = u16::try_from(row.try_get::<i64, _>("next")?).unwrap_or(u16::MAX);
        if next >= BLOCK_LETTERS_MAX || !block::takes(&letters, next) {
            return Ok(None);
        }
        let oldest = Wall::from_millis(row.try_get("oldest_ms")?);
        Ok(Some(Self { id: row.try_get("id")?, next, oldest, letters }))
    }
}

async fn put(
    connection: &mut SqliteConnection,
    user: &str,
    letter: &Letter,
    limits: &LetterLimits,
) -> Result<Changed, sqlx::Error> {
    let sender = sender_of(letter);
    let standing = Standing::read(connection, user, sender).await?;
    if standing.is_full(limits) {
        return Ok(Changed::default());
    }
    let fits = |last: &Last| last.letters.len() + block::length(letter) <= BLOCK_BYTES_MAX;
    match standing.last.filter(fits) {
        Some(last) => append(connection, last, letter).await?,
        None => begin(connection, user, letter).await?,
    }
    counts::add_one(connection, user, sender).await?;
    Ok(Changed { letters: 1, blocks: 1 })
}

async fn append(
    connection: &mut SqliteConnection,
    last: Last,
    letter: &Letter,
) -> Result<(), sqlx::Error> {
    let Last { id, next, oldest, mut letters } = last;
    block::push(&mut letters, next, letter);
    // Its index is left alone unless the age changes.
    let update = if letter.at < oldest {
        sqlx::query(
            "UPDATE letter_blocks SET n = n + 1, next = ?, letters = ?, oldest_ms = ? WHERE id = ?",
        )
    } else {
        sqlx::query("UPDATE letter_blocks SET n = n + 1, next = ?, letters = ? WHERE id = ?")
    };
    let update = update.bind(next + 1).bind(letters);
    let update = if letter.at < oldest { update.bind(letter.at.as_millis()) } else { update };
    update.bind(id).execute(connection).await.map(drop)
}

async fn begin(
    connection: &mut SqliteConnection,
    user: &str,
    letter: &Letter,
) -> Result<(), sqlx::Error> {
    let mut letters = Vec::with_capacity(block::length(letter));
    block::push(&mut letters, 0, letter);
    sqlx::query(
        "INSERT INTO letter_blocks (user, n, next, oldest_ms, letters) VALUES (?, 1, 1, ?, ?)",
    )
    .bind(user.to_owned())
    .bind(letter.at.as_millis())
    .bind(letters)
    .execute(connection)
    .await
    .map(drop)
}

async fn remove(
    connection: &mut SqliteConnection,
    user: &str,
    up_to: Place,
) -> Result<Changed, sqlx::Error> {
    let rows =
        sqlx::query("SELECT id, user, n, letters FROM letter_blocks WHERE user = ? AND id <= ?")
            .bind(user.to_owned())
            .bind(up_to.block)
            .fetch_all(&mut *connection)
            .await?;
    take_out(connection, &rows, |block, index, _| block < up_to.block || index <= up_to.index).await
}

async fn forget(connection: &mut SqliteConnection, before: Wall) -> Result<Changed, sqlx::Error> {
    let rows =
        sqlx::query("SELECT id, user, n, letters FROM letter_blocks WHERE oldest_ms < ? LIMIT ?")
            .bind(before.as_millis())
            .bind(BLOCKS_FORGOTTEN_AT_ONCE)
            .fetch_all(&mut *connection)
            .await?;
    take_out(connection, &rows, |_, _, letter| letter.at < before).await
}

/// Takes letters out of blocks and out of the counts. A damaged block goes whole.
async fn take_out(
    connection: &mut SqliteConnection,
    rows: &[SqliteRow],
    goes: impl Fn(i64, u16, &Letter) -> bool,
) -> Result<Changed, sqlx::Error> {
    let (mut gone, mut emptied, mut damaged) = (Counts::default(), Vec::new(), BTreeSet::new());
    for row in rows {
        let (id, user): (i64, &str) = (row.try_get("id")?, row.try_get("user")?);
        let letters = block::read(id, row.try_get("letters")?);
        if letters.len() as i64 != row.try_get::<i64, _>("n")? {
            damaged.insert(user);
        }
        let n = letters.len();
        let (out, left): (Vec<_>, Vec<_>) =
            letters.into_iter().partition(|(index, letter)| goes(id, *index, letter));
        gone.add(user, out.iter().map(|(_, letter)| letter));
        if left.is_empty() {
            emptied.push(id);
        } else if left.len() < n {
            keep(connection, id, &left).await?;
        }
    }
    delete(connection, &emptied).await?;
    gone.subtract(connection).await?;
    for user in damaged {
        count_anew(connection, user).await?;
    }
    Ok(Changed { letters: gone.total(), blocks: rows.len() })
}

async fn delete(connection: &mut SqliteConnection, blocks: &[i64]) -> Result<(), sqlx::Error> {
    if blocks.is_empty() {
        return Ok(());
    }
    // Numbers always make JSON.
    let blocks = serde_json::to_string(blocks).unwrap_or_default();
    sqlx::query("DELETE FROM letter_blocks WHERE id IN (SELECT value FROM json_each(?))")
        .bind(blocks)
        .execute(connection)
        .await
        .map(drop)
}

/// Leaves only these letters of a block. No further ones take the places of those that went.
async fn keep(
    connection: &mut SqliteConnection,
    id: i64,
    left: &[(u16, Letter)],
) -> Result<(), sqlx::Error> {
    let mut letters = Vec::new();
    for (index, letter) in left {
        block::push(&mut letters, *index, letter);
    }
    let oldest = left.iter().map(|(_, letter)| letter.at).min().unwrap_or_default();
    sqlx::query("UPDATE letter_blocks SET n = ?, oldest_ms = ?, letters = ? WHERE id = ?")
        .bind(left.len() as i64)
        .bind(oldest.as_millis())
        .bind(letters)
        .bind(id)
        .execute(connection)
        .await
        .map(drop)
}

/// What was lost with a damaged block does not count for those who wrote it. It reads the user's whole inbox.
async fn count_anew(connection: &mut SqliteConnection, user: &str) -> Result<(), sqlx::Error> {
    let rows = sqlx::query("SELECT id, letters FROM letter_blocks WHERE user = ?")
        .bind(user.to_owned())
        .fetch_all(&mut *connection)
        .await?;
    let mut counts = Counts::default();
    for row in &rows {
        let letters = block::read(row.try_get("id")?, row.try_get("letters")?);
        counts.add(user, letters.iter().map(|(_, letter)| letter));
    }
    counts.replace(connection, user).await
}
