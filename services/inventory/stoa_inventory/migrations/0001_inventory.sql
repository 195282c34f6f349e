CREATE TABLE inventory (
    variant_id uuid PRIMARY KEY,
    product_id uuid NOT NULL,
    stock_count integer NOT NULL DEFAULT 0,
    reserved_count integer NOT NULL DEFAULT 0,
    threshold integer NOT NULL DEFAULT 5 CHECK (threshold >= 0),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CHECK (reserved_count BETWEEN 0 AND stock_count)
);
-- The list of stock, the scarcest first, with or without what is low.
CREATE INDEX inventory_by_available ON inventory ((stock_count - reserved_count), variant_id);

-- What became of each order that inventory has heard of. An order that was cancelled before it was heard of has a
-- row too: it keeps a late order.placed from reserving.
CREATE TABLE holds (
    order_id uuid PRIMARY KEY,
    status text NOT NULL CHECK (status IN ('held', 'refused', 'released', 'shipped', 'returned')),
    updated_at timestamptz NOT NULL
);

CREATE TABLE reservations (
    order_id uuid NOT NULL REFERENCES holds,
    variant_id uuid NOT NULL REFERENCES inventory,
    quantity integer NOT NULL CHECK (quantity > 0),
    status text NOT NULL CHECK (status IN ('held', 'released', 'shipped', 'returned')),
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (order_id, variant_id)
);
CREATE INDEX reservations_held ON reservations (variant_id) WHERE status = 'held';

-- Every change of a count, and the counts after it. The sums of the changes are the counts.
CREATE TABLE stock_movements (
    movement_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    variant_id uuid NOT NULL REFERENCES inventory,
    kind text NOT NULL CHECK (kind IN ('adjusted', 'reserved', 'released', 'shipped', 'returned')),
    stock_delta integer NOT NULL,
    reserved_delta integer NOT NULL,
    stock_after integer NOT NULL,
    reserved_after integer NOT NULL,
    order_id uuid,
    request_id text,
    reason text NOT NULL DEFAULT '',
    at timestamptz NOT NULL
);
CREATE UNIQUE INDEX stock_movements_request ON stock_movements (variant_id, request_id);
CREATE INDEX stock_movements_of_order ON stock_movements (order_id) WHERE order_id IS NOT NULL;

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'stock_movements only grows';
END $$;
CREATE TRIGGER stock_movements_only_grow BEFORE UPDATE OR DELETE ON stock_movements
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
