CREATE TABLE shipments (
    shipment_id        uuid PRIMARY KEY,
    order_id           uuid NOT NULL UNIQUE,
    user_id            uuid,
    -- waiting: something was heard of the order, but not yet that it is both confirmed and paid.
    status             text NOT NULL CHECK (status IN (
        'waiting', 'pending', 'created', 'in_transit', 'out_for_delivery', 'delivered', 'exception', 'returned', 'stopped')),
    paid               boolean NOT NULL,
    -- What is sent where, and what it is worth: null until the order was confirmed.
    shipping_method    text CHECK (shipping_method IN ('standard', 'express')),
    destination        jsonb,
    weight_grams       bigint CHECK (weight_grams >= 0),
    currency           text,
    value              numeric(12, 2),
    -- The booking that won: null until a carrier has booked.
    carrier            text,
    tracking_id        text,
    tracking_url       text,
    estimated_delivery timestamptz,
    stopping           boolean NOT NULL,
    problem            text NOT NULL,
    -- Both are small, and neither read nor written without their shipment.
    bookings           jsonb NOT NULL,
    history            jsonb NOT NULL,
    correlation_id     text NOT NULL,
    attempts           integer NOT NULL,
    due_at             timestamptz,
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL,
    UNIQUE (carrier, tracking_id),
    CONSTRAINT shipments_parcel CHECK (
        num_nulls(shipping_method, destination, weight_grams, currency, value) IN (0, 5)),
    CONSTRAINT shipments_label CHECK (num_nulls(carrier, tracking_id, tracking_url, estimated_delivery) IN (0, 4)),
    CONSTRAINT shipments_sent CHECK (
        status IN ('waiting', 'stopped') OR (paid AND user_id IS NOT NULL AND shipping_method IS NOT NULL)),
    CONSTRAINT shipments_carried CHECK (
        status IN ('waiting', 'pending', 'stopped') OR carrier IS NOT NULL),
    CONSTRAINT shipments_stopping CHECK (status = 'created' OR NOT stopping),
    -- What is not finished falls due: nothing is forgotten.
    CONSTRAINT shipments_unfinished CHECK (
        status IN ('waiting', 'delivered', 'returned', 'stopped') OR due_at IS NOT NULL)
);
CREATE INDEX shipments_due ON shipments (due_at) WHERE due_at IS NOT NULL;
-- The list of those of one status, the newest first: ids grow with time.
CREATE INDEX shipments_status ON shipments (status, shipment_id DESC);

-- What the catalogue says that one of a variant weighs; 0: nobody has weighed it.
CREATE TABLE variant_weights (
    variant_id   uuid PRIMARY KEY,
    weight_grams integer NOT NULL CHECK (weight_grams >= 0),
    -- Of the product when it was said: a later one wins.
    version      bigint NOT NULL
);
