"""A check that finds nothing may look at nothing: each of these breaks one thing, which must be found."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from stoa.payment.v1 import payment_pb2
from stoa_cart.model import Cart, ClaimState
from stoa_cart.model import Claim as CartClaim
from stoa_cart.service import Carts
from stoa_chassis import due
from stoa_chassis.auth import Principal
from stoa_chassis.avro import Event
from stoa_chassis.due import DueWork
from stoa_chassis.uow import transactional
from stoa_contracts.money import Money
from stoa_events import (
    InventoryReserved,
    OrderCancelled,
    OrderPlaced,
    PaymentRefunded,
    PaymentSuccessful,
    ShipmentStatusUpdated,
)
from stoa_inventory.model import NotReserved
from stoa_inventory.ports import Tx as InventoryTx
from stoa_inventory.service import Inventory
from stoa_order import engine, saga, service
from stoa_order.engine import SagaEngine
from stoa_order.model import Checkout, Order, ReturnRefundMade, Saga, ShipmentUnderWay, Status
from stoa_order.peers import Payments
from stoa_order.returns import Purchase, Return
from stoa_order.saga import SAGA, Step, plan
from stoa_order.service import Orders
from stoa_payment import model as payment_model
from stoa_payment import testing as payment_memory
from stoa_payment.model import ChargeStatus, PaymentStatus
from tests.model.explorer import Report, explore
from tests.model.services import GIVE_UP, StaffRefund
from tests.model.shop import Buyer, Scenario, Shop
from tests.model.stepwise import Gateway

_STATES = 60_000
GOOD, SLOW = Scenario((1,), (Buyer((1,)),)), Scenario((1,), (Buyer((1,), "tok_timeout"),))
TABS = Scenario((1,), (Buyer((1,)), Buyer((1,))), one_cart=True)
RESERVE, CHARGE, CAPTURE, SHIP, REFUND_RETURN = SAGA
TO_STOP = replace(GOOD, ships=True, begins=Status.CONFIRMED)
TO_SEND_BACK = Scenario((2,), (Buyer((2,)),), ships=True, begins=Status.DELIVERED, returns=2, faults=False)


@pytest.fixture
def broken(shop: Callable[..., Shop]) -> Callable[..., Report]:
    """Explore a shop in which something is broken."""

    def look(scenario: Scenario = GOOD, **parts: type) -> Report:
        report = explore(shop(scenario, **parts), _STATES)
        assert report.wrong, f"nothing was found in {report}"
        return report

    return look


def use(monkeypatch: pytest.MonkeyPatch, *table: Step) -> None:
    """Begin the table with these steps."""
    monkeypatch.setattr(saga, "SAGA", (*table, *SAGA[len(table) :]))


def use_plan(monkeypatch: pytest.MonkeyPatch, change: Callable[[Saga], Saga]) -> None:
    """Change what is planned for orders."""

    def changed(*args: Any, **known: Any) -> Saga | None:
        planned = plan(*args, **known)
        return change(planned) if planned else None

    monkeypatch.setattr(service, "plan", changed)
    monkeypatch.setattr(engine, "plan", changed)


def without_faults(report: Report) -> list[str]:
    """The trace, without what happens by itself after the last decision."""
    return [step for step in report.trace if not step.startswith("(by itself)")]


def test_a_saga_whose_compensation_does_not_run_keeps_the_money_of_cancelled_orders(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    use(monkeypatch, RESERVE, replace(CHARGE, compensation=None))
    report = broken()
    assert "a cancelled order is refunded in full" in report.wrong
    assert without_faults(report) == [
        "the buyer orders",
        "inventory handles order.placed",
        "order handles inventory.reserved",
        "the buyer cancels",
    ], report
    assert "(by itself) payment is asked: charge" in report.trace


def test_a_cancellation_that_is_not_published_leaves_its_stock_promised(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    def cancel(order: Order, reason: str, now: datetime) -> None:
        real(order, reason, now)
        order.events.clear()

    real = Order.cancel
    monkeypatch.setattr(Order, "cancel", cancel)
    assert "cancelled, but stock is promised to it" in broken().wrong


def test_an_inventory_that_forgets_early_cancellations_reserves_for_ever(
    broken: Callable[..., Report],
) -> None:
    class Forgetful(Inventory):
        @transactional
        async def on_order_cancelled(self, tx: InventoryTx, event: Event[OrderCancelled]) -> None:
            try:
                hold = await tx.holds.lock(event.payload.order_id)
            except NotReserved:
                return
            stocks = await tx.stocks.lock(hold.quantities)
            hold.on_order_cancelled(stocks, self._clock.now())
            await tx.holds.save(hold, stocks.values())

    report = broken(inventory=Forgetful)
    assert "cancelled, but stock is promised to it" in report.wrong
    assert without_faults(report) == [
        "the buyer orders",
        "the buyer cancels",
        "inventory handles order.cancelled",
    ], report


def test_an_inventory_that_ignores_cancellations_is_found(broken: Callable[..., Report]) -> None:
    class Ignorant(Inventory):
        async def on_order_cancelled(self, event: Event[OrderCancelled]) -> None:
            pass

    assert "cancelled, but stock is promised to it" in broken(inventory=Ignorant).wrong


def test_an_inventory_that_promises_what_is_not_there_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    everything = property(lambda stock: 1_000)
    monkeypatch.setattr("stoa_inventory.model.Stock.available", everything)
    report = broken(Scenario((1,), (Buyer((1,)), Buyer((1,)))))
    assert "inventory_check" in report.wrong
    assert len(report.trace) == 4, report


def test_a_payment_service_that_pays_an_order_twice_is_found(broken: Callable[..., Report]) -> None:
    class Repeating(payment_memory.Payments):
        async def add(self, payment: payment_model.Payment) -> bool:
            store = self._store()
            row = payment_memory.payment_row(payment)
            store.rows = replace(store.rows, payments=(*store.rows.payments, row))
            return True

    report = broken(payment_store=Repeating)
    assert "payments_gateway_charge_id_key" in report.wrong
    assert any("once more" in step or "ask again" in step for step in report.trace), report


def test_a_gateway_key_for_each_attempt_charges_twice(broken: Callable[..., Report]) -> None:
    class KeyPerAttempt(Gateway):
        def key(self, payment: payment_model.Payment) -> str:
            return f"{payment.order_id}/{len(self._run.bank.charges)}"

        async def find(self, payment: payment_model.Payment) -> payment_model.Charge | None:
            return None

    report = broken(gateway=KeyPerAttempt)
    assert "the gateway charged the order 2 times" in report.wrong


def test_an_engine_that_gives_up_without_cancelling_leaves_orders_pending(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    def shrug(order: Order, now: datetime) -> None:
        pass

    use(monkeypatch, *(replace(step, gives_up=shrug) for step in SAGA))

    # A question is asked again until it is answered: only where nobody ever answers does giving up matter.
    class Silent(Inventory):
        async def on_order_placed(self, event: Event[OrderPlaced]) -> None:
            pass

    report = broken(inventory=Silent)
    assert "every order is settled: pending, waiting for: reserve stock" in report.wrong


def test_money_that_comes_for_a_cancelled_order_must_be_noted(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    def pay(order: Order, answer: PaymentSuccessful, now: datetime) -> None:
        if order.status is not Status.CANCELLED:
            order.on_payment_successful(answer, now)

    use(monkeypatch, RESERVE, replace(CHARGE, answers={**CHARGE.answers, PaymentSuccessful: pay}))
    assert "a cancelled order is refunded in full" in broken().wrong


def test_money_that_is_captured_after_payment_gave_up_must_go_back(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    def awaits(payment: payment_model.Payment, charge: payment_model.Charge) -> bool:
        return payment.status is PaymentStatus.PENDING and charge.status is not ChargeStatus.PENDING

    monkeypatch.setattr(payment_model.Payment, "awaits", awaits)
    report = broken(SLOW)
    assert "the gateway's ledger agrees" in report.wrong
    assert any(GIVE_UP in step for step in report.trace), report


def test_confirming_before_the_money_is_there_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    def settle(payment: payment_model.Payment, charge: payment_model.Charge, now: datetime) -> None:
        real(payment, replace(charge, status=ChargeStatus.SUCCEEDED), now)

    real: Any = payment_model.Payment.settle
    monkeypatch.setattr(payment_model.Payment, "settle", settle)
    report = broken(Scenario((1,), (Buyer((1,), "tok_declined"),)))
    assert "booked that the gateway did not take" in report.wrong


def test_a_saga_that_loses_the_payment_token_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    use_plan(monkeypatch, lambda planned: replace(planned, token=None))
    assert "payment refuses to charge" in broken().wrong


def test_an_engine_that_never_asks_again_leaves_the_money_of_cancelled_orders(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    async def take_up(engine: SagaEngine, saga: Saga) -> None:
        await engine._bring_on(saga.order_id)

    monkeypatch.setattr(SagaEngine, "take_up", take_up)
    report = broken()
    assert "a cancelled order is refunded in full" in report.wrong
    assert any("gets lost: refund" in step for step in report.trace), report


def test_a_step_that_is_put_off_for_ever_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    def for_ever(planned: Saga) -> Saga:
        return (
            replace(planned, due=planned.due + timedelta(days=365)) if planned.step == "refund" else planned
        )

    use_plan(monkeypatch, for_ever)
    report = broken()
    assert "a cancelled order is refunded in full" in report.wrong
    assert any("gets lost: refund" in step for step in report.trace), report


def test_a_charge_that_is_put_off_for_ever_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    async def put_off(unsettled: DueWork[Any], work: Any) -> None:
        await unsettled._store.put_off(work, unsettled._clock.now() + timedelta(days=365))

    monkeypatch.setattr(DueWork, "put_off", put_off)
    report = broken()
    assert "every payment is settled: pending" in report.wrong
    assert any("asks for charge: not reached" in step for step in report.trace), report


def test_late_work_that_is_not_bound_to_what_caused_it_loses_the_correlation_id(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    @contextmanager
    def unbound(correlation_id: str) -> Iterator[None]:
        yield

    monkeypatch.setattr(due, "bound", unbound)
    report = broken()
    assert report.wrong == "order.cancelled does not carry the correlation id of its order"
    assert report.trace[-1] == "the engine takes up the saga, to give up: reserve stock", report


def test_a_saga_that_forgets_the_correlation_id_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    use_plan(monkeypatch, lambda planned: replace(planned, correlation_id=""))
    assert "does not carry the correlation id of its order" in broken().wrong


def test_a_notice_that_is_taken_over_under_an_id_of_its_own_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    @contextmanager
    def unbound(correlation_id: str, deadline: float | None) -> Iterator[None]:
        yield

    monkeypatch.setattr("stoa_payment.service.bound", unbound)
    report = broken(SLOW)
    assert report.wrong == "payment.successful does not carry the correlation id of its order"
    assert any("sends payment a notice" in step for step in report.trace), report


def test_an_error_that_late_work_survives_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    async def take_up(engine: SagaEngine, saga: Saga) -> None:
        raise AssertionError("broken")

    monkeypatch.setattr(SagaEngine, "take_up", take_up)
    assert "due work failed" in broken().wrong


def test_a_refund_that_is_known_first_must_not_leave_the_order_waiting(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    def pay(order: Order, answer: PaymentSuccessful, now: datetime) -> None:
        if order.payment is None:
            order.on_payment_successful(answer, now)

    use(monkeypatch, RESERVE, replace(CHARGE, answers={**CHARGE.answers, PaymentSuccessful: pay}))
    report = broken(replace(GOOD, staff=(StaffRefund.PART,)))
    assert report.wrong == "an order waits for its deadline though everybody has answered"


def test_a_shop_that_refuses_every_order_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    def refuse(order: Order, answer: InventoryReserved, now: datetime) -> None:
        order.cancel("not today", now)

    use(monkeypatch, replace(RESERVE, answers={**RESERVE.answers, InventoryReserved: refuse}), CHARGE)
    assert broken().wrong == "at rest, an order was cancelled for nothing: not today"


def test_a_stock_that_is_never_enough_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    nothing = property(lambda stock: 0)
    monkeypatch.setattr("stoa_inventory.model.Stock.available", nothing)
    assert "cancelled for nothing: out of stock" in broken().wrong


def test_a_charge_that_never_gives_up_is_found_where_payment_never_answers(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    use(monkeypatch, RESERVE, replace(CHARGE, gives_up=None))
    report = broken(replace(GOOD, payment_answers=False))
    assert "every order is settled: pending, waiting for: charge" in report.wrong


def test_orders_that_do_not_claim_the_cart_are_two_of_the_same_things(broken: Callable[..., Report]) -> None:
    class Open(Carts):
        async def claim(
            self, user_id: UUID, request_id: str, order_id: UUID, version: str
        ) -> tuple[CartClaim, timedelta]:
            return CartClaim(order_id, ClaimState.OPEN), timedelta(minutes=1)

    assert broken(TABS, carts=Open).wrong in (
        "2 are ordered, 1 were put into the cart",
        "it never comes to rest",
    )


def test_a_claim_that_never_lapses_loses_the_cart_of_an_order_that_is_never_placed(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    monkeypatch.setattr(Cart, "lapse", lambda cart, at: None)
    report = broken(TABS)
    assert report.wrong == "at rest, 0 are in the cart of 1, and nothing was bought"
    assert any("dies" in step or "lost" in step for step in report.trace), report


def test_an_order_that_is_stored_when_its_claim_has_lapsed_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    monkeypatch.setattr(service, "_CLAIM_RESERVE", -timedelta(hours=1))
    report = broken(TABS)
    assert report.wrong == "at rest, 1 are in the cart and 1 bought of 1"
    assert any("lapses" in step for step in report.trace), report


def test_an_order_that_does_not_ask_what_became_of_lapsed_claims_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    async def trust(orders: Orders, checkout: Checkout) -> None:
        pass

    monkeypatch.setattr(Orders, "_check_claims", trust)
    assert broken(TABS).wrong == "2 are ordered, 1 were put into the cart"


def test_a_cart_that_is_not_given_back_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    monkeypatch.setattr(Cart, "on_order_cancelled", lambda cart, order, at: cart.clear(at))
    report = broken(replace(TABS, stock=(0,)))
    assert "0 are in the cart of 1, and nothing was bought" in report.wrong


def test_a_claim_that_outlives_its_order_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    monkeypatch.setattr(Cart, "_end", lambda cart, claim: None)
    assert "still holds what it is of" in broken(TABS).wrong


def test_keys_of_the_saga_that_people_can_send_keep_the_rest_of_the_money(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    monkeypatch.setattr(Principal, "key_namespace", "one for all")
    report = broken(replace(GOOD, staff=(StaffRefund.PART_WITH_THE_SAGAS_KEY,)))
    assert "a cancelled order is refunded in full: cancelled, but 7.00" in report.wrong
    assert any(StaffRefund.PART_WITH_THE_SAGAS_KEY in step for step in report.trace), report


def test_an_order_that_goes_on_when_all_its_money_was_given_back_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    def note(order: Order, answer: PaymentRefunded, now: datetime) -> None:
        confirmed = order.status is Status.CONFIRMED
        order.on_payment_refunded(
            replace(answer, fully_refunded=not confirmed and answer.fully_refunded), now
        )

    assert isinstance(CHARGE.compensation, Step)
    refund = replace(CHARGE.compensation, answers={PaymentRefunded: note})
    use(monkeypatch, RESERVE, replace(CHARGE, compensation=refund))
    report = broken(replace(GOOD, staff=(StaffRefund.PART, StaffRefund.ALL)))
    assert "an order that is refunded in full is cancelled" in report.wrong
    assert any(StaffRefund.ALL in step for step in report.trace), report


def test_an_order_that_is_cancelled_before_its_parcel_is_stopped_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    monkeypatch.setattr(Order, "_begin_to_cancel", Order._cancel)
    report = broken(TO_STOP)
    assert report.wrong == "an order was cancelled though its parcel may still leave"
    assert len(report.trace) == 1, report


def test_an_order_that_does_not_heed_that_the_carrier_has_its_parcel_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    assert isinstance(SHIP.compensation, Step)
    answers = {**SHIP.compensation.answers, ShipmentUnderWay: Order.on_shipment_stopped}
    use(
        monkeypatch,
        RESERVE,
        CHARGE,
        CAPTURE,
        replace(SHIP, compensation=replace(SHIP.compensation, answers=answers)),
    )
    report = broken(TO_STOP)
    assert report.wrong == "an order was cancelled though its parcel may still leave"
    assert [step for step in report.trace if "scans" in step], report


def test_a_parcel_that_nobody_stops_leaves_a_cancellation_open(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    use(monkeypatch, RESERVE, CHARGE, CAPTURE, replace(SHIP, compensation=None))
    assert broken(TO_STOP).wrong == "at rest, nobody finds out whether an order is cancelled"


def test_an_order_that_does_not_hear_of_scans_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    def deaf(order: Order, event: ShipmentStatusUpdated, now: datetime) -> None:
        pass

    use(
        monkeypatch,
        RESERVE,
        CHARGE,
        CAPTURE,
        replace(SHIP, answers={**SHIP.answers, ShipmentStatusUpdated: deaf}),
    )
    assert broken(TO_STOP).wrong == "at rest, the parcel is in_transit, and its order confirmed"


def test_returns_that_are_not_counted_while_they_are_open_are_more_than_was_bought(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    monkeypatch.setattr(Purchase, "check", lambda purchase, items, returned: None)
    assert "are sent back of" in broken(replace(TO_SEND_BACK, returns=3)).wrong


def test_a_refund_that_gives_all_back_for_a_part_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    monkeypatch.setattr(Purchase, "refund", lambda purchase, _, __: purchase.owed(purchase.quantities))
    assert broken(TO_SEND_BACK).wrong == "more is given back for returns than was paid"


def test_returns_that_share_a_key_are_refunded_once_for_all(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    async def refund(payments: Payments, order: Order, return_: Return) -> ReturnRefundMade | None:
        made = await real(payments, order, replace(return_, return_id=order.order_id))
        return made and replace(made, return_id=return_.return_id)

    real = Payments.refund_return
    monkeypatch.setattr(Payments, "refund_return", refund)
    assert "what came back is given back" in broken(TO_SEND_BACK).wrong


def test_a_return_that_is_not_published_is_not_on_the_shelf(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    def receive(order: Order, return_id: UUID, reason: str, now: datetime) -> Return:
        made = real(order, return_id, reason, now)
        order.events.clear()
        return made

    real = Order.receive_return
    monkeypatch.setattr(Order, "receive_return", receive)
    assert "what came back is on the shelf" in broken(TO_SEND_BACK).wrong


def test_a_saga_that_does_not_refund_what_came_back_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    monkeypatch.setattr(saga, "SAGA", (RESERVE, CHARGE, CAPTURE, SHIP))
    assert "every return is refunded" in broken(TO_SEND_BACK).wrong


def test_a_refund_that_does_not_mind_what_staff_gave_back_is_never_made(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    async def whole(
        payments: Payments, order: Order, return_: Return, amount: Money | None
    ) -> payment_pb2.Refund | None:
        return await real(payments, order, return_, return_.refund)

    real = Payments._refund_part
    monkeypatch.setattr(Payments, "_refund_part", whole)
    to_send_back = replace(GOOD, ships=True, begins=Status.DELIVERED, returns=1, faults=False)
    report = broken(replace(to_send_back, staff=(StaffRefund.PART,)))
    assert "is given back of" in report.wrong
    assert any(StaffRefund.PART in step for step in report.trace), report


def test_a_trace_reads_as_a_story(monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]) -> None:
    use(monkeypatch, RESERVE, replace(CHARGE, compensation=None))
    lines = str(broken()).splitlines()
    assert lines[0].startswith("at rest, a cancelled order is refunded in full: cancelled, but 11.00")
    assert lines[1] == "   1. the buyer orders"
    assert lines[4] == "   4. the buyer cancels"
