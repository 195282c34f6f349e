"""The order service's database, for the tests that need one."""

from collections.abc import AsyncIterator

import pytest

from stoa_chassis.avro import EventCodec
from stoa_chassis.migrations import service_migrations
from stoa_chassis.postgres import Database
from stoa_events import OrderCancelled, OrderConfirmed, OrderPlaced


@pytest.fixture(scope="module")
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database.connect(database_url, service_migrations("order")) as database:
        yield database


@pytest.fixture(scope="module")
async def codec(schema_registry_url: str) -> EventCodec:
    codec = EventCodec(schema_registry_url)
    await codec.load(OrderPlaced, OrderConfirmed, OrderCancelled)
    return codec
