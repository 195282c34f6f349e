"""What an order decides, without any store."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoa_chassis.errors import Code, DomainError, InvalidArgument, RequestIdReused
from stoa_chassis.ids import new_id
from stoa_contracts.money import Money
from stoa_events import (
    InventoryOutOfStock,
    OrderBuyerChanged,
    OrderCancelled,
    OrderConfirmed,
    OrderDelivered,
    OrderPlaced,
    OrderReturned,
    OrderShipped,
    PaymentFailed,
    PaymentSuccessful,
)
from stoa_order.model import (
    ACCOUNT,
    Address,
    Amounts,
    CartChanged,
    CartEmpty,
    CartLine,
    ClaimTooOld,
    Contact,
    ForeignCurrency,
    ItemsUnavailable,
    NotCancellable,
    Offer,
    Order,
    OrderNotFound,
    OrderView,
    Payment,
    PaymentSettled,
    PaymentStatus,
    PriceChanged,
    Recorded,
    Request,
    RequestIdUsed,
    RequestInProgress,
    ReturnRefundMade,
    Saga,
    Shipment,
    ShipmentStatus,
    ShipmentStopped,
    ShipmentUnderWay,
    Status,
    Tariff,
    Withdrawn,
    check_contact,
    check_offers,
)
from stoa_order.returns import (
    CAME_BACK,
    NotReturnable,
    ReturnDecided,
    ReturnItem,
    ReturnNotFound,
    ReturnRequest,
    ReturnStatus,
    ReturnWindowClosed,
    TooManyReturns,
)
from stoa_order.saga import reactions, step_of, steps
from stoa_order.testing import (
    ADDRESS,
    GUEST,
    LINKS,
    NOW,
    TARIFF,
    WINDOW,
    a_confirmed_order,
    a_delivered_order,
    a_line,
    an_order,
    declined,
    out_of_stock,
    paid,
    parcel,
    refunded,
    reserved,
    scanned,
)

RESERVE_STOCK, CHARGE, REFUND, CAPTURE, SHIP, STOP_SHIPMENT, REFUND_RETURN = steps()


def usd(text: str) -> Money:
    return Money(Decimal(text), "USD")


def cart_line(price: str = "10.00", quantity: int = 1) -> CartLine:
    return CartLine(new_id(), new_id(), quantity, usd(price))


def offer(line: CartLine, price: str | None = None) -> Offer:
    return Offer(line.product_id, line.variant_id, "Lamp", usd(price) if price else line.price)


def placed(*cart: CartLine) -> Order:
    cart = cart or (cart_line(),)
    lines = check_offers(cart, [offer(line) for line in cart])
    order_id = new_id()
    return Order.place(
        order_id=order_id,
        user_id=new_id(),
        request_id="r1",
        request=Request.of(order_id, ADDRESS, "standard", "tok_visa"),
        lines=lines,
        amounts=TARIFF.amounts(lines, "standard"),
        shipping_address=ADDRESS,
        shipping_method="standard",
        now=NOW,
    )


def confirmed() -> Order:
    order = placed()
    order.on_inventory_reserved(reserved(order), NOW)
    order.on_payment_successful(paid(order), NOW)
    return order


def cancel(order: Order, reason: str = "changed my mind") -> None:
    """Cancel an order, and let shipping stop its parcel."""
    order.cancel(reason, NOW)
    order.on_shipment_stopped(ShipmentStopped(), NOW)


def kinds(order: Order) -> list[type]:
    return [type(event) for event in order.events]


def assert_same(said: Any, known: Any) -> None:
    """Every field of what is said has a value: the one of the same name of what is known."""
    for each in fields(said):
        value = getattr(said, each.name)
        assert value, each.name
        assert value == getattr(known, each.name), each.name


def scan(order: Order, status: ShipmentStatus, second: int) -> None:
    """The carrier scans the parcel."""
    at = NOW + timedelta(seconds=second)
    order.on_shipment_status_updated(scanned(order, status, at), at)


class TestPlacing:
    def test_an_order_begins_as_pending_for_no_reason_but_that_it_was_placed(self) -> None:
        (first,) = placed().history
        assert (first.status, first.reason, first.at) == (Status.PENDING, "", NOW)

    def test_totals_are_items_plus_shipping_plus_tax(self) -> None:
        order = placed(cart_line("19.99", 3), cart_line("0.01"))
        assert order.amounts.subtotal == usd("59.98")
        assert order.amounts.tax == usd("4.80")
        assert order.amounts.total == usd("69.68")

    def test_it_waits_for_stock_and_says_so_to_the_others(self) -> None:
        order = placed()
        assert order.status is Status.PENDING
        assert kinds(order) == [OrderPlaced]
        assert step_of(order) is RESERVE_STOCK

    def test_an_empty_cart_cannot_be_ordered(self) -> None:
        with pytest.raises(CartEmpty) as refused:
            check_offers([], [])
        assert refused.value.reason == "CART_EMPTY"

    def test_a_changed_price_names_the_item_and_both_prices(self) -> None:
        same, dearer = cart_line("5.00"), cart_line("10.00")
        with pytest.raises(PriceChanged) as refused:
            check_offers([same, dearer], [offer(same), offer(dearer, "12.00")])
        assert refused.value.metadata == {str(dearer.variant_id): "10.00 USD -> 12.00 USD"}
        assert refused.value.message == (
            "prices changed since you saw the cart: Lamp now costs 12.00 USD instead of 10.00 USD"
        )

    def test_a_variant_that_is_not_sold_any_more_is_named(self) -> None:
        here, gone, forgotten = cart_line(), cart_line(), cart_line()
        with pytest.raises(ItemsUnavailable) as refused:
            check_offers([here, gone], [offer(here), Withdrawn(gone.variant_id, "Chair")])
        assert refused.value.message == "no longer on sale: Chair"
        assert refused.value.metadata == {"variant_ids": str(gone.variant_id)}
        with pytest.raises(ItemsUnavailable, match=r"no longer on sale: Chair and 1 more$"):
            check_offers([here, forgotten, gone], [offer(here), Withdrawn(gone.variant_id, "Chair")])
        with pytest.raises(ItemsUnavailable, match=r"no longer on sale: 1 of the things in the cart$"):
            check_offers([here, forgotten], [offer(here)])

    def test_what_an_order_keeps_and_says_does_not_grow_with_the_cart(self) -> None:
        cart = [cart_line() for _ in range(100)]
        name = "x" * 200
        dearer = [replace(offer(line, "11.00"), name=name) for line in cart]
        with pytest.raises(PriceChanged) as changed:
            check_offers(cart, dearer)
        assert len(changed.value.message) < 500
        assert changed.value.message.endswith(" and 97 more")
        with pytest.raises(ItemsUnavailable) as gone:
            check_offers(cart, [Withdrawn(line.variant_id, name) for line in cart])
        assert len(gone.value.message) < 500
        assert gone.value.message.endswith(" and 97 more")
        assert gone.value.metadata["variant_ids"] == ", ".join(str(line.variant_id) for line in cart[:20])
        order = placed(*cart)
        order.lines = tuple(replace(line, name=name) for line in order.lines)
        lacking = [item for line in cart for item in out_of_stock(placed(line)).items]
        order.on_inventory_out_of_stock(
            InventoryOutOfStock(order_id=order.order_id, items=tuple(lacking)), NOW
        )
        short = "x" * 79 + "…"
        assert order.history[-1].reason == (
            f"out of stock: {short} (0 of 1), {short} (0 of 1), {short} (0 of 1) and 97 more"
        )

    @pytest.mark.parametrize(("name", "told"), [("x" * 80, "x" * 80), ("x" * 81, "x" * 79 + "…")])
    def test_what_a_thing_is_called_is_told_in_eighty_letters(self, name: str, told: str) -> None:
        gone = cart_line()
        with pytest.raises(ItemsUnavailable) as refused:
            check_offers([gone], [Withdrawn(gone.variant_id, name)])
        assert refused.value.message == f"no longer on sale: {told}"

    def test_a_price_in_another_currency_than_the_shop_s_is_refused_and_named(self) -> None:
        foreign = CartLine(new_id(), new_id(), 1, Money(Decimal(10), "EUR"))
        with pytest.raises(ForeignCurrency) as refused:
            placed(cart_line(), foreign)
        assert refused.value.metadata == {"priced_in": "EUR", "sold_in": "USD"}
        assert refused.value.reason == "FOREIGN_CURRENCY"

    def test_a_variant_of_another_product_is_not_on_offer(self) -> None:
        line = cart_line()
        other = Offer(new_id(), line.variant_id, "Lamp", line.price)
        with pytest.raises(ItemsUnavailable):
            check_offers([line], [other])

    @given(st.lists(st.tuples(st.integers(1, 999_99), st.integers(1, 99)), min_size=1, max_size=20))
    def test_the_total_is_always_the_sum_of_its_parts(self, cart: list[tuple[int, int]]) -> None:
        amounts = placed(*(cart_line(str(Decimal(cents) / 100), count) for cents, count in cart)).amounts
        assert amounts.subtotal.amount * 100 == sum(cents * count for cents, count in cart)
        assert amounts.total == amounts.subtotal + amounts.shipping + amounts.tax


class TestARequestThatComesAgain:
    def test_it_is_the_same_if_it_asks_for_the_same(self) -> None:
        order = placed()
        order.check_again(Request.of(order.order_id, ADDRESS, "standard", "tok_visa"))

    @pytest.mark.parametrize(
        ("destination", "method", "token", "differing"),
        [
            (replace(ADDRESS, city="Oslo"), "standard", "tok_visa", {"shipping_address.city"}),
            (new_id(), "standard", "tok_visa", {"shipping_address", "address_id"}),
            (ADDRESS, "express", "tok_visa", {"shipping_method"}),
            (ADDRESS, "standard", "tok_declined", {"payment_token"}),
        ],
    )
    def test_what_it_asks_for_otherwise_is_named(
        self, destination: Address | UUID, method: str, token: str, differing: set[str]
    ) -> None:
        order = placed()
        with pytest.raises(RequestIdReused) as refused:
            order.check_again(Request.of(order.order_id, destination, method, token))
        assert {violation.field for violation in refused.value.violations} == differing
        assert token not in str(refused.value)

    def test_where_a_guest_is_written_to_is_part_of_it(self) -> None:
        order = placed()
        with pytest.raises(RequestIdReused) as refused:
            order.check_again(Request.of(order.order_id, ADDRESS, "standard", "tok_visa", GUEST))
        assert {violation.field for violation in refused.value.violations} == {"email", "locale"}
        asked = Request.of(order.order_id, new_id(), "standard", "tok_visa", Contact("ann@example.com", "de"))
        assert (asked.email, asked.locale) == ("ann@example.com", "de")
        assert (Request(None, None, "standard", "").email, Request(None, None, "", "").locale) == ("", "")

    def test_the_payment_token_is_not_kept_and_its_digest_is_the_order_s_own(self) -> None:
        first, second = placed(), placed()
        assert first.request
        assert second.request
        assert "tok_visa" not in repr(first)
        assert first.request.payment_token != second.request.payment_token

    def test_one_whose_order_was_cancelled_is_used_up_whatever_it_asks_for(self) -> None:
        order = placed()
        order.cancel("", NOW)
        for method in ("standard", "express"):
            with pytest.raises(RequestIdUsed) as refused:
                order.check_again(Request.of(order.order_id, ADDRESS, method, "tok_visa"))
            assert refused.value.metadata == {"order_id": str(order.order_id)}

    def test_of_an_order_of_which_it_is_not_known_everything_is_the_same(self) -> None:
        order = placed()
        order.request = None
        order.check_again(Request.of(order.order_id, new_id(), "express", "tok_declined"))


class TestTheSaga:
    def test_stock_then_payment_confirm(self) -> None:
        order = placed()
        order.on_inventory_reserved(reserved(order), NOW)
        assert step_of(order) is CHARGE
        order.on_payment_successful(paid(order), NOW)
        assert order.status is Status.CONFIRMED
        assert kinds(order) == [OrderPlaced, OrderConfirmed]
        assert step_of(order) is SHIP

    def test_want_of_stock_cancels_and_names_what_lacks(self) -> None:
        order = placed(cart_line(quantity=2))
        order.on_inventory_out_of_stock(out_of_stock(order), NOW)
        assert order.status is Status.CANCELLED
        assert order.history[-1].reason == "out of stock: Lamp (0 of 2)"
        assert kinds(order) == [OrderPlaced, OrderCancelled]
        assert step_of(order) is None

    def test_a_declined_card_cancels(self) -> None:
        order = placed()
        order.on_inventory_reserved(reserved(order), NOW)
        answer = declined(order)
        order.on_payment_failed(answer, NOW)
        assert order.status is Status.CANCELLED
        assert order.history[-1].reason == "payment failed: card declined"
        assert order.payment == Payment(answer.payment_id, PaymentStatus.FAILED, "visa", "0002")
        assert step_of(order) is None

    def test_a_payment_that_arrives_for_a_cancelled_order_goes_back(self) -> None:
        order = placed()
        order.on_inventory_reserved(reserved(order), NOW)
        order.give_up_on_payment(NOW)
        late = paid(order)
        order.on_payment_successful(late, NOW)
        assert order.status is Status.CANCELLED
        assert step_of(order) is REFUND
        order.on_payment_refunded(refunded(order, late.payment_id), NOW)
        assert order.payment == Payment(late.payment_id, PaymentStatus.REFUNDED, "visa", "4242")
        assert step_of(order) is None
        assert kinds(order) == [OrderPlaced, OrderCancelled]

    def test_a_partial_refund_of_a_cancelled_order_is_not_the_end(self) -> None:
        order = confirmed()
        cancel(order)
        assert order.payment
        order.on_payment_refunded(refunded(order, order.payment.payment_id, fully=False), NOW)
        assert step_of(order) is REFUND

    def test_a_payment_of_which_a_part_was_given_back_confirms_also_if_the_refund_is_known_first(
        self,
    ) -> None:
        order = placed()
        order.on_inventory_reserved(reserved(order), NOW)
        answer = paid(order)
        order.on_payment_refunded(refunded(order, answer.payment_id, fully=False), NOW)
        assert order.payment == Payment(answer.payment_id, PaymentStatus.PARTIALLY_REFUNDED, "", "")
        assert not order.history[1:]
        order.on_payment_successful(answer, NOW)
        assert order.status is Status.CONFIRMED
        assert order.payment == Payment(answer.payment_id, PaymentStatus.PARTIALLY_REFUNDED, "visa", "4242")

    @pytest.mark.parametrize("outcome", [paid, declined])
    def test_a_payment_that_was_given_back_ends_the_order_also_if_that_is_known_first(
        self, outcome: Any
    ) -> None:
        order = placed()
        order.on_inventory_reserved(reserved(order), NOW)
        answer = outcome(order)
        order.on_payment_refunded(refunded(order, answer.payment_id), NOW)
        assert order.status is Status.CANCELLED
        assert step_of(order) is None
        if outcome is paid:
            order.on_payment_successful(answer, NOW)
        else:
            order.on_payment_failed(answer, NOW)
        assert order.payment
        assert order.payment.status is PaymentStatus.REFUNDED
        assert step_of(order) is None
        assert kinds(order) == [OrderPlaced, OrderCancelled]

    def test_an_older_order_that_waited_although_its_payment_was_given_back_is_not_confirmed(self) -> None:
        new = placed()
        new.on_inventory_reserved(reserved(new), NOW)
        answer = paid(new)
        given_back = PaymentSettled(Payment(answer.payment_id, PaymentStatus.REFUNDED, "", ""))
        order = Order.replay(new.order_id, [*new.changes, Recorded(new.version + 1, given_back, NOW)])
        order.on_payment_successful(answer, NOW)
        assert order.status is Status.PENDING
        assert kinds(order) == []

    def test_a_confirmed_order_of_which_all_is_given_back_is_cancelled_when_its_parcel_is_stopped(
        self,
    ) -> None:
        order = confirmed()
        assert order.payment
        given_back = refunded(order, order.payment.payment_id)
        order.on_payment_refunded(given_back, NOW)
        assert (order.status, step_of(order)) == (Status.CONFIRMED, STOP_SHIPMENT)
        order.on_shipment_stopped(ShipmentStopped(), NOW)
        assert order.status is Status.CANCELLED
        assert order.history[-1].reason == "payment refunded"
        assert kinds(order) == [OrderPlaced, OrderConfirmed, OrderCancelled]
        assert step_of(order) is None
        before = order.version
        order.on_payment_refunded(given_back, NOW)
        order.cancel("changed my mind", NOW)
        assert order.version == before

    def test_parts_that_add_up_to_all_cancel_with_the_last(self) -> None:
        order = confirmed()
        assert order.payment
        for _ in range(2):
            order.on_payment_refunded(refunded(order, order.payment.payment_id, fully=False), NOW)
            assert order.status is Status.CONFIRMED
        order.on_payment_refunded(refunded(order, order.payment.payment_id), NOW)
        assert step_of(order) is STOP_SHIPMENT

    @pytest.mark.parametrize("status", [Status.SHIPPED, Status.DELIVERED, Status.RETURNED])
    def test_what_has_left_the_warehouse_is_not_cancelled_by_a_refund(self, status: Status) -> None:
        order = confirmed()
        order.status = status
        assert order.payment
        order.on_payment_refunded(refunded(order, order.payment.payment_id), NOW)
        assert order.status is status
        assert kinds(order) == [OrderPlaced, OrderConfirmed]

    def test_a_cancellation_that_meets_a_refund_of_all_keeps_its_reason(self) -> None:
        order = confirmed()
        order.cancel("changed my mind", NOW)
        assert order.payment
        order.on_payment_refunded(refunded(order, order.payment.payment_id), NOW)
        order.on_shipment_stopped(ShipmentStopped(), NOW)
        assert order.history[-1].reason == "changed my mind"
        assert step_of(order) is None
        assert kinds(order) == [OrderPlaced, OrderConfirmed, OrderCancelled]

    def test_stock_that_arrives_for_a_cancelled_order_changes_nothing(self) -> None:
        order = placed()
        order.give_up_on_stock(NOW)
        before = order.version
        order.on_inventory_reserved(reserved(order), NOW)
        assert order.version == before

    def test_deadlines_of_steps_that_ended_change_nothing(self) -> None:
        order = placed()
        order.on_inventory_reserved(reserved(order), NOW)
        order.give_up_on_stock(NOW)
        assert not order.history[1:]
        order.on_payment_successful(paid(order), NOW)
        order.give_up_on_payment(NOW)
        assert order.status is Status.CONFIRMED

    @pytest.mark.parametrize("again", ["reserve", "pay"])
    def test_an_answer_that_comes_twice_counts_once(self, again: str) -> None:
        order = placed()
        order.on_inventory_reserved(reserved(order), NOW)
        if again == "reserve":
            order.on_inventory_reserved(reserved(order), NOW)
        else:
            order.on_payment_successful(paid(order), NOW)
            order.on_payment_successful(paid(order), NOW)
        assert len(order.changes) == order.version
        assert kinds(order).count(OrderConfirmed) <= 1

    def test_every_step_of_the_table_can_be_reached_and_left(self) -> None:
        order = placed()
        assert step_of(order) is RESERVE_STOCK
        order.on_inventory_reserved(reserved(order), NOW)
        assert step_of(order) is CHARGE
        order.on_payment_successful(paid(order), NOW)
        assert step_of(order) is SHIP
        order.cancel("", NOW)
        assert step_of(order) is STOP_SHIPMENT
        order.on_shipment_stopped(ShipmentStopped(), NOW)
        assert step_of(order) is REFUND


class TestWhatOthersAreTold:
    def test_every_field_of_an_event_comes_from_the_order(self) -> None:
        order = a_confirmed_order(contact=GUEST)
        cancel(order)
        assert kinds(order) == [OrderPlaced, OrderConfirmed, OrderCancelled]
        for event in order.events:
            assert isinstance(event, OrderPlaced | OrderConfirmed | OrderCancelled)
            for item, line in zip(event.items, order.lines, strict=True):
                assert_same(item, line)
            if isinstance(event, OrderConfirmed):
                assert_same(event.shipping_address, order.shipping_address)
            told = {field.name for field in fields(event)} - {"items", "shipping_address"}
            known = {
                "total_amount": order.amounts.total,
                "reason": order.history[-1].reason,
                "email": GUEST.email,
                "locale": GUEST.locale,
                "access_token": LINKS.secret(order.order_id, order.created_at),
            }
            for name in told:
                value, where = getattr(event, name), f"{type(event).__name__}.{name}"
                assert value, f"{where} is not filled"
                assert value == (known[name] if name in known else getattr(order, name)), where

    def test_a_view_shows_every_field_of_an_order_but_what_is_its_own(self) -> None:
        own = {
            *("version", "request_id", "request", "stock_reserved", "saga", "changes", "events"),
            *("unstoppable", "delivered_at", "returns", "is_erased"),
        }
        shown = {field.name for field in fields(OrderView)} - {"created_at"}
        assert shown == {field.name for field in fields(Order)} - own
        order = a_confirmed_order(contact=GUEST)
        order.on_shipment_created(parcel(order), NOW)
        order.cancel("changed my mind", NOW)
        assert_same(order.view, order)


class TestShipping:
    def test_the_first_scan_ships_an_order_and_the_last_delivers_it(self) -> None:
        order = confirmed()
        order.on_shipment_created(parcel(order), NOW)
        assert order.shipment == Shipment("ups", "1Z999AA10123456784", ShipmentStatus.CREATED)
        scan(order, ShipmentStatus.IN_TRANSIT, 1)
        assert (order.status, step_of(order)) == (Status.SHIPPED, SHIP)
        scan(order, ShipmentStatus.OUT_FOR_DELIVERY, 2)
        scan(order, ShipmentStatus.DELIVERED, 3)
        assert [change.status.value for change in order.history[1:]] == ["confirmed", "shipped", "delivered"]
        placed_, *_ = order.events
        assert isinstance(placed_, OrderPlaced)
        assert order.events[2:] == [
            OrderShipped(order_id=order.order_id, user_id=order.user_id, items=placed_.items),
            OrderDelivered(
                order_id=order.order_id,
                user_id=order.user_id,
                items=placed_.items,
                delivered_at=NOW + timedelta(seconds=3),
            ),
        ]
        assert step_of(order) is None

    def test_a_delivery_whose_first_scan_was_missed_ships_and_delivers(self) -> None:
        order = confirmed()
        scan(order, ShipmentStatus.DELIVERED, 1)
        assert kinds(order)[2:] == [OrderShipped, OrderDelivered]

    def test_what_comes_twice_or_late_changes_nothing(self) -> None:
        order = a_delivered_order()
        before = order.version
        order.on_shipment_created(parcel(order), NOW)
        for status, second in (
            (ShipmentStatus.IN_TRANSIT, 4),
            (ShipmentStatus.DELIVERED, 5),
            (ShipmentStatus.OUT_FOR_DELIVERY, 4),
        ):
            scan(order, status, second)
        assert order.version == before

    def test_a_scan_of_a_parcel_that_waits_or_is_in_trouble_ships_nothing(self) -> None:
        order = confirmed()
        for second, status in enumerate((ShipmentStatus.CREATED, ShipmentStatus.EXCEPTION)):
            scan(order, status, second)
            assert order.status is Status.CONFIRMED
            assert order.shipment
            assert order.shipment.status is status

    def test_another_carrier_may_take_over_a_parcel_that_none_has_scanned(self) -> None:
        order = confirmed()
        order.on_shipment_created(parcel(order, "1"), NOW)
        order.on_shipment_created(parcel(order, "2"), NOW)
        assert order.shipment == Shipment("ups", "2", ShipmentStatus.CREATED)
        scan(order, ShipmentStatus.IN_TRANSIT, 1)
        order.on_shipment_created(parcel(order, "3"), NOW)
        assert order.shipment
        assert order.shipment.tracking_id != "3"

    def test_a_parcel_of_a_cancelled_order_is_only_noted(self) -> None:
        order = confirmed()
        cancel(order)
        scan(order, ShipmentStatus.STOPPED, 1)
        assert order.status is Status.CANCELLED
        assert kinds(order) == [OrderPlaced, OrderConfirmed, OrderCancelled]

    def test_what_the_carrier_brings_back_is_a_return_of_everything(self) -> None:
        order = a_confirmed_order(a_line("10.00", 2), a_line("5.00", 1))
        scan(order, ShipmentStatus.IN_TRANSIT, 1)
        scan(order, ShipmentStatus.RETURNED, 2)
        assert order.status is Status.RETURNED
        assert step_of(order) is REFUND_RETURN
        assert [change.reason for change in order.history] == [""] * 4
        (back,) = order.returns
        assert (back.status, back.refund) == (ReturnStatus.RECEIVED, order.amounts.total)
        assert (back.request_id, back.reason, back.decision) == (
            "",
            "the carrier could not deliver it",
            "the carrier could not deliver it",
        )
        assert kinds(order)[2:] == [OrderShipped, OrderReturned]
        before = order.version
        scan(order, ShipmentStatus.RETURNED, 2)
        assert order.version == before


class TestCancelling:
    def test_a_confirmed_order_is_refunded_once_its_parcel_is_stopped(self) -> None:
        order = confirmed()
        order.cancel("changed my mind", NOW)
        assert (order.status, order.cancellation) == (Status.CONFIRMED, "changed my mind")
        assert step_of(order) is STOP_SHIPMENT
        order.on_shipment_stopped(ShipmentStopped(), NOW)
        assert (order.status, order.cancellation) == (Status.CANCELLED, None)
        assert order.history[-1].reason == "changed my mind"
        assert step_of(order) is REFUND

    def test_a_stop_of_which_only_the_event_comes_cancels_as_well(self) -> None:
        order = confirmed()
        order.cancel("changed my mind", NOW)
        scan(order, ShipmentStatus.STOPPED, 1)
        assert order.status is Status.CANCELLED
        order.on_shipment_stopped(ShipmentStopped(), NOW)
        assert kinds(order) == [OrderPlaced, OrderConfirmed, OrderCancelled]

    def test_a_stop_that_nobody_asked_for_cancels_nothing(self) -> None:
        order = confirmed()
        scan(order, ShipmentStatus.STOPPED, 1)
        order.on_shipment_stopped(ShipmentStopped(), NOW)
        assert order.status is Status.CONFIRMED

    def test_what_the_carrier_has_goes_on_and_can_not_be_cancelled_any_more(self) -> None:
        order = confirmed()
        order.cancel("changed my mind", NOW)
        order.on_shipment_under_way(ShipmentUnderWay(), NOW)
        before = order.version
        order.on_shipment_under_way(ShipmentUnderWay(), NOW)
        assert (order.status, order.cancellation) == (Status.CONFIRMED, None)
        with pytest.raises(NotCancellable):
            order.cancel("changed my mind", NOW)
        assert order.version == before
        scan(order, ShipmentStatus.IN_TRANSIT, 1)
        assert order.status is Status.SHIPPED

    def test_shipping_is_not_asked_again_to_stop_what_the_carrier_has(self) -> None:
        order = confirmed()
        order.cancel("changed my mind", NOW)
        order.on_shipment_under_way(ShipmentUnderWay(), NOW)
        assert order.payment
        order.on_payment_refunded(refunded(order, order.payment.payment_id), NOW)
        assert (order.status, order.cancellation) == (Status.CONFIRMED, None)
        assert step_of(order) is SHIP

    def test_a_parcel_that_nobody_wanted_to_stop_goes_on_without_a_word(self) -> None:
        order = confirmed()
        before = order.version
        order.on_shipment_under_way(ShipmentUnderWay(), NOW)
        assert (order.status, order.version) == (Status.CONFIRMED, before)

    def test_a_scan_that_is_faster_than_the_stop_ships(self) -> None:
        order = confirmed()
        order.cancel("changed my mind", NOW)
        scan(order, ShipmentStatus.IN_TRANSIT, 1)
        order.on_shipment_under_way(ShipmentUnderWay(), NOW)
        assert (order.status, order.cancellation) == (Status.SHIPPED, None)
        assert kinds(order) == [OrderPlaced, OrderConfirmed, OrderShipped]

    def test_twice_is_the_same_as_once(self) -> None:
        order = placed()
        order.cancel("a", NOW)
        order.cancel("b", NOW)
        assert kinds(order) == [OrderPlaced, OrderCancelled]
        order = confirmed()
        order.cancel("a", NOW)
        before = order.version
        order.cancel("b", NOW)
        assert (order.version, order.cancellation) == (before, "a")

    def test_what_left_the_warehouse_cannot_be_cancelled(self) -> None:
        for order in (confirmed(), a_delivered_order()):
            scan(order, ShipmentStatus.IN_TRANSIT, 1)
            before = order.version
            with pytest.raises(NotCancellable) as refused:
                order.cancel("too late", NOW)
            assert (refused.value.code, refused.value.reason) == (Code.ABORTED, "ORDER_NOT_CANCELLABLE")
            assert order.version == before


class TestTariff:
    @pytest.mark.parametrize(("price", "tax"), [("0.10", "0.01"), ("0.30", "0.02"), ("0.29", "0.01")])
    def test_half_a_cent_of_tax_is_a_cent(self, price: str, tax: str) -> None:
        tariff = Tariff({"standard": usd("0.00")}, Decimal("0.05"))
        amounts = tariff.amounts((a_line(price, 1),), "standard")
        assert (amounts.tax, amounts.total) == (usd(tax), usd(price) + usd(tax))


class TestBuyers:
    def test_a_guests_order_becomes_an_accounts(self) -> None:
        order = a_confirmed_order(contact=GUEST)
        guest_id, user_id = order.user_id, new_id()
        order.change_buyer(user_id, NOW)
        order.change_buyer(user_id, NOW)
        assert (order.user_id, order.contact) == (user_id, ACCOUNT)
        assert order.events[-1] == OrderBuyerChanged(
            order_id=order.order_id, guest_id=guest_id, user_id=user_id
        )
        assert kinds(order).count(OrderBuyerChanged) == 1
        assert order.request_id == f"{guest_id} request"  # the account may have sent the same

    @pytest.mark.parametrize("answer", [paid, declined])
    def test_a_payment_of_the_guests_that_comes_after_is_told_whose_it_is(
        self, answer: Callable[[Order], PaymentSuccessful | PaymentFailed]
    ) -> None:
        order = an_order(contact=GUEST)
        guest_id, user_id = order.user_id, new_id()
        order.on_inventory_reserved(reserved(order), NOW)
        asked_before = answer(order)
        order.change_buyer(user_id, NOW)
        for _ in range(2):
            reactions()[type(asked_before)](order, asked_before, NOW)
        told = [event for event in order.events if isinstance(event, OrderBuyerChanged)]
        assert told == [OrderBuyerChanged(order_id=order.order_id, guest_id=guest_id, user_id=user_id)] * 2

    def test_who_pays_for_her_own_order_is_told_nothing(self) -> None:
        assert OrderBuyerChanged not in kinds(a_confirmed_order())

    @pytest.mark.parametrize(
        ("email", "locale", "guest", "contact"),
        [
            ("Ann@Example.com", "de", True, Contact("Ann@Example.com", "de")),
            (" ann@example.com ", "", True, Contact("ann@example.com", "en")),
            ("", "", False, ACCOUNT),
        ],
    )
    def test_a_guest_says_how_to_write_to_her(
        self, email: str, locale: str, guest: bool, contact: Contact
    ) -> None:
        assert check_contact(email, locale, is_guest=guest) == contact

    @pytest.mark.parametrize(
        ("email", "locale", "guest", "field"),
        [
            ("", "de", True, "email"),
            ("nowhere", "", True, "email"),
            ("ann@example.com", "", False, "email"),
            ("", "de", False, "locale"),
        ],
    )
    def test_a_contact_that_nobody_could_use_is_refused_by_its_field(
        self, email: str, locale: str, guest: bool, field: str
    ) -> None:
        with pytest.raises(InvalidArgument) as refused:
            check_contact(email, locale, is_guest=guest)
        assert [violation.field for violation in refused.value.violations] == [field]

    def test_a_person_is_forgotten_and_what_the_books_need_is_kept(self) -> None:
        order = a_delivered_order()
        item = ReturnItem(order.lines[0].variant_id, 1)
        made = order.request_return("r", ReturnRequest((item,), "my flat is too dark"), WINDOW, NOW)
        order.reject_return(made.return_id, "write to Ann", NOW)
        before = (order.amounts, order.lines, order.payment, order.status)
        order.erase_person(NOW)
        assert order.shipping_address == Address("", "", "", "", "", "", "GB")
        assert (order.request, order.contact) == (None, ACCOUNT)
        assert not any(change.reason for change in order.history)
        assert not any(each.reason or each.decision for each in order.returns)
        assert (order.amounts, order.lines, order.payment, order.status) == before
        version = order.version
        order.erase_person(NOW)
        assert order.version == version

    def test_an_order_that_is_pending_is_cancelled_when_nobody_would_know_where_to_send_it(self) -> None:
        order = placed()
        order.erase_person(NOW)
        assert order.status is Status.CANCELLED
        assert kinds(order) == [OrderPlaced, OrderCancelled]

    def test_a_confirmed_order_goes_on_without_its_person(self) -> None:
        order = confirmed()
        order.erase_person(NOW)
        scan(order, ShipmentStatus.DELIVERED, 1)
        assert order.status is Status.DELIVERED

    def test_why_it_was_to_be_cancelled_is_forgotten_and_not_that_it_was(self) -> None:
        order = confirmed()
        order.cancel("Ann changed her mind", NOW)
        order.erase_person(NOW)
        assert order.cancellation == ""
        order.on_shipment_stopped(ShipmentStopped(), NOW)
        assert (order.status, order.history[-1].reason) == (Status.CANCELLED, "")


def test_of_an_order_without_facts_nothing_is_known() -> None:
    order_id, nothing = new_id(), usd("0.00")
    assert Order.replay(order_id, []) == Order(
        order_id=order_id,
        version=0,
        user_id=UUID(int=0),
        request_id="",
        request=None,
        status=Status.PENDING,
        lines=(),
        amounts=Amounts(nothing, nothing, nothing, nothing),
        shipping_address=Address("", "", "", "", "", "", ""),
        shipping_method="",
        stock_reserved=False,
        payment=None,
        shipment=None,
        contact=Contact("", ""),
        cancellation=None,
        unstoppable=False,
        delivered_at=None,
        returns=(),
        is_erased=False,
        history=(),
    )


def test_an_order_is_the_same_wherever_its_process_stands_and_whatever_is_still_to_be_told() -> None:
    order = confirmed()
    saga = Saga(order.order_id, "charge", since=NOW, due=NOW, deadline=None)
    assert order.changes
    assert order.events
    assert replace(order, saga=saga, changes=[], events=[]) == order


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (OrderNotFound, Code.NOT_FOUND, "ORDER_NOT_FOUND"),
        (CartEmpty, Code.ABORTED, "CART_EMPTY"),
        (CartChanged, Code.ABORTED, "CART_CHANGED"),
        (ItemsUnavailable, Code.FAILED_PRECONDITION, "ITEMS_UNAVAILABLE"),
        (PriceChanged, Code.FAILED_PRECONDITION, "PRICE_CHANGED"),
        (ForeignCurrency, Code.FAILED_PRECONDITION, "FOREIGN_CURRENCY"),
        (NotCancellable, Code.ABORTED, "ORDER_NOT_CANCELLABLE"),
        (ReturnNotFound, Code.NOT_FOUND, "RETURN_NOT_FOUND"),
        (NotReturnable, Code.FAILED_PRECONDITION, "ORDER_NOT_RETURNABLE"),
        (ReturnWindowClosed, Code.FAILED_PRECONDITION, "RETURN_WINDOW_CLOSED"),
        (TooManyReturns, Code.FAILED_PRECONDITION, "TOO_MANY_RETURNS"),
        (ReturnDecided, Code.FAILED_PRECONDITION, "RETURN_NOT_OPEN"),
        (RequestInProgress, Code.ABORTED, "REQUEST_IN_PROGRESS"),
        (RequestIdUsed, Code.ALREADY_EXISTS, "REQUEST_ID_USED"),
        (ClaimTooOld, Code.UNAVAILABLE, "CART_CLAIM_TOO_OLD"),
    ],
)
def test_each_error_has_its_code_and_reason(error: type[DomainError], code: Code, reason: str) -> None:
    assert (error.code, error.reason) == (code, reason)


@pytest.mark.parametrize(
    ("words", "known"),
    [
        (Status, {"pending", "confirmed", "shipped", "delivered", "returned", "cancelled"}),
        (PaymentStatus, {"succeeded", "failed", "partially_refunded", "refunded"}),
        (ReturnStatus, {"requested", "approved", "rejected", "received", "refunded"}),
        (
            ShipmentStatus,
            {
                "created",
                "in_transit",
                "out_for_delivery",
                "delivered",
                "exception",
                "returned",
                "stopped",
            },
        ),
    ],
)
def test_the_words_that_are_stored_and_told_do_not_change(words: type[StrEnum], known: set[str]) -> None:
    assert set(words) == known


MOVES = [
    *("reserve", "no stock", "pay", "decline", "cancel", "late", "refund", "parcel", "scan", "deliver"),
    *("bring back", "stopped", "under way", "send back", "approve", "reject", "receive", "paid back"),
    *("sign in", "erase"),
]


@given(st.lists(st.sampled_from(MOVES), max_size=16))
def test_whatever_comes_in_whatever_order_the_facts_give_the_same_order(script: list[str]) -> None:
    order = placed()
    payment, account = paid(order), new_id()
    item = ReturnItem(order.lines[0].variant_id, 1)

    def each_return(decide: Callable[[UUID, datetime], object], now: datetime) -> None:
        for made in order.returns:
            with suppress(ReturnDecided):
                decide(made.return_id, now)

    def send_back(now: datetime) -> None:
        with suppress(NotReturnable, InvalidArgument):
            order.request_return(f"r{now}", ReturnRequest((item,), ""), WINDOW, now)

    def cancel_(now: datetime) -> None:
        with suppress(NotCancellable):
            order.cancel("", now)

    def scan_(status: ShipmentStatus) -> Callable[[datetime], None]:
        return lambda now: order.on_shipment_status_updated(scanned(order, status, now), now)

    moves: dict[str, Callable[[datetime], object]] = {
        "reserve": lambda now: order.on_inventory_reserved(reserved(order), now),
        "no stock": lambda now: order.on_inventory_out_of_stock(out_of_stock(order), now),
        "pay": lambda now: order.on_payment_successful(payment, now),
        "decline": lambda now: order.on_payment_failed(declined(order), now),
        "cancel": cancel_,
        "late": lambda now: order.give_up_on_payment(now),
        "refund": lambda now: order.on_payment_refunded(refunded(order, payment.payment_id), now),
        "parcel": lambda now: order.on_shipment_created(parcel(order), now),
        "scan": scan_(ShipmentStatus.IN_TRANSIT),
        "deliver": scan_(ShipmentStatus.DELIVERED),
        "bring back": scan_(ShipmentStatus.RETURNED),
        "stopped": lambda now: order.on_shipment_stopped(ShipmentStopped(), now),
        "under way": lambda now: order.on_shipment_under_way(ShipmentUnderWay(), now),
        "send back": send_back,
        "approve": lambda now: each_return(lambda key, at: order.approve_return(key, "", at), now),
        "reject": lambda now: each_return(lambda key, at: order.reject_return(key, "", at), now),
        "receive": lambda now: each_return(lambda key, at: order.receive_return(key, "", at), now),
        "paid back": lambda now: each_return(
            lambda key, at: order.on_return_refunded(ReturnRefundMade(key, order.return_(key).refund), at),
            now,
        ),
        "sign in": lambda now: order.change_buyer(account, now),
        "erase": lambda now: order.erase_person(now),
    }
    for second, move in enumerate(script):
        moves[move](NOW + timedelta(seconds=second))
    assert Order.replay(order.order_id, order.changes) == order
    for once in (OrderConfirmed, OrderCancelled, OrderShipped, OrderDelivered):
        assert kinds(order).count(once) <= 1
    assert not {OrderCancelled, OrderShipped} <= set(kinds(order))
    # An order that is cancelled while the shop holds its money is on its way to a refund.
    if order.status is Status.CANCELLED and order.payment and order.payment.holds_money:
        assert step_of(order) is REFUND
    # What came back is owed once, and never more than was paid.
    owed = sum((made.refund for made in order.returns if made.status in CAME_BACK), usd("0.00"))
    assert owed <= order.amounts.total
    assert (owed == order.amounts.total) == (order.status is Status.RETURNED)
