"""The use cases of the catalogue: staff changes it, everyone looks at it."""

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from stoa_catalog.model import (
    Category,
    Details,
    Filters,
    Offer,
    Product,
    ProductNotFound,
    VariantDraft,
)
from stoa_catalog.repository import ProductReader, Products
from stoa_catalog.views import Views
from stoa_chassis.clock import Clock
from stoa_chassis.errors import Aborted

_TRIES = 5
_PAUSE = 0.02  # seconds, after the first lost race
_CATEGORIES_FOR = timedelta(seconds=3)


class Browsing:
    """Looking at products."""

    def __init__(self, reader: ProductReader, views: Views, clock: Clock) -> None:
        self._reader = reader
        self._views = views
        self._clock = clock
        self._categories: tuple[datetime, Sequence[Category]] | None = None

    async def get(self, product_id: UUID, viewer: UUID | None) -> Product:
        """Read a product, and tell that it was looked at. Raises ProductNotFound."""
        product = await self._reader.get(product_id)
        if product is None:
            raise ProductNotFound(f"product {product_id} not found")
        self._views.tell(product_id, viewer)
        return product

    async def page(self, filters: Filters, before: UUID | None, limit: int) -> Sequence[Product]:
        """Read the newest products that pass the filters and are older than `before`."""
        return await self._reader.page(filters, before, limit)

    async def batch(self, product_ids: Sequence[UUID]) -> Sequence[Product]:
        """Read the products that there are, in the order asked for, each once."""
        found = await self._reader.batch(product_ids)
        return [found[product_id] for product_id in dict.fromkeys(product_ids) if product_id in found]

    async def offers(self, variant_ids: Sequence[UUID]) -> Sequence[Offer]:
        """Read the variants that are on sale, in the order asked for, each once."""
        found = await self._reader.offers(variant_ids)
        return [found[variant_id] for variant_id in dict.fromkeys(variant_ids) if variant_id in found]

    async def categories(self) -> Sequence[Category]:
        """Read the categories as they were at most a few seconds ago: counting takes a look at everything."""
        now = self._clock.now()
        if self._categories is None or now - self._categories[0] >= _CATEGORIES_FOR:
            self._categories = (now, await self._reader.categories())
        return self._categories[1]

    def forget_categories(self) -> None:
        """Count them anew at the next look: they have changed."""
        self._categories = None


class Assortment:
    """Changing products."""

    def __init__(self, products: Products, browsing: Browsing, clock: Clock) -> None:
        self._products = products
        self._browsing = browsing
        self._clock = clock

    async def create(self, details: Details, variants: Sequence[VariantDraft]) -> Product:
        """Add a product. Raises SkuTaken, InvalidArgument."""
        product = Product.create(details, variants, self._now())
        await self._products.add(product)
        self._browsing.forget_categories()
        return product

    async def update(
        self, product_id: UUID, details: Details, variants: Sequence[VariantDraft], etag: str
    ) -> Product:
        """Replace a product. Raises ProductNotFound, EtagMismatch, SkuTaken, InvalidArgument."""
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
            if product.version == read_version:
                return product
            if await self._products.save(product, read_version):
                self._browsing.forget_categories()
                return product
            await asyncio.sleep(_PAUSE * 2**lost * random.uniform(0.5, 1.5))
        raise Aborted(f"product {product_id} is being changed by others")

    def _now(self) -> datetime:
        """Return the time to the millisecond, which is what the store keeps."""
        now = self._clock.now()
        return now.replace(microsecond=now.microsecond // 1000 * 1000)
