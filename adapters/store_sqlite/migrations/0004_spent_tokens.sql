-- Tokens that count once and have been used, by their jti, until they could not be used anyway.

CREATE TABLE spent_tokens (
    id TEXT NOT NULL PRIMARY KEY,
    forget_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX spent_tokens_forget_at ON spent_tokens (forget_at_ms);
