"""The projection of products from the document store into the read model of a process.

There are four occasions: this process changed a product, another one did and published an event, a reader
asks for one that the model does not have, and the comparison of all versions that is made now and then. Each
ends in the same step: the product as the document store has it is put into the model, by its version. So it
does not matter in which order or how often events come, and a model that missed some catches up. Events only
say which product to read again (see ADR 9).
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

from stoa_catalog.model import REVISION_BITS, Product
from stoa_catalog.ports import ProductReader
from stoa_catalog.read_model import Listing, ReadModel
from stoa_chassis.avro import Event
from stoa_chassis.ids import new_id
from stoa_chassis.telemetry import get_logger
from stoa_events import ProductCreated, ProductDeleted, ProductRated, ProductUpdated

V = TypeVar("V")

_log = get_logger(__name__)
_AT_ONCE = 100
_EVENT_SECONDS = 1.0  # at most, from a write until its event is here; usually some milliseconds


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """How many products a rebuilt read model has, and in which products the one before differed."""

    replayed: int
    differed: Sequence[UUID]


class Projector(Generic[V]):
    """Keeps the read model of this process current.

    `present` makes what readers get of a product; `instance` names this process.
    """

    def __init__(self, reader: ProductReader, present: Callable[[Product], V]) -> None:
        self.model = ReadModel[V]()
        self.instance = str(new_id())
        self._reader = reader
        self._present = present
        self._kept = [self.model]  # while it is rebuilt, the new one too
        self._rebuilding = asyncio.Lock()
        self._last_run: tuple[UUID, Rebuilt] | None = None

    def apply(self, product: Product) -> None:
        """Put a product as it is in the store into the model, or take it out if it is no longer on sale."""
        if product.deleted_at is not None:
            for model in self._kept:
                model.take_off(product.product_id, product.revision)
            return
        listing = self._listing(product)
        for model in self._kept:
            model.put(listing)

    async def load(self) -> None:
        """Fill the model with everything that is on sale."""
        await self._load(self.model)
        _log.info("read model loaded", products=len(self.model))

    async def on_product_changed(
        self, event: Event[ProductCreated] | Event[ProductUpdated] | Event[ProductDeleted]
    ) -> None:
        """Show a product as the store has it now, unless the model has the event's version or a later one."""
        product = event.payload
        if self.model.version(product.product_id) >> REVISION_BITS < product.version:
            await self.fetch([product.product_id])

    async def on_product_rated(self, event: Event[ProductRated]) -> None:
        """Show a product with the rating that the store has now."""
        await self.fetch([event.payload.product_id])

    async def fetch(self, product_ids: Iterable[UUID]) -> None:
        """Read products from the store, and put them into the model."""
        missing = list(product_ids)
        for start in range(0, len(missing), _AT_ONCE):
            asked = missing[start : start + _AT_ONCE]
            found = await self._reader.batch(asked)
            for product in found:
                self.apply(product)
            # A document is never deleted; one that is not there was taken away by hand.
            for product_id in set(asked) - {product.product_id for product in found}:
                for model in self._kept:
                    model.forget(product_id)

    async def fetch_variants(self, variant_ids: Iterable[UUID]) -> Sequence[Product]:
        """Read the products that have these variants, on sale or not, and put them into the model."""
        found = await self._reader.with_variants(variant_ids)
        for product in found:
            self.apply(product)
        return found

    async def reconcile(self) -> None:
        """Compare the versions of all products with those in the store, and read again what differs."""
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
        """Replace the model by a new one from the store; once for each run, however often it is asked for.

        Readers read the old one meanwhile, and events change both, so that the new one is not behind.
        """
        async with self._rebuilding:
            if self._last_run is not None and self._last_run[0] == run_id:
                return self._last_run[1]
            fresh = ReadModel[V]()
            self._kept = [self.model, fresh]
            try:
                await self._load(fresh)
                if self.model.differences(fresh):
                    # Events of some differences may be on their way.
                    await asyncio.sleep(_EVENT_SECONDS)
                rebuilt = Rebuilt(len(fresh), self.model.differences(fresh))
                self.model = fresh
            finally:
                self._kept = [self.model]
            self._last_run = (run_id, rebuilt)
            _log.info("read model rebuilt", products=rebuilt.replayed, differed=len(rebuilt.differed))
            return rebuilt

    async def _load(self, model: ReadModel[V]) -> None:
        async for product in self._reader.on_sale():
            model.put(self._listing(product))

    def _listing(self, product: Product) -> Listing[V]:
        return Listing.of(product, self._present(product))
