-- What was said to users while they were away. A row is deleted once its user has been given it.

CREATE TABLE letters (
    -- AUTOINCREMENT: a number is never used again, since readers remember up to where they have read.
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user TEXT NOT NULL,
    sender_user TEXT,
    sender_name TEXT,
    at_ms INTEGER NOT NULL,
    data BLOB NOT NULL
) STRICT;

CREATE INDEX letters_user ON letters (user, id);
CREATE INDEX letters_at ON letters (at_ms);
CREATE INDEX letters_sender ON letters (sender_user, user);
