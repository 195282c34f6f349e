-- Never a card number or CVV: the gateway turns the card into a token before it reaches us.
CREATE TABLE payments (
    payment_id       uuid PRIMARY KEY,
    order_id         uuid NOT NULL UNIQUE,
    user_id          uuid NOT NULL,
    currency         text NOT NULL,
    amount           numeric(12, 2) NOT NULL CHECK (amount > 0),
    refunded_amount  numeric(12, 2) NOT NULL,
    -- Promised back, but not confirmed by the gateway yet.
    refunding_amount numeric(12, 2) NOT NULL,
    status           text NOT NULL
        CHECK (status IN ('pending', 'succeeded', 'failed', 'partially_refunded', 'refunded')),
    method_type      text NOT NULL,
    brand            text NOT NULL,
    last4            text NOT NULL CHECK (last4 ~ '^([0-9]{4})?$'),
    gateway_charge_id text UNIQUE,
    failure_reason   text NOT NULL,
    -- Kept until the payment is settled: the charge may have to be asked for again.
    payment_token    text,
    correlation_id   text NOT NULL,
    attempts         integer NOT NULL,
    next_check_at    timestamptz,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    CHECK (refunded_amount >= 0 AND refunding_amount >= 0 AND refunded_amount + refunding_amount <= amount),
    CHECK ((status = 'pending') = (payment_token IS NOT NULL)),
    CHECK ((status = 'pending') = (next_check_at IS NOT NULL))
);
CREATE INDEX payments_due ON payments (next_check_at) WHERE next_check_at IS NOT NULL;

CREATE TABLE refunds (
    refund_id         uuid PRIMARY KEY,
    payment_id        uuid NOT NULL REFERENCES payments,
    request_id        text NOT NULL,
    currency          text NOT NULL,
    amount            numeric(12, 2) NOT NULL CHECK (amount > 0),
    reason            text NOT NULL,
    status            text NOT NULL CHECK (status IN ('pending', 'succeeded')),
    gateway_refund_id text UNIQUE,
    correlation_id    text NOT NULL,
    attempts          integer NOT NULL,
    next_check_at     timestamptz,
    created_at        timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL,
    UNIQUE (payment_id, request_id),
    CHECK ((status = 'pending') = (next_check_at IS NOT NULL))
);
CREATE INDEX refunds_due ON refunds (next_check_at) WHERE next_check_at IS NOT NULL;
