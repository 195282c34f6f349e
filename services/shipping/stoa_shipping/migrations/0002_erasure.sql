-- Where a parcel of a person went is forgotten once it is there; what is yet to be sent needs its address until then.
ALTER TABLE shipments ADD COLUMN erased boolean NOT NULL DEFAULT false;
CREATE INDEX shipments_of_user ON shipments (user_id) WHERE user_id IS NOT NULL;

-- Whose account was erased: an order of hers may be heard of later.
CREATE TABLE erased_users (
    user_id   uuid PRIMARY KEY,
    erased_at timestamptz NOT NULL
);
