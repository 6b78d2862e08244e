-- What was taken back before its time. Few rows, read once when the database is opened.

CREATE TABLE revocations (
    -- 0 a token by its jti, 1 a user, 2 a connection.
    kind INTEGER NOT NULL,
    subject TEXT NOT NULL,
    -- Of a user: tokens issued until then are meant.
    issued_until_ms INTEGER,
    forget_at_ms INTEGER NOT NULL,
    PRIMARY KEY (kind, subject)
) STRICT, WITHOUT ROWID;

CREATE INDEX revocations_forget_at ON revocations (forget_at_ms);
