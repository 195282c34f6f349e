-- The request that an order goes back to: whatever its saga does, however late, carries it.
ALTER TABLE sagas ADD COLUMN correlation_id text NOT NULL DEFAULT '';
