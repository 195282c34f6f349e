"""A check that finds nothing may look at nothing: each of these breaks one thing, which must be found."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from stoa_events import OrderCancelled, PaymentSuccessful
from stoa_inventory.model import HoldStatus, release
from stoa_inventory.repository import Tx
from stoa_inventory.service import Inventory
from stoa_order import events, saga
from stoa_order.engine import SagaEngine
from stoa_order.model import Order, Status
from stoa_order.saga import SAGA, Step
from stoa_payment import model as payment_model
from stoa_payment.model import ChargeStatus, PaymentStatus
from tests.model import memory
from tests.model.explorer import Report, explore
from tests.model.memory import Cell, Gateway, PaymentRows
from tests.model.shop import Buyer, Scenario, Shop

_STATES = 60_000
GOOD, SLOW = Scenario((1,), (Buyer((1,)),)), Scenario((1,), (Buyer((1,), "slow"),))


@pytest.fixture
def broken(shop: Callable[..., Shop]) -> Callable[..., Report]:
    """Explore a shop in which something is broken."""

    def look(scenario: Scenario = GOOD, **parts: type) -> Report:
        report = explore(shop(scenario, **parts), _STATES)
        assert report.wrong, f"nothing was found in {report}"
        return report

    return look


def use(monkeypatch: pytest.MonkeyPatch, table: Sequence[Step]) -> None:
    monkeypatch.setattr(saga, "SAGA", tuple(table))
    monkeypatch.setattr(events, "SAGA", tuple(table))


def without_faults(report: Report) -> list[str]:
    """The trace, without what happens by itself after the last decision."""
    return [step for step in report.trace if not step.startswith("(by itself)")]


def test_a_saga_without_refunds_keeps_the_money_of_cancelled_orders(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    use(monkeypatch, [step for step in SAGA if step.name != "refund"])
    report = broken()
    assert "a cancelled order is refunded in full" in report.wrong
    assert without_faults(report) == [
        "the buyer orders",
        "inventory hears order.placed",
        "order hears inventory.reserved",
        "the buyer cancels",
    ], report
    assert "(by itself) payment is asked: charge" in report.trace


def test_an_inventory_that_forgets_early_cancellations_reserves_for_ever(
    broken: Callable[..., Report],
) -> None:
    class Forgetful(Inventory):
        async def order_cancelled(self, event: Any) -> None:
            async def decide(tx: Tx) -> None:
                payload: OrderCancelled = event.payload
                if await tx.stocks.lock_hold(payload.order_id) is HoldStatus.HELD:
                    await self._settle(tx, payload.order_id, HoldStatus.RELEASED, release)

            await self._uow.run(decide, consuming=event)

    report = broken(inventory=Forgetful)
    assert "cancelled, but stock is promised to it" in report.wrong
    assert without_faults(report) == [
        "the buyer orders",
        "the buyer cancels",
        "inventory hears order.cancelled",
    ], report


def test_an_inventory_that_ignores_cancellations_is_found(broken: Callable[..., Report]) -> None:
    class Deaf(Inventory):
        async def order_cancelled(self, event: Any) -> None:
            pass

    assert "cancelled, but stock is promised to it" in broken(inventory=Deaf).wrong


def test_an_inventory_that_promises_what_is_not_there_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    everything = property(lambda stock: 1_000)
    monkeypatch.setattr("stoa_inventory.model.Stock.available", everything)
    report = broken(Scenario((1,), (Buyer((1,)), Buyer((1,)))))
    assert "inventory_check" in report.wrong
    assert len(report.trace) == 4, report


def test_a_payment_service_that_pays_an_order_twice_is_found(broken: Callable[..., Report]) -> None:
    class Repeating(memory.Payments):
        def _known(self, cell: Cell[PaymentRows], payment: payment_model.Payment) -> bool:
            return False

    report = broken(payment_store=Repeating)
    assert "charged" in report.wrong
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

    use(monkeypatch, [replace(step, gives_up=step.gives_up and shrug) for step in SAGA])

    # A question is asked again until it is answered: only where nobody ever answers does giving up matter.
    class Silent(Inventory):
        async def order_placed(self, event: Any) -> None:
            pass

    report = broken(inventory=Silent)
    assert "every order is settled: pending, waiting for: reserve stock" in report.wrong


def test_money_that_comes_for_a_cancelled_order_must_be_noted(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    def pay(order: Order, answer: PaymentSuccessful, now: datetime) -> None:
        if order.status is not Status.CANCELLED:
            order.pay(answer, now)

    charge = next(step for step in SAGA if step.name == "charge")
    deaf = replace(charge, answers={**charge.answers, PaymentSuccessful: pay})
    use(monkeypatch, [deaf if step is charge else step for step in SAGA])
    assert "a cancelled order is refunded in full" in broken().wrong


def test_money_that_is_captured_after_payment_gave_up_must_go_back(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    def awaits(payment: payment_model.Payment, charge: payment_model.Charge) -> bool:
        return payment.status is PaymentStatus.PENDING and charge.status is not ChargeStatus.PENDING

    monkeypatch.setattr(payment_model.Payment, "awaits", awaits)
    report = broken(SLOW)
    assert "the gateway's ledger agrees" in report.wrong
    assert any("see whether to give up" in step for step in report.trace), report


def test_confirming_before_the_money_is_there_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    def settle(payment: payment_model.Payment, charge: payment_model.Charge, now: datetime) -> None:
        real(payment, replace(charge, status=ChargeStatus.SUCCEEDED), now)

    real: Any = payment_model.Payment.settle
    monkeypatch.setattr(payment_model.Payment, "settle", settle)
    report = broken(Scenario((1,), (Buyer((1,), "declined"),)))
    assert "booked that the gateway did not take" in report.wrong


def test_an_engine_that_loses_the_payment_token_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    ask = SagaEngine.ask
    monkeypatch.setattr(SagaEngine, "ask", lambda engine, order, payment_token=None: ask(engine, order))
    assert "payment refuses to charge" in broken().wrong


def test_a_refund_that_is_heard_of_first_must_not_leave_the_order_waiting(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]
) -> None:
    def pay(order: Order, answer: PaymentSuccessful, now: datetime) -> None:
        if order.payment is None:
            order.pay(answer, now)

    use(
        monkeypatch,
        [
            replace(s, answers={**s.answers, PaymentSuccessful: pay}) if s.name == "charge" else s
            for s in SAGA
        ],
    )
    report = broken(replace(GOOD, staff=True))
    assert report.wrong == "an order waits for its deadline though everybody has answered"


def test_a_trace_reads_as_a_story(monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Report]) -> None:
    use(monkeypatch, [step for step in SAGA if step.name != "refund"])
    lines = str(broken()).splitlines()
    assert lines[0].startswith("at rest, a cancelled order is refunded in full: cancelled, but 11.00")
    assert lines[1] == "   1. the buyer orders"
    assert lines[4] == "   4. the buyer cancels"
