"""An audit that is fed wrong books says what is wrong."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from stoa_cart import audit as cart
from stoa_cart.audit import Claim
from stoa_catalog import audit as catalog
from stoa_inventory import audit as inventory
from stoa_inventory.audit import Count, Reservation
from stoa_ops.audit import command
from stoa_ops.audit.books import Backlog, Charge, Parcel, ShopBooks
from stoa_ops.audit.event_log import EventBooks, Garbage, Seen, Written
from stoa_ops.audit.invariants import findings
from stoa_ops.settings import OperatorSettings
from stoa_ops.topics import Position
from stoa_order import audit as order
from stoa_order.audit import Order, Return
from stoa_payment import audit as payment
from stoa_payment.audit import OrderRefund, Payment
from stoa_review import audit as review
from stoa_shipping import audit as shipping
from stoa_shipping.audit import Shipment

BOUGHT, CANCELLED, RETURNED, LAMP = uuid4(), uuid4(), uuid4(), uuid4()
SENT, STOPPED, DELIVERED = uuid4(), uuid4(), uuid4()
PRICE = Decimal("21.59")
BACK = Return(uuid4(), "refunded", {LAMP: 1}, PRICE)
PLACED, RESERVED = uuid4(), uuid4()
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
AT_ORDER_PLACED = Position("order.placed", 0)


def events() -> EventBooks:
    """An order was placed, which inventory and cart have processed; nobody has inventory's answer yet."""
    answered = Position("inventory.reserved", 3)
    written = NOW - timedelta(minutes=1)
    return EventBooks(
        written={
            PLACED: Written("order", "order.placed", written, published=True),
            RESERVED: Written("inventory", "inventory.reserved", written, published=True),
        },
        seen={PLACED: Seen(AT_ORDER_PLACED, 7, written), RESERVED: Seen(answered, 2, written)},
        committed={"inventory": {AT_ORDER_PLACED: 8}, "cart": {AT_ORDER_PLACED: 8}, "order": {answered: 2}},
        inboxes={"inventory": {PLACED}, "cart": {PLACED}, "order": set()},
        noted={"inventory": ("order.placed",), "cart": ("order.placed",), "order": ("inventory.reserved",)},
        began=NOW,
    )


class Told(ShopBooks):
    """Books in which a test can change everything."""

    orders: dict[UUID, Order]
    payments: list[Payment]
    charges: list[Charge]
    counts: dict[UUID, Count]
    movements: dict[UUID, Count]
    reservations: list[Reservation]
    claims: list[Claim]
    returned: dict[UUID, dict[UUID, int]]
    refunds: list[OrderRefund]
    reviewed: dict[UUID, review.Rating]
    shown: dict[UUID, catalog.Rating]
    shipments: list[Shipment]
    parcels: list[Parcel]
    backlogs: dict[str, Backlog]
    dead_letters: dict[str, int]


