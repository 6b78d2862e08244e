-- What was said to users while they were away. Many letters to a row: a user's are read together and removed
-- together, and a row for each would cost ten times as much.

CREATE TABLE letter_blocks (
    -- AUTOINCREMENT: a number is never used again, since readers remember up to where they have read.
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user TEXT NOT NULL,
    -- How many letters it holds, the place that its next one gets, and when the oldest was said.
    n INTEGER NOT NULL,
    next INTEGER NOT NULL,
    oldest_ms INTEGER NOT NULL,
    letters BLOB NOT NULL
) STRICT;

CREATE INDEX letter_blocks_user ON letter_blocks (user, id);
CREATE INDEX letter_blocks_oldest ON letter_blocks (oldest_ms);

-- How many letters of a sender wait for a user; '' stands for all senders who are no users.
CREATE TABLE letter_pairs (
    sender TEXT NOT NULL,
    user TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (sender, user)
) STRICT, WITHOUT ROWID;
