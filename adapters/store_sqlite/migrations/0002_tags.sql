-- The tags of a message as a JSON object; NULL when it has none, as all messages before this had.
-- Added at the end, behind the data: SQLite can put a column nowhere else without copying the
-- table, and trimming reads no tags.

ALTER TABLE messages ADD COLUMN tags TEXT;