def books() -> Told:
    """A shop that sold one of five lamps, one that was cancelled, and one that was sent back."""
    told = Told(
        charges=[
            Charge("ch_1", str(BOUGHT), PRICE, Decimal(0), "succeeded"),
            Charge("ch_2", str(CANCELLED), PRICE, PRICE, "succeeded"),
            Charge("ch_4", str(RETURNED), PRICE, PRICE, "succeeded"),
        ],
        parcels=[
            Parcel("ups", str(SENT), "1Z1", "confirmed"),
            Parcel("ups", str(STOPPED), "1Z2", "voided"),
            Parcel("ups", str(DELIVERED), "1Z3", "confirmed"),
        ],
        backlogs={"order": Backlog(3, timedelta(seconds=1))},
        dead_letters={"order.dlq": 0},
        events=events(),
    )
    told.orders = {
        BOUGHT: Order(BOUGHT, "confirmed", PRICE, 4, 4, "", {LAMP: 1}),
        CANCELLED: Order(CANCELLED, "cancelled", PRICE, 6, 6, "", {LAMP: 2}),
        RETURNED: Order(RETURNED, "returned", PRICE, 9, 9, "", {LAMP: 1}, [BACK]),
    }
    nothing = Decimal(0)
    told.payments = [
        Payment(uuid4(), BOUGHT, PRICE, nothing, nothing, "succeeded", "ch_1"),
        Payment(uuid4(), CANCELLED, PRICE, PRICE, nothing, "refunded", "ch_2", made=PRICE),
        Payment(uuid4(), RETURNED, PRICE, PRICE, nothing, "refunded", "ch_4", made=PRICE),
    ]
    told.refunds = [
        OrderRefund(CANCELLED, f"cancel-{CANCELLED}", PRICE, "succeeded"),
        OrderRefund(RETURNED, str(BACK.return_id), PRICE, "succeeded"),
    ]
    told.returned = {RETURNED: {LAMP: 1}}
    told.counts, told.movements = {LAMP: Count(5, 1)}, {LAMP: Count(5, 1)}
    told.reservations = [Reservation(BOUGHT, LAMP, 1, "held"), Reservation(CANCELLED, LAMP, 2, "released")]
    told.claims = []
    told.reviewed, told.shown = {LAMP: review.Rating(2, 9)}, {LAMP: catalog.Rating(2, 9)}
    told.shipments = [
        Shipment(SENT, BOUGHT, "created", "ups", "1Z1", bookings={"ups": "confirmed"}),
        Shipment(STOPPED, CANCELLED, "stopped", "ups", "1Z2", bookings={"ups": "voided"}),
        Shipment(DELIVERED, RETURNED, "delivered", "ups", "1Z3", bookings={"ups": "confirmed"}),
    ]
    told.services = {
        "order": order.Books(told.orders),
        "payment": payment.Books(told.payments, told.refunds),
        "inventory": inventory.Books(told.counts, told.movements, told.reservations, told.returned),
        "cart": cart.Books(told.claims),
        "catalog": catalog.Books(told.shown),
        "review": review.Books(
            [review.Review(uuid4(), LAMP, None, rating, True, 0, 1) for rating in (4, 5)],
            told.reviewed,
            told.reviewed,
        ),
        "shipping": shipping.Books(told.shipments),
    }
    return told


def broken(books: ShopBooks) -> set[str]:
    return {finding.rule for finding in findings(books)}


def a_stock_row_changed_by_hand(books: Told) -> None:
    books.counts[LAMP] = Count(6, 1)


def a_reserved_count_changed_by_hand(books: Told) -> None:
    books.counts[LAMP] = books.movements[LAMP] = Count(5, 2)


def more_promised_than_there_is(books: Told) -> None:
    books.counts[LAMP] = Count(0, 1)


def a_charge_without_an_order(books: Told) -> None:
    books.payments.append(Payment(uuid4(), uuid4(), PRICE, Decimal(0), Decimal(0), "succeeded", "ch_3"))


def a_charge_that_only_the_gateway_knows(books: Told) -> None:
    books.charges.append(Charge("ch_3", str(uuid4()), PRICE, Decimal(0), "succeeded"))


def two_charges_for_one_order(books: Told) -> None:
    books.charges.append(Charge("ch_3", str(BOUGHT), PRICE, Decimal(0), "succeeded"))


def a_confirmed_order_that_was_never_charged(books: Told) -> None:
    del books.payments[0], books.charges[0]


def a_confirmed_order_that_was_charged_too_much(books: Told) -> None:
    books.payments[0] = replace(books.payments[0], amount=PRICE * 2)
    books.charges[0] = replace(books.charges[0], amount=PRICE * 2)


def a_cancelled_order_that_was_not_refunded(books: Told) -> None:
    books.payments[1] = replace(books.payments[1], status="succeeded", refunded=Decimal(0), made=Decimal(0))
    books.charges[1] = replace(books.charges[1], refunded=Decimal(0))


def a_confirmed_order_without_its_money(books: Told) -> None:
    books.payments[0] = replace(books.payments[0], status="refunded", refunded=PRICE, made=PRICE)
    books.charges[0] = replace(books.charges[0], refunded=PRICE)


def a_refund_that_never_reached_the_gateway(books: Told) -> None:
    books.charges[1] = replace(books.charges[1], refunded=Decimal(0))


def a_confirmed_order_without_its_stock(books: Told) -> None:
    books.reservations[0] = replace(books.reservations[0], status="released")
    books.counts[LAMP] = books.movements[LAMP] = Count(5, 0)


def stock_that_a_cancelled_order_still_holds(books: Told) -> None:
    books.reservations[1] = replace(books.reservations[1], status="held")
    books.counts[LAMP] = books.movements[LAMP] = Count(5, 3)


def an_order_that_never_ends(books: Told) -> None:
    books.orders[BOUGHT] = replace(books.orders[BOUGHT], status="pending")


