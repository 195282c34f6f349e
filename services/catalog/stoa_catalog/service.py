"""The use cases of the catalogue: staff changes it, everyone looks at it.

The two sides are apart. Changes are decided and stored product by product in the document store; looks are
answered from the read model that this process has in memory.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Generic, TypeVar
from uuid import UUID

from stoa_catalog.model import (
    Category,
    Details,
    Filters,
    Product,
    ProductNotFound,
    VariantDraft,
    check_currency,
)
from stoa_catalog.projector import Projector
from stoa_catalog.read_model import Listing
from stoa_catalog.repository import Products
from stoa_catalog.views import Views
from stoa_chassis.clock import Clock
from stoa_chassis.errors import Aborted

V = TypeVar("V")

_TRIES = 5
_PAUSE = 0.02  # seconds, after the first lost race


class Browsing(Generic[V]):
    """Looking at products.

    A product that the model doesn't have may have been added by another process a moment ago, so the store is
    asked before anyone is told that there is none. What was changed there is seen some milliseconds later.
    """

    def __init__(self, projector: Projector[V], views: Views) -> None:
        self._projector = projector
        self._views = views

    async def get(self, product_id: UUID, viewer: UUID | None, *, fresh: bool = False) -> V:
        """Read a product, and tell that it was looked at. Raises ProductNotFound.

        `fresh` is for those who write: they read what the store has, whichever process they wrote it through.
        """
        if fresh or self._unheard_of(product_id):
            await self._projector.fetch([product_id])
        listing = self._projector.model.get(product_id)
        if listing is None:
            raise ProductNotFound(f"product {product_id} not found")
        self._views.tell(product_id, viewer)
        return listing.view

    def page(self, filters: Filters, before: UUID | None, limit: int) -> Sequence[Listing[V]]:
        """Read the newest products that pass the filters and are older than `before`."""
        return self._projector.model.page(filters, before, limit)

    async def batch(self, product_ids: Sequence[UUID]) -> Sequence[V]:
        """Read the products that there are, in the order asked for, each once."""
        asked = list(dict.fromkeys(product_ids))
        if missing := list(filter(self._unheard_of, asked)):
            await self._projector.fetch(missing)
        found = map(self._projector.model.get, asked)
        return [listing.view for listing in found if listing is not None]

    async def with_variants(self, variant_ids: Sequence[UUID]) -> Sequence[tuple[UUID, V]]:
        """Read the products of the variants that are on sale, in the order asked for, each variant once."""
        asked = list(dict.fromkeys(variant_ids))
        model = self._projector.model
        if missing := [each for each in asked if model.with_variant(each) is None]:
            await self._projector.fetch_variants(missing)
        found = ((each, self._projector.model.with_variant(each)) for each in asked)
        return [(variant_id, listing.view) for variant_id, listing in found if listing is not None]

    def categories(self) -> Sequence[Category]:
        """Read the categories."""
        return self._projector.model.categories()

    def _unheard_of(self, product_id: UUID) -> bool:
        model = self._projector.model
        return model.get(product_id) is None and not model.is_gone(product_id)


class Assortment(Generic[V]):
    """Changing products. A change is seen in this process as soon as it is stored."""

    def __init__(self, products: Products, projector: Projector[V], clock: Clock, currency: str) -> None:
        """Accept prices in `currency` alone."""
        self._products = products
        self._projector = projector
        self._clock = clock
        self._currency = currency

    async def create(self, details: Details, variants: Sequence[VariantDraft]) -> Product:
        """Add a product. Raises SkuTaken, InvalidArgument."""
        check_currency(variants, self._currency)
        product = Product.create(details, variants, self._now())
        await self._products.add(product)
        self._projector.apply(product)
        return product

    async def update(
        self, product_id: UUID, details: Details, variants: Sequence[VariantDraft], etag: str
    ) -> Product:
        """Replace a product. Raises ProductNotFound, EtagMismatch, SkuTaken, InvalidArgument."""
        check_currency(variants, self._currency)
        return await self._change(
            product_id, lambda product: product.update(details, variants, etag, self._now())
        )

    async def delete(self, product_id: UUID) -> None:
        """Take a product off sale; again is fine. Raises ProductNotFound if there never was one."""
        await self._change(product_id, lambda product: product.delete(self._now()))

    async def _change(self, product_id: UUID, decide: Callable[[Product], None]) -> Product:
        """Load, decide, store; again from the start if somebody else was faster. Raises Aborted."""
        for lost in range(_TRIES):
            product = await self._products.get(product_id)
            if product is None:
                raise ProductNotFound(f"product {product_id} not found")
            read_version = product.version
            decide(product)
            if product.version == read_version or await self._products.save(product, read_version):
                self._projector.apply(product)
                return product
            await asyncio.sleep(_PAUSE * 2**lost * random.uniform(0.5, 1.5))
        raise Aborted(f"product {product_id} is being changed by others")

    def _now(self) -> datetime:
        """Return the time to the millisecond, which is what the store keeps."""
        now = self._clock.now()
        return now.replace(microsecond=now.microsecond // 1000 * 1000)
