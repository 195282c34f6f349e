-- The outbox: events that a transaction caused, until the relay has published them (Transactional Outbox pattern).
CREATE TABLE outbox (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id     uuid NOT NULL UNIQUE,
    topic        text NOT NULL,
    key          text NOT NULL,
    value        bytea NOT NULL,
    headers      jsonb NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz
);
-- The relay reads from the front of this index; published rows are not in it, so it stays tiny.
CREATE INDEX outbox_unpublished ON outbox (id) WHERE published_at IS NULL;
-- For the pruning of what was published long ago.
CREATE INDEX outbox_published ON outbox (published_at) WHERE published_at IS NOT NULL;
-- Each row is updated once: vacuum by count, or a big table would be left with its dead versions for long.
ALTER TABLE outbox SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);

-- The inbox: events that were processed, so that a second delivery has no effect (Idempotent Consumer pattern).
CREATE TABLE inbox (
    event_id    uuid PRIMARY KEY,
    topic       text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX inbox_received ON inbox USING brin (received_at);