def a_saga_that_never_ends(books: Told) -> None:
    books.orders[CANCELLED] = replace(books.orders[CANCELLED], step="refund")


def a_payment_that_never_ends(books: Told) -> None:
    books.payments.append(Payment(uuid4(), CANCELLED, PRICE, Decimal(0), Decimal(0), "pending", None))


def a_refund_that_is_promised_and_not_made(books: Told) -> None:
    books.payments[0] = replace(books.payments[0], refunding=PRICE, promised=PRICE)


def a_projection_that_lags_behind(books: Told) -> None:
    books.orders[BOUGHT] = replace(books.orders[BOUGHT], version=3)


def events_that_are_not_published(books: Told) -> None:
    books.backlogs["order"] = Backlog(1, timedelta(minutes=5))


def a_dead_letter(books: Told) -> None:
    books.dead_letters["order.dlq"] = 1


def a_published_event_that_is_not_in_its_topic(books: Told) -> None:
    del books.events.seen[RESERVED]


def an_event_that_nobody_wrote(books: Told) -> None:
    books.events.seen[uuid4()] = Seen(Position("inventory.reserved", 3), 3, NOW - timedelta(minutes=1))


def an_event_that_was_passed_over(books: Told) -> None:
    books.events.inboxes = {"inventory": set(), "cart": {PLACED}, "order": set()}


def an_event_that_never_reached_a_cart(books: Told) -> None:
    books.events.inboxes = {"inventory": {PLACED}, "cart": set(), "order": set()}


def garbage_that_was_not_parked(books: Told) -> None:
    books.events.garbage.append(Garbage(AT_ORDER_PLACED, 6, ""))
    books.events.parked["cart"] = {(AT_ORDER_PLACED, 6)}


def a_claim_that_outlives_its_order(books: Told) -> None:
    books.claims.append(Claim(uuid4(), BOUGHT, "placed"))


def a_claim_that_is_kept_for_no_order(books: Told) -> None:
    books.claims.append(Claim(uuid4(), uuid4(), "placed"))


def a_cart_that_holds_again_what_was_ordered(books: Told) -> None:
    books.claims.append(Claim(uuid4(), CANCELLED, "lapsed"))


def a_return_that_was_refunded_in_part(books: Told) -> None:
    books.refunds[1] = replace(books.refunds[1], amount=PRICE / 2)


def a_return_that_was_refunded_twice(books: Told) -> None:
    books.refunds.append(replace(books.refunds[1], request_id=f"{BACK.return_id}-rest"))


def a_refund_of_a_return_that_never_came(books: Told) -> None:
    books.orders[RETURNED] = replace(
        books.orders[RETURNED], status="delivered", returns=[replace(BACK, status="approved")]
    )
    books.returned.clear()


def a_refund_of_an_unknown_return(books: Told) -> None:
    books.refunds.append(OrderRefund(BOUGHT, str(uuid4()), PRICE, "succeeded"))


def a_return_that_is_not_on_the_shelf(books: Told) -> None:
    books.returned.clear()


def a_rating_that_the_catalogue_does_not_show(books: Told) -> None:
    books.shown[LAMP] = catalog.Rating(1, 4)


def a_rating_that_only_the_catalogue_shows(books: Told) -> None:
    books.shown[uuid4()] = catalog.Rating(1, 5)


def a_rating_that_is_not_what_the_reviews_say(books: Told) -> None:
    books.reviewed[LAMP] = review.Rating(3, 14)
    books.shown[LAMP] = catalog.Rating(3, 14)


def a_confirmed_order_that_is_never_sent(books: Told) -> None:
    del books.shipments[0], books.parcels[0]


def a_parcel_of_an_order_that_was_cancelled(books: Told) -> None:
    books.orders[BOUGHT] = replace(books.orders[BOUGHT], status="cancelled")


def a_parcel_that_arrived_without_its_order_knowing(books: Told) -> None:
    books.shipments[0] = replace(books.shipments[0], status="delivered")


def an_order_that_was_shipped_without_a_parcel(books: Told) -> None:
    books.orders[BOUGHT] = replace(books.orders[BOUGHT], status="shipped")


def a_parcel_without_an_order(books: Told) -> None:
    del books.orders[BOUGHT]


