"""An audit that is fed wrong books says what is wrong."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest

from stoa_stack.audit.books import Backlog, Books, Charge, Count, Order, Payment, Reservation
from stoa_stack.audit.invariants import findings

BOUGHT, CANCELLED, LAMP = uuid4(), uuid4(), uuid4()
PRICE = Decimal("21.59")


def books() -> Books:
    """A shop that sold one of five lamps, and one that was given back."""
    return Books(
        orders={
            BOUGHT: Order(BOUGHT, "confirmed", PRICE, Counter({LAMP: 1}), 4, 4),
            CANCELLED: Order(CANCELLED, "cancelled", PRICE, Counter({LAMP: 2}), 6, 6),
        },
        payments=[
            Payment(uuid4(), BOUGHT, PRICE, Decimal(0), "succeeded", "ch_1"),
            Payment(uuid4(), CANCELLED, PRICE, PRICE, "refunded", "ch_2"),
        ],
        charges=[
            Charge("ch_1", str(BOUGHT), PRICE, Decimal(0), "succeeded"),
            Charge("ch_2", str(CANCELLED), PRICE, PRICE, "succeeded"),
        ],
        counts={LAMP: Count(5, 1)},
        movements={LAMP: Count(5, 1)},
        reservations=[
            Reservation(BOUGHT, LAMP, 1, "held"),
            Reservation(CANCELLED, LAMP, 2, "released"),
        ],
        backlogs={"order": Backlog(3, timedelta(seconds=1))},
        dead_letters={"order.dlq": 0},
    )


def broken(books: Books) -> set[str]:
    return {finding.rule for finding in findings(books)}


def order(books: Books, order_id: UUID, **changes: object) -> None:
    books.orders[order_id] = replace(books.orders[order_id], **changes)  # type: ignore[arg-type]  # any field


def a_stock_row_changed_by_hand(books: Books) -> None:
    books.counts[LAMP] = Count(6, 1)


def a_reserved_count_changed_by_hand(books: Books) -> None:
    books.counts[LAMP] = books.movements[LAMP] = Count(5, 2)


def more_promised_than_there_is(books: Books) -> None:
    books.counts[LAMP] = Count(0, 1)


def a_charge_without_an_order(books: Books) -> None:
    books.payments.append(Payment(uuid4(), uuid4(), PRICE, Decimal(0), "succeeded", "ch_3"))


def a_charge_that_only_the_gateway_knows(books: Books) -> None:
    books.charges.append(Charge("ch_3", str(uuid4()), PRICE, Decimal(0), "succeeded"))


def two_charges_for_one_order(books: Books) -> None:
    books.charges.append(Charge("ch_3", str(BOUGHT), PRICE, Decimal(0), "succeeded"))


def a_confirmed_order_that_was_never_charged(books: Books) -> None:
    del books.payments[0], books.charges[0]


def a_confirmed_order_that_was_charged_too_much(books: Books) -> None:
    books.payments[0] = replace(books.payments[0], amount=PRICE * 2)
    books.charges[0] = replace(books.charges[0], amount=PRICE * 2)


def a_cancelled_order_that_was_not_refunded(books: Books) -> None:
    books.payments[1] = replace(books.payments[1], status="succeeded", refunded=Decimal(0))
    books.charges[1] = replace(books.charges[1], refunded=Decimal(0))


def a_refund_that_never_reached_the_gateway(books: Books) -> None:
    books.charges[1] = replace(books.charges[1], refunded=Decimal(0))


def a_confirmed_order_without_its_stock(books: Books) -> None:
    books.reservations[0] = replace(books.reservations[0], status="released")
    books.counts[LAMP] = books.movements[LAMP] = Count(5, 0)


def stock_that_a_cancelled_order_still_holds(books: Books) -> None:
    books.reservations[1] = replace(books.reservations[1], status="held")
    books.counts[LAMP] = books.movements[LAMP] = Count(5, 3)


def an_order_that_never_ends(books: Books) -> None:
    order(books, BOUGHT, status="pending")


def a_saga_that_never_ends(books: Books) -> None:
    books.sagas[CANCELLED] = "refund"


def a_payment_that_never_ends(books: Books) -> None:
    books.payments.append(Payment(uuid4(), CANCELLED, PRICE, Decimal(0), "pending", None))


def a_projection_that_lags_behind(books: Books) -> None:
    order(books, BOUGHT, version=3)


def events_that_are_not_published(books: Books) -> None:
    books.backlogs["order"] = Backlog(1, timedelta(minutes=5))


def a_dead_letter(books: Books) -> None:
    books.dead_letters["order.dlq"] = 1


RULES: dict[Callable[[Books], None], str] = {
    a_stock_row_changed_by_hand: "stock is the sum of its movements",
    a_reserved_count_changed_by_hand: "what is reserved is promised to orders",
    more_promised_than_there_is: "nothing is oversold",
    a_charge_without_an_order: "no charge without an order",
    a_charge_that_only_the_gateway_knows: "the gateway's ledger agrees",
    two_charges_for_one_order: "the gateway's ledger agrees",
    a_confirmed_order_that_was_never_charged: "a confirmed order is charged once",
    a_confirmed_order_that_was_charged_too_much: "a confirmed order is charged once",
    a_cancelled_order_that_was_not_refunded: "a cancelled order is refunded in full",
    a_refund_that_never_reached_the_gateway: "the gateway's ledger agrees",
    a_confirmed_order_without_its_stock: "orders have the stock that they wait for, and no others",
    stock_that_a_cancelled_order_still_holds: "orders have the stock that they wait for, and no others",
    an_order_that_never_ends: "every order is settled",
    a_saga_that_never_ends: "every order is settled",
    a_payment_that_never_ends: "every order is settled",
    a_projection_that_lags_behind: "projections match their events",
    events_that_are_not_published: "events are published",
    a_dead_letter: "no message is given up",
}


def test_books_that_balance_have_no_findings() -> None:
    assert not list(findings(books()))


@pytest.mark.parametrize("wrong", RULES, ids=lambda wrong: wrong.__name__)
def test_what_is_wrong_is_found(wrong: Callable[[Books], None]) -> None:
    told = books()
    wrong(told)
    assert RULES[wrong] in broken(told)
