//! A change of an inbox as the writer carries it out, in the transaction that it shares with others.
//!
//! The counts beside the blocks must never differ from what the blocks hold: both change together.

use std::collections::BTreeMap;

use application::ports::inbox::{Letter, LetterId, LetterLimits};
use domain::time::Wall;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::block::{self, BLOCK_BYTES_MAX, BLOCK_LETTERS_MAX, Place};

/// The most blocks that are looked through for old letters in one transaction: publishes wait for it.
const BLOCKS_FORGOTTEN_AT_ONCE: u32 = if cfg!(test) { 1 } else { 32 };

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

/// What a change has to know of an inbox and of who writes to it.
struct Standing {
    of_user: i64,
    of_pair: i64,
    of_sender: i64,
    /// The block that was written to last, the place of its next letter, and its length.
    last: Option<(i64, i64, i64)>,
}

impl Standing {
    fn is_full(&self, limits: &LetterLimits) -> bool {
        self.of_user >= i64::from(limits.of_user)
            || self.of_pair >= i64::from(limits.of_pair)
            || self.of_sender >= i64::from(limits.of_sender)
    }
}

/// How many letters of each sender were taken out of which user's inbox.
type Gone = BTreeMap<(String, String), i64>;

/// A row of blocks that may have to go or to shrink.
struct Block {
    id: i64,
    user: String,
    letters: Vec<(u16, Letter)>,
}

impl Change {
    /// What it holds in memory while it waits, roughly.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Put { letter, .. } => 512 + letter.data.len(),
            Self::Remove { .. } | Self::Forget { .. } => 512,
        }
    }

    /// Part of the writer's transaction; answers how many letters came or went.
    pub(crate) async fn carry_out(
        &self,
        connection: &mut SqliteConnection,
    ) -> Result<u64, sqlx::Error> {
        match self {
            Self::Put { user, letter, limits } => put(connection, user, letter, limits).await,
            Self::Remove { user, up_to } => remove(connection, user, Place::of(*up_to)).await,
            Self::Forget { before } => forget(connection, *before).await,
        }
    }
}

/// Who stands for a letter's sender in the counts.
fn sender_of(letter: &Letter) -> &str {
    letter.sender.user.as_ref().map_or("", |user| user.as_str())
}

async fn put(
    connection: &mut SqliteConnection,
    user: &str,
    letter: &Letter,
    limits: &LetterLimits,
) -> Result<u64, sqlx::Error> {
    let sender = sender_of(letter);
    let standing = standing(connection, user, sender).await?;
    if standing.is_full(limits) {
        return Ok(0);
    }
    let mut bytes = Vec::with_capacity(64 + letter.data.len());
    let open = standing.last.filter(|(_, next, _)| *next < i64::from(BLOCK_LETTERS_MAX));
    let index = open.map_or(0, |(_, next, _)| next);
    block::push(&mut bytes, index as u16, letter);
    let fits = |length: i64| length as usize + bytes.len() <= BLOCK_BYTES_MAX;
    match open.filter(|(_, _, length)| fits(*length)) {
        // What `||` makes is called a text, whatever its bytes are.
        Some((id, ..)) => {
            sqlx::query(
                "UPDATE letter_blocks SET n = n + 1, next = next + 1, \
                 oldest_ms = min(oldest_ms, ?), letters = CAST(letters || ? AS BLOB) WHERE id = ?",
            )
            .bind(letter.at.as_millis())
            .bind(bytes)
            .bind(id)
            .execute(&mut *connection)
            .await?;
        }
        None => {
            bytes.clear();
            block::push(&mut bytes, 0, letter);
            sqlx::query(
                "INSERT INTO letter_blocks (user, n, next, oldest_ms, letters) VALUES (?, 1, 1, ?, ?)",
            )
            .bind(user.to_owned())
            .bind(letter.at.as_millis())
            .bind(bytes)
            .execute(&mut *connection)
            .await?;
        }
    }
    sqlx::query(
        "INSERT INTO letter_pairs (sender, user, n) VALUES (?, ?, 1) \
         ON CONFLICT DO UPDATE SET n = n + 1",
    )
    .bind(sender.to_owned())
    .bind(user.to_owned())
    .execute(connection)
    .await?;
    Ok(1)
}

