CREATE TABLE users (
    user_id       uuid PRIMARY KEY,
    email         text NOT NULL,
    password_hash text NOT NULL,
    first_name    text NOT NULL,
    last_name     text NOT NULL,
    roles         text[] NOT NULL DEFAULT '{}',
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL
);

-- Shown as it was typed, unique without regard to case.
CREATE UNIQUE INDEX users_email_key ON users (lower(email));

CREATE TABLE user_addresses (
    address_id  uuid PRIMARY KEY,
    user_id     uuid NOT NULL REFERENCES users,
    kind        text NOT NULL CHECK (kind IN ('shipping', 'billing')),
    is_default  boolean NOT NULL,
    recipient   text NOT NULL,
    line1       text NOT NULL,
    line2       text NOT NULL,
    city        text NOT NULL,
    region      text NOT NULL,
    postal_code text NOT NULL,
    country     text NOT NULL CHECK (country ~ '^[A-Z]{2}$'),
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL
);

CREATE UNIQUE INDEX user_addresses_one_default ON user_addresses (user_id, kind) WHERE is_default;
CREATE INDEX user_addresses_listing ON user_addresses (user_id, is_default DESC, address_id DESC);

-- A session is a family of refresh tokens, of which only the newest is good.
CREATE TABLE sessions (
    session_id uuid PRIMARY KEY,
    user_id    uuid NOT NULL REFERENCES users,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz
);

CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX sessions_expiry ON sessions (expires_at);

CREATE TABLE refresh_tokens (
    digest     bytea PRIMARY KEY CHECK (length(digest) = 32),
    session_id uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
    expires_at timestamptz NOT NULL,
    used_at    timestamptz
);

CREATE INDEX refresh_tokens_session ON refresh_tokens (session_id);

-- Wrong passwords in a row, by the SHA-256 of the email, whether or not it has an account.
CREATE TABLE sign_in_attempts (
    email_digest   bytea PRIMARY KEY CHECK (length(email_digest) = 32),
    failures       integer NOT NULL,
    last_failed_at timestamptz,
    locked_until   timestamptz
);

CREATE INDEX sign_in_attempts_age ON sign_in_attempts (last_failed_at);
