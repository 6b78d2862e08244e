-- Who is muted or banned, and every act of moderators. The first is read once when the database is
-- opened; the second is only ever added to, and its oldest rows go when there are very many.

CREATE TABLE sanctions (
    -- 0 a mute, 1 a ban.
    kind INTEGER NOT NULL,
    room TEXT NOT NULL,
    user TEXT NOT NULL,
    -- NULL until a moderator lifts it.
    until_ms INTEGER,
    PRIMARY KEY (kind, room, user)
) STRICT, WITHOUT ROWID;

CREATE INDEX sanctions_until ON sanctions (until_ms);

CREATE TABLE moderation_log (
    -- AUTOINCREMENT: a number is never used again, since readers remember where they have read to.
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    by_user TEXT NOT NULL,
    room TEXT NOT NULL,
    -- 0 mute, 1 unmute, 2 kick, 3 ban, 4 unban, 5 delete.
    act INTEGER NOT NULL,
    -- To whom; NULL for a message, which has a place instead.
    user TEXT,
    epoch INTEGER,
    offset INTEGER,
    -- When a mute or a ban ends; NULL when it does not end by itself.
    until_ms INTEGER,
    reason TEXT
) STRICT;
