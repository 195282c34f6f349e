"""What the audit finds in the books of the payment service."""

from dataclasses import replace
from decimal import Decimal

import pytest

from stoa_chassis.ids import new_id
from stoa_payment.audit import Books, Payment, findings

PRICE, NOTHING = Decimal("9.90"), Decimal(0)
REFUNDED = Payment(new_id(), new_id(), PRICE, PRICE, NOTHING, "refunded", "ch_1", made=PRICE)


def rules(payment: Payment) -> list[str]:
    return [finding.rule for finding in findings(Books([payment]))]


def test_a_payment_that_is_the_sum_of_its_refunds_is_in_order() -> None:
    assert rules(REFUNDED) == []


@pytest.mark.parametrize(
    ("payment", "rule"),
    [
        (Payment(new_id(), new_id(), PRICE, NOTHING, NOTHING, "pending", None), "every payment is settled"),
        (
            Payment(new_id(), new_id(), PRICE, NOTHING, NOTHING, "succeeded", "ch_1", capturing=True),
            "every payment is settled",
        ),
        (
            replace(REFUNDED, refunded=NOTHING, refunding=PRICE, made=NOTHING, promised=PRICE),
            "every refund is made",
        ),
        (replace(REFUNDED, made=PRICE / 2), "a payment is the sum of its refunds"),
    ],
)
def test_what_is_wrong_is_found(payment: Payment, rule: str) -> None:
    assert rules(payment) == [rule]