def a_parcel_that_a_second_carrier_sends_too(books: Told) -> None:
    books.parcels.append(Parcel("fedex", str(SENT), "123", "confirmed"))


def a_label_that_was_not_voided(books: Told) -> None:
    books.parcels[1] = replace(books.parcels[1], status="booked")


def a_parcel_that_its_carrier_does_not_know(books: Told) -> None:
    del books.parcels[0]


def a_parcel_that_only_its_carrier_knows(books: Told) -> None:
    books.parcels.append(Parcel("dhl", str(uuid4()), "123", "confirmed"))


RULES: dict[Callable[[Told], None], str] = {
    a_stock_row_changed_by_hand: "stock is the sum of its movements",
    a_reserved_count_changed_by_hand: "what is reserved is promised to orders",
    more_promised_than_there_is: "nothing is oversold",
    a_charge_without_an_order: "no charge without an order",
    a_charge_that_only_the_gateway_knows: "the gateway's ledger agrees",
    two_charges_for_one_order: "the gateway's ledger agrees",
    a_confirmed_order_that_was_never_charged: "a confirmed order is charged once",
    a_confirmed_order_that_was_charged_too_much: "a confirmed order is charged once",
    a_cancelled_order_that_was_not_refunded: "a cancelled order is refunded in full",
    a_confirmed_order_without_its_money: "an order that is refunded in full is cancelled",
    a_refund_that_never_reached_the_gateway: "the gateway's ledger agrees",
    a_confirmed_order_without_its_stock: "orders have the stock that they wait for, and no others",
    stock_that_a_cancelled_order_still_holds: "orders have the stock that they wait for, and no others",
    a_claim_that_outlives_its_order: "a cart holds what its order under way is of, and no longer",
    a_claim_that_is_kept_for_no_order: "a cart holds what its order under way is of, and no longer",
    a_cart_that_holds_again_what_was_ordered: "a cart holds what its order under way is of, and no longer",
    a_return_that_was_refunded_in_part: "what came back is given back",
    a_return_that_was_refunded_twice: "what came back is given back",
    a_refund_of_a_return_that_never_came: "what came back is given back",
    a_refund_of_an_unknown_return: "what came back is given back",
    a_return_that_is_not_on_the_shelf: "what came back is on the shelf",
    a_rating_that_the_catalogue_does_not_show: "the catalogue shows the rating that reviews make",
    a_rating_that_only_the_catalogue_shows: "the catalogue shows the rating that reviews make",
    a_rating_that_is_not_what_the_reviews_say: "a product's rating is that of its published reviews",
    a_confirmed_order_that_is_never_sent: "an order is as far as its parcel",
    a_parcel_of_an_order_that_was_cancelled: "an order is as far as its parcel",
    a_parcel_that_arrived_without_its_order_knowing: "an order is as far as its parcel",
    an_order_that_was_shipped_without_a_parcel: "an order is as far as its parcel",
    a_parcel_without_an_order: "no parcel without an order",
    a_parcel_that_a_second_carrier_sends_too: "the carriers' ledger agrees",
    a_label_that_was_not_voided: "the carriers' ledger agrees",
    a_parcel_that_its_carrier_does_not_know: "the carriers' ledger agrees",
    a_parcel_that_only_its_carrier_knows: "the carriers' ledger agrees",
    an_order_that_never_ends: "every order is settled",
    a_saga_that_never_ends: "every order is settled",
    a_payment_that_never_ends: "every payment is settled",
    a_refund_that_is_promised_and_not_made: "every refund is made",
    a_projection_that_lags_behind: "projections match their events",
    events_that_are_not_published: "events are published",
    a_dead_letter: "no message is given up",
    a_published_event_that_is_not_in_its_topic: "published events are in their topics",
    an_event_that_nobody_wrote: "events in topics come from an outbox",
    an_event_that_was_passed_over: "consumed events took effect",
    an_event_that_never_reached_a_cart: "consumed events took effect",
    garbage_that_was_not_parked: "consumed events took effect",
}


def test_books_that_balance_have_no_findings() -> None:
    assert not list(findings(books()))


@pytest.mark.parametrize("wrong", RULES, ids=lambda wrong: wrong.__name__)
def test_what_is_wrong_is_found(wrong: Callable[[Told], None]) -> None:
    told = books()
    wrong(told)
    assert RULES[wrong] in broken(told)


