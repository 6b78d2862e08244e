-- A letter that was given, and removed, may be brought again by whoever was told that nobody knows whether it is kept.
-- So its name stays for a while, counted from when it was put, by the clock of the server; those of an earlier version
-- don't know when that was.
ALTER TABLE letters ADD COLUMN put_ms bigint;

CREATE TABLE letters_given (
    recipient text COLLATE "C" NOT NULL,
    put_id bigint NOT NULL,
    until_ms bigint NOT NULL,
    PRIMARY KEY (recipient, put_id)
);

CREATE INDEX letters_given_until ON letters_given (until_ms);

-- Where an act stands among those about the same, as a moment; NULL where that is when it was done. It says apart, too,
-- what a moderator did twice at one moment by its clock.
ALTER TABLE moderation_log ADD COLUMN order_ms bigint;

DROP INDEX moderation_log_act;

CREATE UNIQUE INDEX moderation_log_act ON moderation_log
    (room, coalesce(who, ''), coalesce(order_ms, at_ms), act, by_user, coalesce(epoch, 0), coalesce(msg_offset, 0));
