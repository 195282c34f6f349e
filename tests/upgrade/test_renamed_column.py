"""A column gets another name while both versions sell: `renamed_column` walked on a database of its own.

The same walk is done in a cluster, with images of the versions (see there).
"""

import asyncio
import importlib.util
import shutil
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stoa_chassis.migrations import MigrationError, service_migrations
from stoa_chassis.postgres import Database
from stoa_order import repository
from stoa_order.model import OrderView
from stoa_order.testing import a_confirmed_order
from tests.postgres import Server
from tests.upgrade.renamed_column import write

pytestmark = [pytest.mark.stack, pytest.mark.own_stack]
LONGEST_WAIT = 4.0  # seconds: a migration waits for a lock for two


class NoOutbox:
    """Events are not what this is about."""

    def collect(self, _: object) -> None:
        pass


@dataclass
class Version:
    """The order service in one of its versions: its migrations, and how it writes and reads orders."""

    migrations: Path
    repository: ModuleType
    database: Database | None = None
    slowest: float = field(default=0.0)

    async def place(self) -> OrderView:
        """Store an order, and change it."""
        assert self.database is not None
        order, began = a_confirmed_order(), time.monotonic()
        async with self.database.transaction() as connection:
            await self.repository.Orders(connection, NoOutbox()).save(order, None)
        self.slowest = max(self.slowest, time.monotonic() - began)
        return order.view

    async def read(self, order: OrderView) -> Any:
        return await self.repository.OrderViews(self.database, self.database).get(order.order_id)

    async def sell(self) -> None:
        """Place orders until it is cancelled."""
        while True:
            placed = await self.place()
            assert await self.read(placed) == placed
            await asyncio.sleep(0.01)


def next_version(number: int, folder: Path) -> Version:
    """The version that comes after others, as `renamed_column` writes it."""
    write(number, folder)
    changed = folder / "stoa_order"
    for path in service_migrations("order").glob("*.sql"):
        shutil.copy(path, changed / "migrations")
    name = f"renamed_column_{number}"
    spec = importlib.util.spec_from_file_location(name, changed / "repository.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return Version(changed / "migrations", module)


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    server = Server.primary(tmp_path / "primary")
    await server.start()
    yield server.url("postgres")
    server.kill()


async def test_a_column_gets_another_name_while_both_versions_sell(url: str, tmp_path: Path) -> None:
    first = Version(service_migrations("order"), repository)
    second, third = next_version(2, tmp_path / "2"), next_version(3, tmp_path / "3")
    async with Database.connect(url, first.migrations) as first.database:
        oldest = await first.place()
        selling = asyncio.ensure_future(first.sell())
        async with Database.connect(url, second.migrations) as second.database:
            # Side by side: each reads what the other has written, before, meanwhile, and from now on.
            assert await second.read(oldest) == oldest
            for _ in range(20):
                placed = await second.place()
                assert await first.read(placed) == await second.read(placed) == placed
            newest = await first.place()
            assert await second.read(newest) == newest
            # The second can be rolled back: a process of the first starts.
            async with Database.connect(url, first.migrations):
                pass
            assert not selling.done()
            selling.cancel()
            await asyncio.gather(selling, return_exceptions=True)
            assert first.slowest < LONGEST_WAIT

            selling = asyncio.ensure_future(second.sell())
            async with Database.connect(url, third.migrations) as third.database:
                for placed in (oldest, newest, await third.place()):
                    assert await second.read(placed) == await third.read(placed) == placed
                # The third can be rolled back to the second, and not to the first.
                async with Database.connect(url, second.migrations):
                    pass
                with pytest.raises(MigrationError, match="only versions that bring 9002_delivery_method"):
                    async with Database.connect(url, first.migrations):
                        pass
            assert not selling.done()
            selling.cancel()
            await asyncio.gather(selling, return_exceptions=True)