def claims_of_orders_under_way_and_of_those_that_are_over(books: Told) -> None:
    for order_id, state in ((uuid4(), "open"), (uuid4(), "lapsed"), (BOUGHT, "over"), (CANCELLED, "over")):
        books.claims.append(Claim(uuid4(), order_id, state))


def an_event_that_is_not_consumed_yet(books: Told) -> None:
    books.events.committed = {"inventory": {AT_ORDER_PLACED: 7}}
    books.events.inboxes = {"inventory": set()}


def an_event_that_was_parked(books: Told) -> None:
    books.events.inboxes = {"inventory": set(), "cart": {PLACED}, "order": set()}
    books.events.parked["inventory"] = {PLACED}


def garbage_that_was_parked(books: Told) -> None:
    books.events.garbage.append(Garbage(AT_ORDER_PLACED, 6, ""))
    books.events.parked |= {group: {(AT_ORDER_PLACED, 6)} for group in ("inventory", "cart")}


def garbage_that_was_replayed_to_one_group(books: Told) -> None:
    books.events.garbage.append(Garbage(AT_ORDER_PLACED, 6, "cart"))
    books.events.parked["cart"] = {(AT_ORDER_PLACED, 6)}


def an_event_written_before_what_was_read_of_its_topic(books: Told) -> None:
    del books.events.seen[RESERVED]
    books.events.read_from["inventory.reserved"] = NOW - timedelta(seconds=30)


def an_event_so_old_that_topics_forget_it(books: Told) -> None:
    del books.events.seen[PLACED]
    old = books.events.written[PLACED]._replace(created_at=NOW - timedelta(days=7))
    books.events.written = {**books.events.written, PLACED: old}


def an_event_published_while_the_audit_reads(books: Told) -> None:
    books.events.seen[uuid4()] = Seen(Position("inventory.reserved", 3), 3, NOW + timedelta(seconds=1))


def events_published_twice(books: Told) -> None:
    books.events.repeated["order.placed"] = 2


def a_charge_unknown_here_that_was_given_back_at_the_gateway(books: Told) -> None:
    books.charges.append(Charge("ch_3", str(uuid4()), PRICE, PRICE, "succeeded"))


def a_return_of_which_only_the_rest_was_left(books: Told) -> None:
    books.refunds[1] = replace(books.refunds[1], request_id=f"{BACK.return_id}-rest")


def a_return_that_is_being_refunded(books: Told) -> None:
    books.refunds[1] = replace(books.refunds[1], status="pending")
    books.orders[RETURNED] = replace(books.orders[RETURNED], returns=[replace(BACK, refund=Decimal(0))])


FINE: list[Callable[[Told], None]] = [
    claims_of_orders_under_way_and_of_those_that_are_over,
    an_event_that_is_not_consumed_yet,
    an_event_that_was_parked,
    garbage_that_was_parked,
    garbage_that_was_replayed_to_one_group,
    an_event_written_before_what_was_read_of_its_topic,
    an_event_so_old_that_topics_forget_it,
    an_event_published_while_the_audit_reads,
    events_published_twice,
    a_charge_unknown_here_that_was_given_back_at_the_gateway,
    a_return_of_which_only_the_rest_was_left,
    a_return_that_is_being_refunded,
]


@pytest.mark.parametrize("usual", FINE, ids=lambda usual: usual.__name__)
def test_what_is_in_order_is_not_found(usual: Callable[[Told], None]) -> None:
    told = books()
    usual(told)
    assert not broken(told)


def test_what_companies_do_not_show_nothing_is_compared_with() -> None:
    assert not broken(replace(books(), charges=None, parcels=None))
    assert broken(replace(books(), charges=(), parcels=())) == {
        "the gateway's ledger agrees",
        "the carriers' ledger agrees",
    }


async def test_what_can_not_be_read_is_read_again_as_long_as_the_audit_may_wait(
    monkeypatch: pytest.MonkeyPatch, settings: OperatorSettings
) -> None:
    empty = ShopBooks()
    answers: list[Any] = [ConnectionRefusedError("down"), TimeoutError("slow"), empty]

    async def read(*_: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(command, "read", read)
    monkeypatch.setattr(command, "EventLog", lambda _: nullcontext())
    monkeypatch.setattr(command, "_PAUSE", 0.01)
    with pytest.raises(ConnectionRefusedError):
        await command.audit(settings, wait=0)
    assert await command.audit(settings, wait=5) == (empty, [])
