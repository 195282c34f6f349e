-- With the secret of the token itself it makes that of the next one, as long as that may be given out again.
ALTER TABLE refresh_tokens ADD COLUMN successor_salt bytea;
