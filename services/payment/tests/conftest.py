"""The payment service on a store and a gateway in memory; tests marked `stack` put it on a real database."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from stoa_chassis.due import Backoff
from stoa_chassis.ids import new_id
from stoa_chassis.memory import MemoryStore, memory_unit_of_work
from stoa_chassis.testing import SettableClock
from stoa_contracts.money import Money
from stoa_payment import testing
from stoa_payment.model import Payment, PaymentStatus, RetryPolicy
from stoa_payment.service import Payments


@pytest.fixture
def backoff() -> Backoff:
    return Backoff(timedelta(seconds=1), timedelta(seconds=15))


@pytest.fixture
def retry() -> RetryPolicy:
    return RetryPolicy(lease=timedelta(seconds=11), give_up_after=timedelta(hours=24))


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def gateway() -> testing.FakeGateway:
    return testing.FakeGateway()


@pytest.fixture
def store() -> MemoryStore[testing.Rows]:
    return MemoryStore(testing.Rows())


@pytest.fixture
def capture_later() -> bool:
    """Whether an order's amount is only held when it is placed."""
    return False


@pytest.fixture
def payments(
    store: MemoryStore[testing.Rows],
    gateway: testing.FakeGateway,
    clock: SettableClock,
    backoff: Backoff,
    retry: RetryPolicy,
    capture_later: bool,
) -> Payments:
    return Payments(
        memory_unit_of_work(lambda: store, testing.open_tx, clock),
        testing.Payments(lambda: store),
        testing.Refunds(lambda: store),
        testing.Unsettled(lambda: store, backoff, retry.lease),
        gateway,
        clock,
        retry,
        backoff,
        capture_later=capture_later,
    )


@pytest.fixture
def a_full_payment() -> Payment:
    """A payment of which no field is empty, but those that only a pending one has."""
    return Payment(
        payment_id=new_id(),
        order_id=new_id(),
        user_id=new_id(),
        amount=Money(Decimal(20), "USD"),
        refunded=Money(Decimal(5), "USD"),
        refunding=Money(Decimal(2), "USD"),
        status=PaymentStatus.PARTIALLY_REFUNDED,
        method_type="card",
        correlation_id="a-request",
        created_at=datetime(2026, 11, 26, 10, tzinfo=UTC),
        updated_at=datetime(2026, 11, 26, 11, tzinfo=UTC),
        brand="visa",
        last4="4242",
        charge_id=f"ch_{new_id()}",
        failure_reason="none",
        attempts=3,
    )
