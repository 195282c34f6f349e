"""Inventory on stores and a catalog in memory; tests marked `stack` put it on a real database."""

import pytest

from stoa_chassis.memory import MemoryStore, memory_unit_of_work
from stoa_chassis.testing import SettableClock
from stoa_inventory import testing
from stoa_inventory.service import Inventory


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def catalog() -> testing.FakeCatalog:
    return testing.FakeCatalog()


@pytest.fixture
def store() -> MemoryStore[testing.Rows]:
    return MemoryStore(testing.Rows())


@pytest.fixture
def inventory(
    store: MemoryStore[testing.Rows], catalog: testing.FakeCatalog, clock: SettableClock
) -> Inventory:
    return Inventory(
        memory_unit_of_work(lambda: store, testing.open_tx, clock),
        testing.StockReader(lambda: store),
        catalog,
        clock,
    )
