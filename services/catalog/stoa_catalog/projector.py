"""What keeps a process's read model current.

Whatever tells that a product changed – this process's own write, an event of another, a reader who misses
it, the comparison that is made now and then – ends in the same step: the product as the document store has it
is put into the model, by its version. So it does not matter in which order or how often events come, and a
model that missed some catches up. Documents are the truth, events only say where to look (see ADR 9).
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

from stoa_catalog.model import Product
from stoa_catalog.ports import ProductReader
from stoa_catalog.read_model import Listing, ReadModel
from stoa_chassis.avro import Event
from stoa_chassis.ids import new_id
from stoa_chassis.telemetry import get_logger
from stoa_events import ProductCreated, ProductDeleted, ProductUpdated

V = TypeVar("V")

_log = get_logger(__name__)
_AT_ONCE = 100
_EVENT_TAKES = 1.0  # seconds, at most, from a write until its event is here; usually some milliseconds


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """How many products a rebuilt read model has, and which the one before had otherwise."""

    replayed: int
    differed: Sequence[UUID]


class Projector(Generic[V]):
    """Feeds the read model of this process; `present` makes what readers get of a product."""

    def __init__(self, reader: ProductReader, present: Callable[[Product], V]) -> None:
        self.model = ReadModel[V]()
        self.instance = str(new_id())
        self._reader = reader
        self._present = present
        self._fed = [self.model]
        self._rebuilding = asyncio.Lock()
        self._last_run: tuple[UUID, Rebuilt] | None = None

    def apply(self, product: Product) -> None:
        """Show a product as it is in the store."""
        if product.deleted_at is not None:
            for model in self._fed:
                model.take_off(product.product_id, product.version)
            return
        listing = self._listing(product)
        for model in self._fed:
            model.put(listing)

    async def load(self) -> None:
        """Show everything that is on sale."""
        await self._load(self.model)
        _log.info("read model loaded", products=len(self.model))

    async def on_product_changed(
        self, event: Event[ProductCreated] | Event[ProductUpdated] | Event[ProductDeleted]
    ) -> None:
        """Show what a product has become, if this process does not know yet."""
        product = event.payload
        if self.model.version(product.product_id) < product.version:
            await self.fetch([product.product_id])

    async def fetch(self, product_ids: Iterable[UUID]) -> None:
        """Show products as the store has them now."""
        missing = list(product_ids)
        for start in range(0, len(missing), _AT_ONCE):
            asked = missing[start : start + _AT_ONCE]
            found = await self._reader.batch(asked)
            for product in found:
                self.apply(product)
            # A document is never deleted; one that is not there was taken away by hand.
            for product_id in set(asked) - {product.product_id for product in found}:
                for model in self._fed:
                    model.forget(product_id)

    async def fetch_variants(self, variant_ids: Iterable[UUID]) -> None:
        """Show the products that have these variants, as the store has them now."""
        for product in await self._reader.with_variants(variant_ids):
            self.apply(product)

    async def reconcile(self) -> None:
        """Compare the versions of everything with the store, and show what differs as the store has it."""
        known = {listing.product_id: listing.version for listing in self.model}
        stored = await self._reader.versions()
        stale = [
            product_id
            for product_id in known.keys() | stored.keys()
            if known.get(product_id) != stored.get(product_id)
            and self.model.version(product_id) == known.get(product_id, 0)
        ]
        if stale:
            await self.fetch(stale)
            _log.info("read model caught up with the store", products=len(stale))

    async def rebuild(self, run_id: UUID) -> Rebuilt:
        """Make a new model from the store, and show that one; once for each run, however often it is asked.

        Readers read the old one meanwhile, and events change both, so that the new one is not behind.
        """
        async with self._rebuilding:
            if self._last_run is not None and self._last_run[0] == run_id:
                return self._last_run[1]
            fresh = ReadModel[V]()
            self._fed = [self.model, fresh]
            try:
                await self._load(fresh)
                if self.model.differences(fresh):
                    # Some of it may only be on its way here.
                    await asyncio.sleep(_EVENT_TAKES)
                rebuilt = Rebuilt(len(fresh), self.model.differences(fresh))
                self.model = fresh
            finally:
                self._fed = [self.model]
            self._last_run = (run_id, rebuilt)
            _log.info("read model rebuilt", products=rebuilt.replayed, differed=len(rebuilt.differed))
            return rebuilt

    async def _load(self, model: ReadModel[V]) -> None:
        async for product in self._reader.on_sale():
            model.put(self._listing(product))

    def _listing(self, product: Product) -> Listing[V]:
        return Listing.of(product, self._present(product))