async fn standing(
    connection: &mut SqliteConnection,
    user: &str,
    sender: &str,
) -> Result<Standing, sqlx::Error> {
    // Beside one max() SQLite answers the other columns of its row: those of the last block.
    let row = sqlx::query(
        "SELECT coalesce(sum(n), 0) AS of_user, max(id) AS last, next, length(letters) AS length, \
             (SELECT n FROM letter_pairs WHERE sender = ?2 AND user = ?1) AS of_pair, \
             (SELECT sum(n) FROM letter_pairs WHERE sender = ?2) AS of_sender \
         FROM letter_blocks WHERE user = ?1",
    )
    .bind(user.to_owned())
    .bind(sender.to_owned())
    .fetch_one(connection)
    .await?;
    let last: Option<i64> = row.try_get("last")?;
    let last = match last {
        Some(id) => Some((id, row.try_get("next")?, row.try_get("length")?)),
        None => None,
    };
    Ok(Standing {
        of_user: row.try_get("of_user")?,
        of_pair: row.try_get::<Option<i64>, _>("of_pair")?.unwrap_or(0),
        of_sender: row.try_get::<Option<i64>, _>("of_sender")?.unwrap_or(0),
        last,
    })
}

async fn remove(
    connection: &mut SqliteConnection,
    user: &str,
    up_to: Place,
) -> Result<u64, sqlx::Error> {
    let rows =
        sqlx::query("SELECT id, user, letters FROM letter_blocks WHERE user = ? AND id <= ?")
            .bind(user.to_owned())
            .bind(up_to.block)
            .fetch_all(&mut *connection)
            .await?;
    take_out(connection, &rows, |block, index, _| block < up_to.block || index <= up_to.index).await
}

async fn forget(connection: &mut SqliteConnection, before: Wall) -> Result<u64, sqlx::Error> {
    let rows =
        sqlx::query("SELECT id, user, letters FROM letter_blocks WHERE oldest_ms < ? LIMIT ?")
            .bind(before.as_millis())
            .bind(BLOCKS_FORGOTTEN_AT_ONCE)
            .fetch_all(&mut *connection)
            .await?;
    take_out(connection, &rows, |_, _, letter| letter.at < before).await
}

/// Takes letters out of blocks and out of the counts; answers how many.
async fn take_out(
    connection: &mut SqliteConnection,
    rows: &[SqliteRow],
    goes: impl Fn(i64, u16, &Letter) -> bool,
) -> Result<u64, sqlx::Error> {
    let mut gone = Gone::new();
    for row in rows {
        let Block { id, user, letters } = read(row)?;
        let (out, left): (Vec<_>, Vec<_>) =
            letters.into_iter().partition(|(index, letter)| goes(id, *index, letter));
        for (_, letter) in &out {
            let pair = (sender_of(letter).to_owned(), user.clone());
            *gone.entry(pair).or_default() += 1;
        }
        keep(connection, id, &left).await?;
    }
    for ((sender, user), n) in &gone {
        uncount(connection, sender, user, *n).await?;
    }
    Ok(gone.values().sum::<i64>().cast_unsigned())
}

fn read(row: &SqliteRow) -> Result<Block, sqlx::Error> {
    let id = row.try_get("id")?;
    Ok(Block { id, user: row.try_get("user")?, letters: block::read(id, row.try_get("letters")?) })
}

/// Leaves only these letters of a block. It takes no further ones in the place of those that went.
async fn keep(
    connection: &mut SqliteConnection,
    id: i64,
    left: &[(u16, Letter)],
) -> Result<(), sqlx::Error> {
    let Some(oldest) = left.iter().map(|(_, letter)| letter.at).min() else {
        let delete = sqlx::query("DELETE FROM letter_blocks WHERE id = ?").bind(id);
        return delete.execute(connection).await.map(drop);
    };
    let mut letters = Vec::new();
    for (index, letter) in left {
        block::push(&mut letters, *index, letter);
    }
    sqlx::query("UPDATE letter_blocks SET n = ?, oldest_ms = ?, letters = ? WHERE id = ?")
        .bind(left.len() as i64)
        .bind(oldest.as_millis())
        .bind(letters)
        .bind(id)
        .execute(connection)
        .await
        .map(drop)
}

async fn uncount(
    connection: &mut SqliteConnection,
    sender: &str,
    user: &str,
    n: i64,
) -> Result<(), sqlx::Error> {
    let all = sqlx::query("DELETE FROM letter_pairs WHERE sender = ? AND user = ? AND n <= ?")
        .bind(sender.to_owned())
        .bind(user.to_owned())
        .bind(n)
        .execute(&mut *connection)
        .await?;
    if all.rows_affected() == 0 {
        sqlx::query("UPDATE letter_pairs SET n = n - ? WHERE sender = ? AND user = ?")
            .bind(n)
            .bind(sender.to_owned())
            .bind(user.to_owned())
            .execute(connection)
            .await?;
    }
    Ok(())
}
