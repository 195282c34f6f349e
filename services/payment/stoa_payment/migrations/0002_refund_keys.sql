-- Whose a refund's request id is: those that the order service makes and those that people send never meet. What an
-- older process writes meanwhile counts as sent by people: should it be the rest of a cancelled order, then nothing is
-- left when the order service asks again, and the order learns of its money by the event.
ALTER TABLE refunds
    ADD COLUMN key_namespace text NOT NULL DEFAULT 'user',
    -- Whether all that was left was asked for rather than an amount; null if a version wrote it that did not note it.
    ADD COLUMN of_rest boolean,
    DROP CONSTRAINT refunds_payment_id_request_id_key,
    ADD CONSTRAINT refunds_key UNIQUE (payment_id, key_namespace, request_id);

-- What the order service asked for, and what we did. Somebody may have sent the order service's key: if something is
-- left of the payment it was not the order service, which asks for all.
UPDATE refunds SET key_namespace = 'service:order', of_rest = true
FROM payments
WHERE payments.payment_id = refunds.payment_id
    AND refunds.request_id = 'cancel-' || payments.order_id
    AND payments.refunded_amount + payments.refunding_amount = payments.amount;
UPDATE refunds SET key_namespace = 'service:payment', of_rest = true WHERE request_id = 'late-capture';
