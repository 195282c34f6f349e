"""The use cases of search: finding products, and keeping what is searched in up to date."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from stoa_chassis.avro import Event
from stoa_chassis.outages import is_outage
from stoa_chassis.telemetry import get_logger
from stoa_events import (
    InventoryAvailabilityChanged,
    ProductCreated,
    ProductDeleted,
    ProductRated,
    ProductUpdated,
)
from stoa_search.model import (
    Availability,
    Available,
    Change,
    Criteria,
    Described,
    Details,
    Entry,
    Found,
    Rated,
    Rating,
    Suggestion,
    Variant,
)
from stoa_search.ports import Catalog, Entries, Indices, Inventory, ProductIndex

_log = get_logger(__name__)
_SUGGESTIONS = 10
_BATCH = 500  # products that are written together at most
_TRIES = 20


class Contended(Exception):
    """Others have changed the same entry again and again meanwhile."""


class Search:
    """Finding products."""

    def __init__(self, index: ProductIndex) -> None:
        self._index = index

    async def search(
        self, criteria: Criteria, after: Mapping[str, Any], limit: int, *, facets: bool
    ) -> Found:
        """Find products, after a place that an earlier search has named. Raises IndexMissing."""
        return await self._index.search(criteria, after, limit, facets=facets)

    async def suggest(self, text: str) -> Sequence[Suggestion]:
        """Complete what somebody types. Raises IndexMissing."""
        return await self._index.suggest(text, _SUGGESTIONS)


class Feed:
    """Applies changes to entries, all that come while others are being written in one go.

    Group commit: who brings a change waits until it is written, and those who wait share the requests.
    """

    def __init__(self, entries: Entries) -> None:
        self._entries = entries
        self._waiting: list[tuple[UUID, Sequence[Change], asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def apply(self, product_id: UUID, *changes: Change) -> None:
        """Change a product's entry, and return when that is stored. Raises IndexMissing, Contended."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((product_id, changes, done))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        await done

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
                changes: dict[UUID, list[Change]] = defaultdict(list)
                for product_id, some, _ in batch:
                    changes[product_id] += some
                failed = await self._write(changes)
                for product_id, _, done in batch:
                    if done.done():  # who waited was cancelled
                        continue
                    if (error := failed.get(product_id)) is None:
                        done.set_result(None)
                    else:
                        done.set_exception(error)
        finally:
            self._writing = None

    async def _write(self, changes: Mapping[UUID, Sequence[Change]]) -> dict[UUID, Exception]:
        """Write changes; return what went wrong, by product.

        Changes that can't be written together are written in two halves: so those that are at fault are
        found, and keep none of the others back. In an outage all are.
        """
        try:
            await write(self._entries, changes)
        except Exception as error:
            if len(changes) == 1 or is_outage(error):
                return dict.fromkeys(changes, error)
            products = list(changes.items())
            half = len(products) // 2
            return await self._write(dict(products[:half])) | await self._write(dict(products[half:]))
        return {}


async def write(entries: Entries, changes: Mapping[UUID, Sequence[Change]]) -> None:
    """Apply changes to the entries of products, and store those that are others then.

    An entry that somebody else writes meanwhile is read and changed again. Raises IndexMissing, Contended.
    """
    for _ in range(_TRIES):
        stored = await entries.read(changes.keys())
        changed = [each for each in stored if _apply(changes[each.entry.product_id], each.entry)]
        lost = await entries.write(changed) if changed else ()
        if not lost:
            return
        changes = {product_id: changes[product_id] for product_id in lost}
    raise Contended(f"{len(changes)} entries are changed all the time")


def _apply(changes: Iterable[Change], entry: Entry) -> bool:
    applied = [change.apply(entry) for change in changes]  # all of them: one says nothing of another
    return any(applied)


class Indexing:
    """Following what other services publish, in whatever order it comes."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    async def on_product_changed(self, event: Event[ProductCreated] | Event[ProductUpdated]) -> None:
        """Show a product as it is now."""
        product = event.payload
        await self._feed.apply(product.product_id, Described(product.version, _details(product)))

    async def on_product_deleted(self, event: Event[ProductDeleted]) -> None:
        """Show a product no more."""
        product = event.payload
        await self._feed.apply(product.product_id, Described(product.version, None))

    async def on_product_rated(self, event: Event[ProductRated]) -> None:
        """Show what buyers think of a product."""
        rated = event.payload
        rating = Rating(rated.average, rated.count, rated.version)
        await self._feed.apply(rated.product_id, Rated(rating))

    async def on_availability_changed(self, event: Event[InventoryAvailabilityChanged]) -> None:
        """Show whether a variant can be bought."""
        variant = event.payload
        availability = Availability(variant.in_stock, variant.version)
        await self._feed.apply(variant.product_id, Available(variant.variant_id, availability))


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """How many products an index was filled with."""

    products: int


class Reindexing:
    """Filling an index from the services that know, some products at a time.

    Events are written to the new index from its beginning, and all that is read now is older or the same: by
    the versions it does not matter which comes first. What was read before an event is corrected by it.
    """

    def __init__(self, indices: Indices, catalog: Catalog, inventory: Inventory) -> None:
        self._indices = indices
        self._catalog = catalog
        self._inventory = inventory

    async def ensure(self) -> None:
        """Have an index in use, and fill one that is new: events are not kept as long as products.

        Raises RemoteError, IndexMissing.
        """
        if await self._indices.ensure():
            await self.fill(self._indices.fed)
            await self._indices.note_filled()

    async def rebuild(self) -> Rebuilt:
        """Fill a new index, and answer searches from it then. Raises RemoteError, IndexMissing."""
        index = await self._indices.new()
        async for known in index.known():
            # Tombstones: a late event must not bring back what was deleted.
            await write(
                index.entries,
                {
                    entry.product_id: [Described(entry.version, None)]
                    for entry in known
                    if entry.details is None and entry.version
                },
            )
        rebuilt = await self.fill(index.entries)
        await index.use()
        return rebuilt

    async def fill(self, entries: Entries) -> Rebuilt:
        """Write all products on sale. Raises RemoteError, IndexMissing."""
        count = 0
        async for page in self._catalog.products():
            variants = [
                variant.variant_id
                for _, described, _ in page
                if described.details is not None
                for variant in described.details.variants
            ]
            availability = await self._inventory.availability(variants)
            await write(
                entries,
                {
                    product_id: [described, rated, *_available(described, availability)]
                    for product_id, described, rated in page
                },
            )
            count += len(page)
        _log.info("index filled", products=count)
        return Rebuilt(count)


def _available(described: Described, availability: Mapping[UUID, Availability]) -> list[Change]:
    variants = described.details.variants if described.details is not None else ()
    return [
        Available(each.variant_id, availability[each.variant_id])
        for each in variants
        if each.variant_id in availability
    ]


def _details(product: ProductCreated | ProductUpdated) -> Details:
    return Details(
        name=product.name,
        category=product.category,
        variants=tuple(
            Variant(each.variant_id, each.sku, each.price, each.attributes, tuple(each.images))
            for each in product.variants
        ),
        created_at=product.created_at,
        description=product.description,
        subcategory=product.subcategory,
        brand=product.brand,
        tags=tuple(product.tags),
        specifications=product.specifications,
    )
