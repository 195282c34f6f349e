-- An older process leaves all of this as it is. `verified_email` says which address was confirmed, so that one that an
-- older process puts in its place counts as not confirmed.
ALTER TABLE users
    ADD COLUMN locale text NOT NULL DEFAULT 'en',
    ADD COLUMN verified_email text NOT NULL DEFAULT '',
    ADD COLUMN pending_email text NOT NULL DEFAULT '',
    ADD COLUMN erased_at timestamptz;

CREATE INDEX users_staff ON users (user_id) WHERE cardinality(roles) > 0;

-- A guest has a session and no account: `user_id` is the guest's. To an older process its tokens are of no account.
ALTER TABLE sessions
    DROP CONSTRAINT sessions_user_id_fkey,
    ADD COLUMN is_guest boolean NOT NULL DEFAULT false,
    ADD COLUMN created_at timestamptz,
    ADD COLUMN last_used_at timestamptz,
    ADD COLUMN device text NOT NULL DEFAULT '',
    ADD COLUMN network text NOT NULL DEFAULT '';

-- Which guests have become the owner of an account: once, and of one.
CREATE TABLE guest_merges (
    guest_id  uuid PRIMARY KEY,
    user_id   uuid NOT NULL REFERENCES users,
    merged_at timestamptz NOT NULL
);

CREATE INDEX guest_merges_user ON guest_merges (user_id);
CREATE INDEX guest_merges_age ON guest_merges (merged_at);

-- What was mailed to show that somebody reads the mail of an address, by its SHA-256, until it is used.
CREATE TABLE mailed_tokens (
    digest     bytea PRIMARY KEY CHECK (length(digest) = 32),
    user_id    uuid NOT NULL REFERENCES users,
    purpose    text NOT NULL CHECK (purpose IN ('reset_password', 'confirm_email')),
    email      text NOT NULL,
    session_id uuid,
    expires_at timestamptz NOT NULL
);

CREATE INDEX mailed_tokens_user ON mailed_tokens (user_id, purpose);
CREATE INDEX mailed_tokens_expiry ON mailed_tokens (expires_at);

-- Who has changed what an account may do as staff; `changed_by` is NULL if the shop's settings did.
CREATE TABLE role_changes (
    change_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id    uuid NOT NULL REFERENCES users,
    changed_by uuid,
    before     text[] NOT NULL,
    after      text[] NOT NULL,
    reason     text NOT NULL,
    at         timestamptz NOT NULL
);

CREATE INDEX role_changes_user ON role_changes (user_id, change_id DESC);

-- How often something was asked for from one place on the internet, by the SHA-256 of the place.
CREATE TABLE origin_requests (
    subject       text NOT NULL,
    origin_digest bytea NOT NULL CHECK (length(origin_digest) = 32),
    since         timestamptz NOT NULL,
    count         integer NOT NULL,
    PRIMARY KEY (subject, origin_digest)
);

CREATE INDEX origin_requests_age ON origin_requests (since);
