-- The event store is the truth; orders, order_items and order_status_history are projections that
-- `stoa replay order` rebuilds from it. An order's writers meet at the key (order_id, version).
CREATE TABLE order_events (
    order_id uuid NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    type text NOT NULL,
    data jsonb NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (order_id, version)
);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'order_events only grows';
END $$;
CREATE TRIGGER order_events_only_grow BEFORE UPDATE OR DELETE ON order_events
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE TABLE orders (
    order_id uuid PRIMARY KEY,
    version integer NOT NULL,
    user_id uuid NOT NULL,
    request_id text NOT NULL,
    status text NOT NULL
        CHECK (status IN ('pending', 'confirmed', 'shipped', 'delivered', 'returned', 'cancelled')),
    stock_reserved boolean NOT NULL,
    currency text NOT NULL,
    subtotal numeric(12, 2) NOT NULL,
    shipping_amount numeric(12, 2) NOT NULL,
    tax_amount numeric(12, 2) NOT NULL,
    total_amount numeric(12, 2) NOT NULL,
    shipping_address jsonb NOT NULL,
    shipping_method text NOT NULL,
    payment jsonb,
    created_at timestamptz NOT NULL,
    UNIQUE (user_id, request_id)
);
-- Order ids are UUIDv7: the newest first is the greatest id first.
CREATE INDEX orders_of_user ON orders (user_id, order_id DESC);
CREATE INDEX orders_by_status ON orders (status, order_id DESC);

CREATE TABLE order_items (
    order_item_id uuid PRIMARY KEY,
    order_id uuid NOT NULL REFERENCES orders,
    line integer NOT NULL,
    product_id uuid NOT NULL,
    variant_id uuid NOT NULL,
    name text NOT NULL,
    quantity integer NOT NULL CHECK (quantity > 0),
    price numeric(12, 2) NOT NULL CHECK (price > 0),
    UNIQUE (order_id, line)
);

CREATE TABLE order_status_history (
    order_id uuid NOT NULL REFERENCES orders,
    position integer NOT NULL,
    status text NOT NULL,
    reason text NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (order_id, position)
);

-- One row for each order whose process goes on: which step it is at, when to ask or look again, until when
-- it may wait. The payment token stays here, and only as long as it may be needed.
CREATE TABLE sagas (
    order_id uuid PRIMARY KEY,
    step text NOT NULL,
    started_at timestamptz NOT NULL,
    due_at timestamptz NOT NULL,
    deadline_at timestamptz,
    attempts integer NOT NULL DEFAULT 0,
    payment_token text
);
CREATE INDEX sagas_due ON sagas (due_at);
