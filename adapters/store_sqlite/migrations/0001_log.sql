-- The durable log of rooms. Unsigned 64-bit values (epochs, connections) are stored as the signed
-- integer with the same bits, because SQLite has no unsigned ones.

CREATE TABLE rooms (
    id INTEGER PRIMARY KEY,
    room TEXT NOT NULL UNIQUE,
    epoch INTEGER NOT NULL,
    -- Kept apart from the messages: it must outlive trimming, or offsets would be given out twice.
    last_offset INTEGER NOT NULL
) STRICT;

CREATE TABLE messages (
    room_id INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    class INTEGER NOT NULL,
    msg_key TEXT,
    sender_user TEXT,
    sender_connection INTEGER,
    at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER,
    publisher TEXT NOT NULL,
    msg_id TEXT,
    tombstone INTEGER,
    -- Last, so that trimming by age never walks through the pages of a large message.
    data BLOB NOT NULL,
    PRIMARY KEY (room_id, epoch, offset)
) STRICT, WITHOUT ROWID;

-- One message per name: also the only index, since every other read follows the primary key.
CREATE UNIQUE INDEX messages_msg_id ON messages (room_id, publisher, msg_id)
    WHERE msg_id IS NOT NULL;
