-- The tries to sign in from one place on the internet, by the SHA-256 of the email and of both together: wrong
-- passwords in a row, and when the account's owner signed in there. `sign_in_attempts` has the wrong passwords from
-- all places where she never did.
CREATE TABLE sign_in_origins (
    email_digest   bytea NOT NULL CHECK (length(email_digest) = 32),
    origin_digest  bytea NOT NULL CHECK (length(origin_digest) = 32),
    failures       integer NOT NULL DEFAULT 0,
    last_failed_at timestamptz,
    locked_until   timestamptz,
    signed_in_at   timestamptz,
    PRIMARY KEY (email_digest, origin_digest)
);

CREATE INDEX sign_in_origins_age ON sign_in_origins (greatest(last_failed_at, signed_in_at));
