"""Inventory on a real PostgreSQL, with its neighbours played by the test."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from stoa_chassis.avro import Event, EventCodec
from stoa_chassis.clock import SystemClock
from stoa_chassis.ids import new_id
from stoa_chassis.migrations import service_migrations
from stoa_chassis.postgres import Database
from stoa_events import InventoryLowStock, InventoryOutOfStock, InventoryReserved
from stoa_inventory.events import handlers
from stoa_inventory.repository import StockReader, unit_of_work
from stoa_inventory.service import Inventory

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@dataclass
class Catalog:
    """What the catalog knows."""

    products: dict[UUID, UUID] = field(default_factory=dict)

    async def product_of(self, variant_id: UUID) -> UUID | None:
        return self.products.get(variant_id)


@dataclass
class World:
    """An inventory whose neighbours the test plays."""

    database: Database
    inventory: Inventory
    catalog: Catalog

    async def variant(self, count: int) -> UUID:
        variant_id = new_id()
        self.catalog.products[variant_id] = new_id()
        if count:
            await self.inventory.adjust(variant_id, count, "delivery", "first")
        return variant_id

    async def hear(self, payload: Any, event_id: UUID | None = None) -> None:
        event = Event(event_id or new_id(), payload.TOPIC, 1, NOW, "c", payload)
        await handlers(self.inventory)[type(payload)](event)

    async def answers(self, order_id: UUID) -> list[str]:
        rows = await self.database.fetch("SELECT topic FROM outbox WHERE key = $1 ORDER BY id", str(order_id))
        return [row["topic"] for row in rows]

    async def counts(self, variant_id: UUID) -> tuple[int, int]:
        """Stock and reserved, after checking that the movements add up to them."""
        row = await self.database.fetchrow(
            """SELECT stock_count, reserved_count, sum(stock_delta) AS stock, sum(reserved_delta) AS reserved
            FROM inventory JOIN stock_movements USING (variant_id)
            WHERE variant_id = $1 GROUP BY variant_id""",
            variant_id,
        )
        assert row
        assert (row["stock_count"], row["reserved_count"]) == (row["stock"], row["reserved"])
        return row["stock_count"], row["reserved_count"]


@pytest.fixture(scope="module")
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database.connect(database_url, service_migrations("inventory")) as database:
        yield database


@pytest.fixture(scope="module")
async def codec(schema_registry_url: str) -> EventCodec:
    codec = EventCodec(schema_registry_url)
    await codec.load(InventoryReserved, InventoryOutOfStock, InventoryLowStock)
    return codec


@pytest.fixture
def world(database: Database, codec: EventCodec) -> World:
    clock, catalog = SystemClock(), Catalog()
    uow = unit_of_work(database, codec, clock)
    return World(database, Inventory(uow, StockReader(database), catalog, clock), catalog)
