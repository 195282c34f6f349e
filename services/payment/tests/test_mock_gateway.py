"""The adapter and the use cases against the mock gateway's process, which dies, hangs and loses answers."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from stoa_chassis.clock import SystemClock
from stoa_chassis.due import Backoff
from stoa_chassis.memory import MemoryStore, memory_unit_of_work
from stoa_chassis.testing import eventually, free_port
from stoa_contracts.money import Money
from stoa_events import PaymentFailed, PaymentRefunded, PaymentSuccessful
from stoa_payment import testing
from stoa_payment.model import (
    ChargeStatus,
    Payment,
    PaymentStatus,
    RefundStatus,
    RefundTerms,
    RequestKey,
    RetryPolicy,
)
from stoa_payment.peers import HttpGateway
from stoa_payment.ports import NoAnswer
from stoa_payment.service import Payments, ProcessPayment, RefundPayment

API_KEY, SECRET = "test-key", "test-secret"
TIMEOUT = timedelta(seconds=0.6)
RETRY = RetryPolicy(lease=timedelta(seconds=1.5), give_up_after=timedelta(hours=24))
BACKOFF = Backoff(timedelta(seconds=0.05), timedelta(seconds=0.3))
AMOUNT = Money(Decimal("20.00"), "USD")
KEY = RequestKey("user", "r1")


class MockGateway:
    """The process, which tests may stop, start and disturb."""

    def __init__(self, folder: Path, **settings: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._client = httpx.AsyncClient(
            base_url=self.url, headers={"authorization": f"Bearer {API_KEY}"}, timeout=20
        )
        self._environment = {
            **os.environ,
            "GATEWAY_PORT": str(port),
            "GATEWAY_STATE": str(folder / "gateway.sqlite"),
            "GATEWAY_API_KEY": API_KEY,
            "GATEWAY_WEBHOOK_SECRET": SECRET,
            "GATEWAY_WEBHOOK_URL": "",
            "GATEWAY_TIMEOUT_ANSWER_SECONDS": "1",
            "GATEWAY_LATENCY_MS": "5",
            **settings,
        }

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "stoa_fakes.payment_gateway", env=self._environment
        )
        await eventually(self._is_up, despite=(httpx.TransportError,))

    async def _is_up(self) -> bool:
        return (await self._client.get("/healthz")).is_success

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()

    async def aclose(self) -> None:
        await self.kill()
        await self._client.aclose()

    async def disturb(self, **faults: float) -> None:
        (await self._client.post("/admin/faults", json=faults)).raise_for_status()

    async def refunds(self, charge_id: str | None) -> list[int]:
        """Return the amounts, in cents, that were given back of a charge."""
        page = (await self._client.get("/v1/ledger", params={"after": "", "limit": 1000})).json()
        assert not page["has_more"]
        refunds = (entry for entry in page["data"] if entry["kind"] == "refund")
        return [refund["amount"] for refund in refunds if refund["charge"] == charge_id]


@pytest.fixture(scope="module")
async def process(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[MockGateway]:
    async with aclosing(MockGateway(tmp_path_factory.mktemp("gateway"))) as mock:
        await mock.start()
        yield mock


@pytest.fixture
async def mock(process: MockGateway) -> AsyncIterator[MockGateway]:
    yield process
    await process.disturb()


@pytest.fixture
async def adapter(mock: MockGateway) -> AsyncIterator[HttpGateway]:
    async with HttpGateway.connect(mock.url, API_KEY, SECRET, TIMEOUT) as adapter:
        yield adapter


@pytest.fixture
def payments(store: MemoryStore[testing.Rows], adapter: HttpGateway) -> Payments:
    return Payments(
        memory_unit_of_work(lambda: store, testing.open_tx),
        testing.Payments(lambda: store),
        testing.Refunds(lambda: store),
        testing.Unsettled(lambda: store, BACKOFF, RETRY.lease),
        adapter,
        SystemClock(),
        RETRY,
        BACKOFF,
    )


def an_order(token: str = "tok_visa") -> ProcessPayment:
    return ProcessPayment(order_id=uuid4(), user_id=uuid4(), amount=AMOUNT, token=token)


def a_payment(token: str = "tok_visa") -> Payment:
    return Payment.begin(
        order_id=uuid4(),
        user_id=uuid4(),
        amount=AMOUNT,
        token=token,
        correlation_id="request",
        retry=RETRY,
        now=SystemClock().now(),
    )


async def settled(
    payments: Payments, store: MemoryStore[testing.Rows], type_: type[object], within: float = 15
) -> None:
    """Take up what is due until an event of this type was published."""

    async def look() -> bool:
        await payments.unsettled.work_off()
        return bool(store.payloads(type_))

    await eventually(look, within=within)


@pytest.mark.parametrize(("token", "card"), testing.CARDS.items())
async def test_the_gateway_in_memory_knows_the_cards_of_the_mock(
    adapter: HttpGateway, token: str, card: testing.Card
) -> None:
    payment = a_payment(token)
    if token == "tok_timeout":
        with pytest.raises(NoAnswer):
            await adapter.charge(payment)
    else:
        await adapter.charge(payment)
    charge = await adapter.find(payment)
    assert charge
    assert (charge.brand, charge.last4, charge.failure_code) == (card.brand, card.last4, card.failure_code)
    assert (charge.order_id, charge.amount) == (payment.order_id, payment.amount)


async def test_the_same_charge_and_the_same_refund_are_made_once(
    mock: MockGateway, adapter: HttpGateway
) -> None:
    payment = a_payment()
    assert await adapter.find(payment) is None
    charge = await adapter.charge(payment)
    assert await adapter.charge(payment) == await adapter.find(payment) == charge
    payment.settle(charge, SystemClock().now())
    refund = payment.refund(
        RefundTerms(None, ""), key=KEY, correlation_id="c", retry=RETRY, now=SystemClock().now()
    )
    made = await adapter.refund(payment, refund)
    assert await adapter.refund(payment, refund) == made
    assert made.refund_id == refund.refund_id
    assert await mock.refunds(charge.charge_id) == [2000]


async def test_what_is_held_is_taken_once_or_released_once(mock: MockGateway, adapter: HttpGateway) -> None:
    for release in (False, True):
        payment, now = replace(a_payment(), held=True), SystemClock().now()
        charge = await adapter.charge(payment)
        assert charge.status is ChargeStatus.AUTHORIZED
        assert await adapter.find(payment) == charge
        payment.settle(charge, now)
        refund = payment.refund(RefundTerms(None, ""), key=KEY, correlation_id="c", retry=RETRY, now=now)
        if release:
            assert await adapter.release(payment, refund) == await adapter.release(payment, refund)
            with pytest.raises(NoAnswer, match="400"):
                await adapter.capture(payment)
            assert await mock.refunds(charge.charge_id) == [2000]
        else:
            captured = await adapter.capture(payment)
            assert captured.status is ChargeStatus.SUCCEEDED
            assert await adapter.capture(payment) == captured


async def test_what_was_held_for_too_long_fails_when_it_is_to_be_taken_and_counts_as_never_taken(
    tmp_path: Path,
) -> None:
    async with aclosing(MockGateway(tmp_path, GATEWAY_HOLD_SECONDS="0.001")) as mock:
        await mock.start()
        async with HttpGateway.connect(mock.url, API_KEY, SECRET, TIMEOUT) as adapter:
            payment, now = replace(a_payment(), held=True), SystemClock().now()
            payment.settle(await adapter.charge(payment), now)
            await asyncio.sleep(0.01)
            for _ in range(2):
                lapsed = await adapter.capture(payment)
                assert lapsed.status is ChargeStatus.FAILED
            assert await adapter.find(payment) == lapsed
            payment.settle(lapsed, now)
            assert payment.status is PaymentStatus.FAILED


async def test_a_request_that_failed_was_not_carried_out_and_one_whose_answer_was_lost_was(
    mock: MockGateway, adapter: HttpGateway
) -> None:
    failed, lost = a_payment(), a_payment()
    await mock.disturb(error_rate=1)
    with pytest.raises(NoAnswer):
        await adapter.charge(failed)
    await mock.disturb(lost_answer_rate=1)
    with pytest.raises(NoAnswer):
        await adapter.charge(lost)
    await mock.disturb()
    assert await adapter.find(failed) is None
    assert await adapter.find(lost)


async def test_payments_and_refunds_outlive_a_gateway_that_dies(
    mock: MockGateway, payments: Payments, store: MemoryStore[testing.Rows]
) -> None:
    paid = await payments.process(an_order())
    await mock.kill()
    assert (await payments.process(an_order("tok_declined"))).status is PaymentStatus.PENDING
    refund = await payments.refund(RefundPayment(payment_id=paid.payment_id, key=KEY, amount=None, reason=""))
    assert refund.status is RefundStatus.PENDING
    await payments.unsettled.work_off()
    await mock.start()
    await settled(payments, store, PaymentFailed)
    await settled(payments, store, PaymentRefunded)
    assert await mock.refunds(paid.charge_id) == [2000]


async def test_a_card_whose_bank_hangs_does_not_keep_the_others_from_a_gateway_that_is_back(
    mock: MockGateway, payments: Payments, store: MemoryStore[testing.Rows]
) -> None:
    await mock.kill()
    for _ in range(5):
        await payments.process(an_order())
    store.rows = testing.Rows()  # only what comes now is asked about
    await mock.start()
    await asyncio.sleep(2.1)  # until the circuit lets one request try
    began = time.monotonic()
    assert (await payments.process(an_order("tok_timeout"))).status is PaymentStatus.PENDING
    assert time.monotonic() - began < 0.5
    await payments.process(an_order())
    await settled(payments, store, PaymentSuccessful, within=2)
