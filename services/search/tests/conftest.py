"""The use cases on indices in memory or on the real ones."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest

from stoa_chassis.opensearch import connect
from stoa_search import ports, repository
from stoa_search.model import Change
from stoa_search.service import Feed, Indexing, Reindexing, Search
from stoa_search.settings import Settings
from stoa_search.testing import FakeCatalog, FakeInventory, MemoryIndices, MemoryProductIndex


@dataclass(frozen=True)
class Store:
    """One of the stores, behind the ports."""

    indices: ports.Indices
    index: ports.ProductIndex
    refresh: Callable[[], Awaitable[object]]
    """Let searches see what was written."""

    async def write(self, product_id: UUID, *changes: Change) -> UUID:
        """Change an entry, in all indices that events are written to."""
        await Feed(self.indices.fed).apply(product_id, *changes)
        return product_id


@pytest.fixture
def memory() -> MemoryIndices:
    """No index in memory yet."""
    return MemoryIndices()


@pytest.fixture
async def in_memory(memory: MemoryIndices) -> Store:
    """The ports on an empty index in memory."""

    async def refresh() -> None:
        memory.views.clear()

    await memory.ensure()
    return Store(memory, MemoryProductIndex(memory), refresh)


@pytest.fixture
async def in_opensearch(opensearch_url: str) -> AsyncIterator[Store]:
    """The ports on an empty index of its own."""
    alias = f"test-{uuid4().hex}"
    settings = Settings(opensearch_url=opensearch_url, index=alias, view_seconds=0, settle_seconds=0)
    async with connect(opensearch_url) as client:
        indices = repository.Indices(client, settings)
        await indices.ensure()

        async def refresh() -> object:
            return await client.indices.refresh(index=f"{alias}-fed")

        yield Store(indices, repository.ProductIndex(client, settings), refresh)
        await client.indices.delete(index=",".join(await client.indices.get_alias(name=f"{alias}-fed")))


@pytest.fixture(params=["in_memory", pytest.param("in_opensearch", marks=pytest.mark.stack)])
def store(request: pytest.FixtureRequest) -> Store:
    """The ports, on one store and on the other."""
    chosen: Store = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def catalog() -> FakeCatalog:
    """A catalogue without products."""
    return FakeCatalog()


@pytest.fixture
def inventory() -> FakeInventory:
    """A warehouse that has said nothing."""
    return FakeInventory()


@pytest.fixture
def search(in_memory: Store) -> Search:
    """Finding, in memory."""
    return Search(in_memory.index)


@pytest.fixture
def indexing(in_memory: Store) -> Indexing:
    """Following events, in memory."""
    return Indexing(Feed(in_memory.indices.fed))


@pytest.fixture
def reindexing(in_memory: Store, catalog: FakeCatalog, inventory: FakeInventory) -> Reindexing:
    """Filling indices, in memory."""
    return Reindexing(in_memory.indices, catalog, inventory)
