-- Whether the amount is only held by the gateway, to be taken later. An older process takes it at once, and writes false.
ALTER TABLE payments
    ADD COLUMN held boolean NOT NULL DEFAULT false,
    DROP CONSTRAINT payments_check2,
    -- Looked after are what is pending, and what is held and being taken.
    ADD CONSTRAINT payments_looked_after CHECK (
        CASE status
            WHEN 'pending' THEN next_check_at IS NOT NULL
            WHEN 'succeeded' THEN held OR next_check_at IS NULL
            ELSE next_check_at IS NULL
        END
    );
