"""The table of the saga: what each step waits for, what undoes it, and what is planned of it."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from stoa_chassis.due import Backoff
from stoa_events import OrderCancelled
from stoa_order.model import (
    Order,
    PaymentStatus,
    ReturnRefundMade,
    Saga,
    ShipmentStatus,
    ShipmentStopped,
    ShipmentUnderWay,
    Status,
)
from stoa_order.saga import Step, Timeouts, plan, reactions, step_of, steps
from stoa_order.testing import (
    NOW,
    a_confirmed_order,
    a_delivered_order,
    a_received_return,
    an_order,
    declined,
    out_of_stock,
    paid,
    refunded,
    reserved,
    scanned,
    taken,
)

STEPS = tuple(steps())
RESERVE_STOCK, CHARGE, REFUND, CAPTURE, SHIP, STOP_SHIPMENT, REFUND_RETURN = STEPS
SECOND = timedelta(seconds=1)
TIMEOUTS = Timeouts(stock=60 * SECOND, payment=30 * SECOND, retry=Backoff(5 * SECOND, 60 * SECOND))


def placed() -> Order:
    return an_order()


def with_stock() -> Order:
    order = an_order()
    order.on_inventory_reserved(reserved(order), NOW)
    return order


def cancelled_with_money() -> Order:
    order = to_be_stopped()
    order.on_shipment_stopped(ShipmentStopped(), NOW)
    return order


def to_be_stopped() -> Order:
    order = a_confirmed_order()
    order.cancel("changed my mind", NOW)
    return order


def confirmed_with_money_held() -> Order:
    order = with_stock()
    order.on_payment_successful(paid(order, captured=False), NOW)
    return order


def sent_with_money_held() -> Order:
    order = confirmed_with_money_held()
    order.on_shipment_status_updated(scanned(order, ShipmentStatus.IN_TRANSIT, NOW), NOW)
    return order


def sent_back() -> Order:
    order, _ = a_received_return()
    return order


# How an order comes to each step, and how it goes on when the step does what it is there for.
ARRIVALS: dict[str, Callable[[], Order]] = {
    RESERVE_STOCK.name: placed,
    CHARGE.name: with_stock,
    REFUND.name: cancelled_with_money,
    CAPTURE.name: sent_with_money_held,
    SHIP.name: a_confirmed_order,
    STOP_SHIPMENT.name: to_be_stopped,
    REFUND_RETURN.name: sent_back,
}


def succeed(step: Step, order: Order) -> None:
    if step is RESERVE_STOCK:
        order.on_inventory_reserved(reserved(order), NOW)
    elif step is CHARGE:
        order.on_payment_successful(paid(order), NOW)
    elif step is REFUND:
        assert order.payment
        order.on_payment_refunded(refunded(order, order.payment.payment_id), NOW)
    elif step is CAPTURE:
        assert order.payment
        order.on_payment_captured(taken(order, order.payment.payment_id), NOW)
    elif step is SHIP:
        order.on_shipment_status_updated(scanned(order, ShipmentStatus.DELIVERED, NOW), NOW)
    elif step is STOP_SHIPMENT:
        order.on_shipment_stopped(ShipmentStopped(), NOW)
    else:
        (made,) = order.unpaid_returns
        order.on_return_refunded(ReturnRefundMade(made.return_id, made.refund), NOW)


def planned(order: Order, now: datetime = NOW) -> Saga:
    saga = plan(order, now, TIMEOUTS, token="tok_visa", correlation_id="the request")
    assert saga
    return saga


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_every_step_is_reached_and_left(step: Step) -> None:
    order = ARRIVALS[step.name]()
    assert step_of(order) is step
    succeed(step, order)
    assert step_of(order) is not step


def cancel(order: Order) -> None:
    """Cancel an order, and let shipping stop what is to be stopped."""
    order.cancel("changed my mind", NOW)
    order.on_shipment_stopped(ShipmentStopped(), NOW)


@pytest.mark.parametrize("took_effect", [False, True], ids=["while it waits", "after it took effect"])
@pytest.mark.parametrize("step", [RESERVE_STOCK, CHARGE], ids=lambda step: step.name)
def test_cancelling_makes_the_compensation_of_a_step_happen(step: Step, took_effect: bool) -> None:
    order = ARRIVALS[step.name]()
    if took_effect:
        succeed(step, order)
    cancel(order)
    if isinstance(step.compensation, Step):
        if not took_effect:
            succeed(step, order)  # the answer to what was asked before comes after all
        assert step_of(order) is step.compensation
        assert planned(order).step == step.compensation.name
    else:
        assert step.compensation
        assert [event.TOPIC for event in order.events].count(step.compensation.TOPIC) == 1


def test_a_parcel_is_stopped_before_anything_else_is_undone() -> None:
    order = to_be_stopped()
    assert step_of(order) is SHIP.compensation is STOP_SHIPMENT
    assert planned(order).step == STOP_SHIPMENT.name
    assert OrderCancelled not in map(type, order.events)
    succeed(STOP_SHIPMENT, order)
    assert step_of(order) is REFUND
    assert OrderCancelled in map(type, order.events)


def test_what_is_held_is_taken_when_the_parcel_has_left_and_not_before() -> None:
    order = confirmed_with_money_held()
    assert step_of(order) is SHIP
    order.on_shipment_status_updated(scanned(order, ShipmentStatus.IN_TRANSIT, NOW), NOW)
    assert step_of(order) is CAPTURE
    order.on_shipment_status_updated(scanned(order, ShipmentStatus.DELIVERED, NOW + SECOND), NOW + SECOND)
    assert order.status is Status.DELIVERED
    assert step_of(order) is CAPTURE
    for _ in range(2):
        succeed(CAPTURE, order)
    assert order.payment
    assert order.payment.captured
    assert step_of(order) is None


def test_what_lapses_after_the_parcel_has_left_is_not_asked_for_any_more_and_shown_as_failed() -> None:
    order = sent_with_money_held()
    for _ in range(2):
        order.on_payment_failed(declined(order), NOW)
    assert step_of(order) is SHIP
    assert order.status is Status.SHIPPED
    assert order.payment
    assert order.payment.status is PaymentStatus.FAILED
    order.on_shipment_status_updated(scanned(order, ShipmentStatus.DELIVERED, NOW + SECOND), NOW + SECOND)
    assert (order.status, step_of(order)) == (Status.DELIVERED, None)


def test_what_lapses_before_the_parcel_has_left_is_not_sent() -> None:
    order = confirmed_with_money_held()
    order.on_payment_failed(declined(order), NOW)
    assert step_of(order) is STOP_SHIPMENT
    succeed(STOP_SHIPMENT, order)
    assert (order.status, step_of(order)) == (Status.CANCELLED, None)


def test_money_that_is_taken_does_not_lapse() -> None:
    order = a_confirmed_order()
    before = order.version
    order.on_payment_failed(declined(order), NOW)
    assert (order.version, order.status) == (before, Status.CONFIRMED)


def test_what_is_held_for_a_cancelled_order_is_released_and_never_taken() -> None:
    order = confirmed_with_money_held()
    cancel(order)
    assert step_of(order) is REFUND
    succeed(REFUND, order)
    assert step_of(order) is None


def test_that_money_is_taken_stays_known_in_whatever_order_it_is_told() -> None:
    order, secured = with_stock(), paid(with_stock(), captured=False)
    order.on_payment_captured(taken(order, secured.payment_id), NOW)
    assert step_of(order) is CHARGE
    for _ in range(2):
        order.on_payment_successful(secured, NOW)
    assert order.status is Status.CONFIRMED
    assert order.payment
    assert (order.payment.captured, order.payment.last4) == (True, "4242")


def test_what_the_carrier_has_is_not_undone() -> None:
    order = to_be_stopped()
    STOP_SHIPMENT.answers[ShipmentUnderWay](order, ShipmentUnderWay(), NOW)
    assert step_of(order) is SHIP
    assert OrderCancelled not in map(type, order.events)


def test_every_step_but_a_compensation_and_those_after_the_parcel_has_left_can_be_undone() -> None:
    compensations = [step.compensation for step in STEPS]
    assert compensations == [OrderCancelled, REFUND, None, None, STOP_SHIPMENT, None, None]
    undone = [step for step in STEPS if step not in (CAPTURE, REFUND_RETURN)]
    assert all(step.compensation or step in compensations for step in undone)


@pytest.mark.parametrize("step", [step for step in STEPS if step.gives_up], ids=lambda step: step.name)
def test_a_step_that_gives_up_ends_the_order(step: Step) -> None:
    order = ARRIVALS[step.name]()
    assert step.gives_up
    step.gives_up(order, NOW)
    assert order.status is Status.CANCELLED
    assert plan(order, NOW, TIMEOUTS) is None


def test_the_names_of_steps_that_are_stored_do_not_change() -> None:
    assert [step.name for step in steps()] == [
        "reserve stock",
        "charge",
        "refund",
        "capture",
        "ship",
        "stop shipment",
        "refund return",
    ]


def test_every_answer_belongs_to_one_step() -> None:
    answers = [answer for step in STEPS for answer in step.answers]
    assert len(answers) == len(set(answers))
    assert reactions().keys() == set(answers) - {ShipmentStopped, ShipmentUnderWay, ReturnRefundMade}


class TestPlan:
    def test_a_step_that_only_waits_falls_due_at_its_deadline(self) -> None:
        saga = planned(placed())
        assert (saga.due, saga.deadline) == (NOW + TIMEOUTS.stock, NOW + TIMEOUTS.stock)

    def test_a_step_that_asks_is_asked_again_before_its_deadline(self) -> None:
        saga = planned(with_stock())
        assert (saga.due, saga.deadline) == (NOW + TIMEOUTS.retry.first, NOW + TIMEOUTS.payment)

    def test_it_never_falls_due_after_its_deadline(self) -> None:
        hasty = Timeouts(stock=SECOND, payment=SECOND, retry=TIMEOUTS.retry)
        saga = plan(with_stock(), NOW, hasty)
        assert saga
        assert saga.due == saga.deadline == NOW + SECOND

    def test_a_refund_is_asked_for_for_ever(self) -> None:
        saga = planned(cancelled_with_money())
        assert (saga.due, saga.deadline) == (NOW + TIMEOUTS.retry.first, None)
        assert not saga.is_overdue(NOW + timedelta(days=365))

    def test_the_token_and_the_correlation_id_go_from_step_to_step(self) -> None:
        order = placed()
        order.saga = planned(order)
        order.on_inventory_reserved(reserved(order), NOW)
        saga = plan(order, NOW, TIMEOUTS, token="tok_other", correlation_id="another request")
        assert saga
        assert (saga.step, saga.token, saga.correlation_id) == (CHARGE.name, "tok_visa", "the request")

    def test_a_saga_of_before_the_column_takes_the_request_that_is_under_way(self) -> None:
        order = placed()
        order.saga = plan(order, NOW, TIMEOUTS)
        order.on_inventory_reserved(reserved(order), NOW)
        assert planned(order).correlation_id == "the request"

    def test_the_token_is_kept_only_until_the_order_is_settled(self) -> None:
        assert planned(with_stock()).token == "tok_visa"
        assert planned(cancelled_with_money()).token is None

    def test_a_step_that_goes_on_keeps_its_times(self) -> None:
        order = placed()
        order.saga = planned(order)
        assert planned(order, NOW + SECOND) == order.saga

    def test_an_order_that_needs_nothing_has_no_saga(self) -> None:
        assert plan(a_delivered_order(), NOW, TIMEOUTS) is None
        for outcome in (out_of_stock, declined):
            order = with_stock() if outcome is declined else placed()
            if outcome is declined:
                order.on_payment_failed(declined(order), NOW)
            else:
                order.on_inventory_out_of_stock(out_of_stock(order), NOW)
            assert plan(order, NOW, TIMEOUTS) is None

    def test_a_step_that_only_waits_for_others_and_never_gives_up_needs_no_saga(self) -> None:
        order = a_confirmed_order()
        assert step_of(order) is SHIP
        assert plan(order, NOW, TIMEOUTS) is None

    def test_the_token_does_not_show_in_logs(self) -> None:
        assert "tok_visa" not in repr(planned(placed()))
