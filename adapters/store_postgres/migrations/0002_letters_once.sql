-- A letter has a name of its own, so that one whose commit had no answer can be brought again and is there once. Those
-- of an earlier version have none.
ALTER TABLE letters ADD COLUMN put_id bigint;

CREATE UNIQUE INDEX letters_put_id ON letters (recipient, put_id);

-- Which node gives a user what waits, until when unless it says so again; by the clock of the server. Rows of those
-- that are gone lie here until somebody else takes the turn, or they are forgotten with old letters.
CREATE TABLE letter_turns (
    recipient text COLLATE "C" NOT NULL PRIMARY KEY,
    holder bigint NOT NULL,
    until_ms bigint NOT NULL
);
