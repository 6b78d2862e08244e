//! How many letters of each sender wait for each user, beside the blocks.
//!
//! They must never differ from what the blocks hold: whoever changes those tells it here, in the same
//! transaction.

use std::collections::BTreeMap;

use application::ports::inbox::Letter;
use sqlx::SqliteConnection;

/// Letters by sender and user.
#[derive(Default)]
pub(super) struct Counts(BTreeMap<(String, String), u64>);

/// Who stands for a letter's sender: one row for all who are no users.
pub(super) fn sender_of(letter: &Letter) -> &str {
    letter.sender.user.as_ref().map_or("", |user| user.as_str())
}

impl Counts {
    pub(super) fn add<'l>(&mut self, user: &str, letters: impl IntoIterator<Item = &'l Letter>) {
        let mut by_sender: BTreeMap<&str, u64> = BTreeMap::new();
        for letter in letters {
            *by_sender.entry(sender_of(letter)).or_default() += 1;
        }
        for (sender, n) in by_sender {
            *self.0.entry((sender.to_owned(), user.to_owned())).or_default() += n;
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// All of them as one value, so that a statement serves any number.
    fn rows(&self) -> String {
        let rows: Vec<_> = self.0.iter().map(|((sender, user), n)| (sender, user, n)).collect();
        // Texts and numbers always make JSON.
        serde_json::to_string(&rows).unwrap_or_default()
    }

    /// These letters are there no longer.
    pub(super) async fn subtract(
        &self,
        connection: &mut SqliteConnection,
    ) -> Result<(), sqlx::Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "UPDATE letter_pairs SET n = letter_pairs.n - gone.n FROM ( \
                 SELECT value ->> 0 AS sender, value ->> 1 AS user, value ->> 2 AS n FROM json_each(?)) AS gone \
             WHERE letter_pairs.sender = gone.sender AND letter_pairs.user = gone.user",
        )
        .bind(self.rows())
        .execute(&mut *connection)
        .await?;
        sqlx::query(
            "DELETE FROM letter_pairs WHERE n <= 0 \
             AND (sender, user) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))",
        )
        .bind(self.rows())
        .execute(connection)
        .await
        .map(drop)
    }

    /// These are all letters of a user. It looks through all pairs, so it is for what never happens.
    pub(super) async fn replace(
        &self,
        connection: &mut SqliteConnection,
        user: &str,
    ) -> Result<(), sqlx::Error> {
        sqlx::query("DELETE FROM letter_pairs WHERE user = ?")
            .bind(user.to_owned())
            .execute(&mut *connection)
            .await?;
        sqlx::query(
            "INSERT INTO letter_pairs (sender, user, n) \
             SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?)",
        )
        .bind(self.rows())
        .execute(connection)
        .await
        .map(drop)
    }
}

/// One more letter waits.
pub(super) async fn add_one(
    connection: &mut SqliteConnection,
    user: &str,
    sender: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO letter_pairs (sender, user, n) VALUES (?, ?, 1) \
         ON CONFLICT DO UPDATE SET n = n + 1",
    )
    .bind(sender.to_owned())
    .bind(user.to_owned())
    .execute(connection)
    .await
    .map(drop)
}
