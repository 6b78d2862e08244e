-- What the sender of a message was called; NULL when it had no name, as for all messages before this.

ALTER TABLE messages ADD COLUMN sender_name TEXT;
