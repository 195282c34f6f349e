-- How users are reached, and what they want to be told. Each part knows as of when it is true: events come in any order.
CREATE TABLE contacts (
    user_id       uuid PRIMARY KEY,
    email         text NOT NULL,
    email_as_of   timestamptz,
    first_name    text NOT NULL,
    locale        text NOT NULL,
    profile_as_of timestamptz,
    by_email      boolean NOT NULL,
    by_sms        boolean NOT NULL,
    by_push       boolean NOT NULL,
    of_orders     boolean NOT NULL,
    of_shipping   boolean NOT NULL,
    of_marketing  boolean NOT NULL,
    phone_number  text NOT NULL,
    push_token    text NOT NULL,
    -- When the person was forgotten; the row stays, so that late events bring nobody back.
    erased_at     timestamptz,
    CHECK (erased_at IS NULL OR email || first_name || phone_number || push_token = '')
);

-- Orders without an account behind them.
CREATE TABLE guest_orders (
    order_id     uuid PRIMARY KEY,
    user_id      uuid NOT NULL,
    email        text NOT NULL,
    locale       text NOT NULL,
    access_token text NOT NULL
);
CREATE INDEX guest_orders_of_user ON guest_orders (user_id);

-- Where carriers show parcels: said when a parcel is booked, and told when it is on its way.
CREATE TABLE parcels (
    shipment_id        uuid PRIMARY KEY,
    tracking_url       text NOT NULL,
    estimated_delivery timestamptz NOT NULL
);

CREATE TABLE notifications (
    notification_id uuid PRIMARY KEY,
    -- The event that it tells of.
    cause_id       uuid NOT NULL,
    channel        text NOT NULL CHECK (channel IN ('email', 'sms', 'push')),
    template       text NOT NULL,
    user_id        uuid,
    order_id       uuid,
    -- What it tells, and to whom (null while that is not known); forgotten when it has ended.
    facts          jsonb NOT NULL,
    recipient      jsonb,
    subject        text NOT NULL,
    status         text NOT NULL CHECK (status IN ('pending', 'sent', 'failed', 'suppressed')),
    provider       text NOT NULL,
    failure        text NOT NULL,
    correlation_id text NOT NULL,
    expires_at     timestamptz,
    -- The parcel of which the facts are still missing.
    shipment_id    uuid,
    attempts       integer NOT NULL,
    -- So many attempts have certainly not delivered it.
    concluded      integer NOT NULL,
    due_at         timestamptz,
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    CONSTRAINT notifications_once UNIQUE (cause_id, channel),
    CHECK ((status = 'pending') = (due_at IS NOT NULL)),
    CHECK (status = 'pending' OR recipient IS NULL)
);
-- A user's, the newest first: ids grow with time.
CREATE INDEX notifications_of_user ON notifications (user_id, notification_id DESC);
CREATE INDEX notifications_of_order ON notifications (order_id) WHERE order_id IS NOT NULL;
CREATE INDEX notifications_due ON notifications (due_at) WHERE due_at IS NOT NULL;
