"""The use cases of the catalogue: staff changes it, everyone reads it.

The two sides are apart (CQRS). Changes are decided and stored product by product in the document store; reads
are answered from the read model that this process has in memory.
"""

from collections.abc import Sequence
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
    Withdrawn,
    check_currency,
)
from stoa_catalog.ports import Tx, Views
from stoa_catalog.projector import Projector
from stoa_catalog.read_model import Listing
from stoa_chassis.avro import Event
from stoa_chassis.clock import Clock
from stoa_chassis.telemetry import get_logger
from stoa_chassis.uow import UnitOfWork, transactional
from stoa_events import ReviewRatingChanged

V = TypeVar("V")

_log = get_logger(__name__)


class Browsing(Generic[V]):
    """Reading products.

    A product that the model doesn't have may have been added by another process a moment ago, so the store is
    asked before the answer is that there is none. What another process changed is seen some milliseconds
    later.
    """

    def __init__(self, projector: Projector[V], views: Views) -> None:
        self._projector = projector
        self._views = views

    async def get(self, product_id: UUID, viewer: UUID | None, *, fresh: bool = False) -> V:
        """Read a product, and publish that it was looked at. Raises ProductNotFound.

        `fresh` is for those who write: they read what the store has, whichever process they wrote it through.
        """
        if fresh or self._is_unknown(product_id):
            await self._projector.fetch([product_id])
        listing = self._projector.model.get(product_id)
        if listing is None:
            raise ProductNotFound(f"product {product_id} not found")
        self._views.record(product_id, viewer)
        return listing.view

    def page(self, filters: Filters, before: UUID | None, limit: int) -> Sequence[Listing[V]]:
        """Read the newest products that pass the filters and are older than `before`."""
        return self._projector.model.page(filters, before, limit)

    async def batch(self, product_ids: Sequence[UUID]) -> Sequence[V]:
        """Read the products that there are, in the order asked for, each once."""
        asked = list(dict.fromkeys(product_ids))
        if missing := list(filter(self._is_unknown, asked)):
            await self._projector.fetch(missing)
        found = map(self._projector.model.get, asked)
        return [listing.view for listing in found if listing is not None]

    async def with_variants(
        self, variant_ids: Sequence[UUID]
    ) -> tuple[Sequence[tuple[UUID, V]], Sequence[Withdrawn]]:
        """Read the products of the variants that are on sale, in the order asked for, each variant once.

        Beside them is what is known of those whose products were taken off sale; others are left out.
        """
        asked = list(dict.fromkeys(variant_ids))
        model = self._projector.model
        missing = {each for each in asked if model.with_variant(each) is None}
        products = await self._projector.fetch_variants(missing) if missing else ()
        found = ((each, self._projector.model.with_variant(each)) for each in asked)
        return (
            [(variant_id, listing.view) for variant_id, listing in found if listing is not None],
            [gone for product in products for gone in product.withdrawn if gone.variant_id in missing],
        )

    def categories(self) -> Sequence[Category]:
        """Read the categories."""
        return self._projector.model.categories()

    def _is_unknown(self, product_id: UUID) -> bool:
        model = self._projector.model
        return model.get(product_id) is None and not model.is_gone(product_id)


class Assortment(Generic[V]):
    """Changing products.

    A change is put into the read model of this process as soon as it is stored, and not before: so each use
    case is a transaction and what follows it.
    """

    def __init__(self, uow: UnitOfWork[Tx], projector: Projector[V], clock: Clock, currency: str) -> None:
        """`currency` is the shop's: prices in another one are refused."""
        self._uow = uow
        self._projector = projector
        self._clock = clock
        self._currency = currency

    async def create(self, details: Details, variants: Sequence[VariantDraft]) -> Product:
        """Add a product. Raises SkuTaken, InvalidArgument."""
        check_currency(variants, self._currency)
        return self._shown(await self._create(details, variants))

    async def update(
        self, product_id: UUID, details: Details, variants: Sequence[VariantDraft], etag: str
    ) -> Product:
        """Replace a product. Raises ProductNotFound, EtagMismatch, SkuTaken, InvalidArgument, Busy."""
        check_currency(variants, self._currency)
        return self._shown(await self._update(product_id, details, variants, etag))

    async def delete(self, product_id: UUID) -> None:
        """Take a product off sale; again is fine. Raises ProductNotFound if there never was one, Busy."""
        self._shown(await self._delete(product_id))

    async def on_rating_changed(self, event: Event[ReviewRatingChanged]) -> None:
        """Take over what buyers think of a product, unless something later is known."""
        try:
            self._shown(await self._rate(event.payload))
        except ProductNotFound:
            _log.warning("there is no product to be rated", product_id=str(event.payload.product_id))

    @transactional
    async def _create(self, tx: Tx, details: Details, variants: Sequence[VariantDraft]) -> Product:
        product = Product.create(details, variants, self._now())
        await tx.products.add(product)
        return product

    @transactional
    async def _update(
        self, tx: Tx, product_id: UUID, details: Details, variants: Sequence[VariantDraft], etag: str
    ) -> Product:
        product = await tx.products.get(product_id)
        product.update(details, variants, etag, self._now())
        await tx.products.save(product)
        return product

    @transactional
    async def _delete(self, tx: Tx, product_id: UUID) -> Product:
        product = await tx.products.get(product_id)
        product.delete(self._now())
        await tx.products.save(product)
        return product

    @transactional
    async def _rate(self, tx: Tx, change: ReviewRatingChanged) -> Product:
        product = await tx.products.get(change.product_id)
        product.rate(change.total, change.count, change.version)
        await tx.products.save(product)
        return product

    def _shown(self, product: Product) -> Product:
        self._projector.apply(product)
        return product

    def _now(self) -> datetime:
        """Return the time to the millisecond, which is what the store keeps."""
        now = self._clock.now()
        return now.replace(microsecond=now.microsecond // 1000 * 1000)
