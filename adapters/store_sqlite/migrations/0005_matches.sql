-- The matches of this server, those included that ended not long ago. Few rows, read once when the
-- database is opened.

CREATE TABLE matches (
    id TEXT NOT NULL PRIMARY KEY,
    game TEXT NOT NULL,
    -- User ids in their order, separated by single spaces, which are in no user's id.
    participants TEXT NOT NULL,
    -- 0 nobody, 1 authenticated, 2 anyone.
    spectators INTEGER NOT NULL,
    connections_max INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    -- 0 waiting, 1 running, 2 ended.
    phase INTEGER NOT NULL,
    started_at_ms INTEGER,
    ended_at_ms INTEGER,
    -- Both JSON.
    metadata TEXT,
    result TEXT
) STRICT;
