"""The payment service on a store and a gateway in memory; tests marked `stack` put it on a real database."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from stoa_chassis.avro import EventCodec
from stoa_chassis.due import Backoff
from stoa_chassis.memory import MemoryStore, memory_unit_of_work
from stoa_chassis.migrations import service_migrations
from stoa_chassis.postgres import Database
from stoa_chassis.testing import SettableClock
from stoa_events import PaymentFailed, PaymentRefunded, PaymentSuccessful
from stoa_payment import testing
from stoa_payment.model import RetryPolicy
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
def payments(
    store: MemoryStore[testing.Rows],
    gateway: testing.FakeGateway,
    clock: SettableClock,
    backoff: Backoff,
    retry: RetryPolicy,
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
    )


@pytest.fixture(scope="module")
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database.connect(database_url, service_migrations("payment")) as database:
        yield database


@pytest.fixture(scope="module")
async def codec(schema_registry_url: str) -> EventCodec:
    codec = EventCodec(schema_registry_url)
    await codec.load(PaymentSuccessful, PaymentFailed, PaymentRefunded)
    return codec
