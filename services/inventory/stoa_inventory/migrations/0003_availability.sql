-- Whether a variant can be bought, as it was last published, and in which version. An older process leaves both alone;
-- what it changes, and what there was before, is published by a sweep, which finds it by the index.
ALTER TABLE inventory ADD COLUMN announced boolean NOT NULL DEFAULT false;
ALTER TABLE inventory ADD COLUMN availability_version bigint NOT NULL DEFAULT 0;
CREATE INDEX inventory_unannounced ON inventory (variant_id)
    WHERE announced <> (on_sale AND stock_count > reserved_count);
