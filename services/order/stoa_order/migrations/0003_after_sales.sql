-- What became of the parcel and of a cancellation, how a guest is written to, and since when a return can be asked
-- for. A process of before leaves these alone; it knows of no order that has them.
ALTER TABLE orders
    ADD COLUMN shipment jsonb,
    ADD COLUMN cancellation text,
    ADD COLUMN contact jsonb,
    ADD COLUMN email_key text;
CREATE INDEX orders_of_address ON orders (email_key) WHERE email_key IS NOT NULL;

-- A projection, as the others: what comes back of orders.
CREATE TABLE order_returns (
    return_id uuid PRIMARY KEY,
    order_id uuid NOT NULL REFERENCES orders,
    request_id text NOT NULL,
    status text NOT NULL CHECK (status IN ('requested', 'approved', 'rejected', 'received', 'refunded')),
    items jsonb NOT NULL,
    reason text NOT NULL,
    decision text NOT NULL,
    refund_amount numeric(12, 2) NOT NULL CHECK (refund_amount >= 0),
    currency text NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX order_returns_of_order ON order_returns (order_id, return_id);
CREATE INDEX order_returns_by_status ON order_returns (status, return_id DESC);

-- Guests who order, and the accounts that they have become. The row is what an order of a guest and her sign-in meet
-- at, so that none is left behind.
CREATE TABLE guests (
    guest_id uuid PRIMARY KEY,
    user_id uuid
);

-- The event store only grows, but who bought can be taken out of it: nothing else of a fact can be changed.
CREATE FUNCTION without_person(data jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT data
        || CASE WHEN data ? 'shipping_address' THEN jsonb_build_object('shipping_address', (
               SELECT jsonb_object_agg(key, CASE key WHEN 'country' THEN value ELSE '""' END)
               FROM jsonb_each(data -> 'shipping_address')
           )) ELSE '{}' END
        || CASE WHEN data ? 'request' THEN '{"request": null}'::jsonb ELSE '{}' END
        || CASE WHEN data ? 'contact' THEN '{"contact": {"email": "", "locale": ""}}'::jsonb ELSE '{}' END
        || CASE WHEN data ? 'reason' THEN '{"reason": ""}'::jsonb ELSE '{}' END
$$;

CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.data = without_person(OLD.data)
        AND (NEW.order_id, NEW.version, NEW.type, NEW.at) = (OLD.order_id, OLD.version, OLD.type, OLD.at)
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'order_events only grows';
END $$;
