"""The use cases of the catalogue: staff changes it, everyone reads it.

The two sides are apart (CQRS). Changes are decided and stored product by product in the document store; reads
are answered from the read model, of which this process holds what was asked for lately.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Generic, TypeVar
from uuid import UUID

from stoa_catalog.hot_set import HotSet
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
from stoa_catalog.ports import ProductReader, ReadModel, Tx, Views
from stoa_catalog.projector import Projector
from stoa_catalog.read_model import Entry
from stoa_chassis.avro import Event
from stoa_chassis.clock import Clock, in_milliseconds
from stoa_chassis.errors import Unavailable
from stoa_chassis.telemetry import get_logger
from stoa_chassis.uow import UnitOfWork, transactional
from stoa_events import ReviewRatingChanged

V = TypeVar("V")

_log = get_logger(__name__)


class Browsing(Generic[V]):
    """Reading products.

    What was asked for lately is answered from what this process holds, the rest from the read model, which
    all processes share. While that can't be reached, single products come from the documents. A product that
    the read model doesn't have may have been added a moment ago, by a process that could not project it, so
    the documents are asked before the answer is that there is none.
    """

    def __init__(
        self,
        hot: HotSet[V],
        read_model: ReadModel[V],
        reader: ProductReader,
        projector: Projector[V],
        views: Views,
    ) -> None:
        self._hot = hot
        self._read_model = read_model
        self._reader = reader
        self._projector = projector
        self._views = views

    async def get(self, product_id: UUID, viewer: UUID | None, *, fresh: bool = False) -> V:
        """Read a product, and publish that it was looked at. Raises ProductNotFound.

        `fresh` is for those who write: they read what the documents say, whichever process they wrote by.
        """
        entry = None if fresh else self._hot.get(product_id)
        if entry is None:
            find = self._in_documents if fresh else self._find
            entry = next(iter(await find([product_id])), None)
        if entry is None or not entry.on_sale:
            raise ProductNotFound(f"product {product_id} not found")
        self._views.record(product_id, viewer)
        return entry.view

    async def page(self, filters: Filters, before: UUID | None, limit: int) -> Sequence[Entry[V]]:
        """Read the newest products that pass the filters and are older than `before`."""
        key = (filters, before, limit)
        found = self._hot.page(key)
        if found is None:
            ticket = self._hot.ticket
            found = await self._read_model.page(filters, before, limit)
            self._hot.keep(found, ticket)
            self._hot.keep_page(key, found, ticket)
        return found

    async def batch(self, product_ids: Sequence[UUID]) -> Sequence[V]:
        """Read the products that there are, in the order asked for, each once."""
        entries = {each: self._hot.get(each) for each in product_ids}
        if missing := [each for each, entry in entries.items() if entry is None]:
            entries |= {entry.product_id: entry for entry in await self._find(missing)}
        return [entry.view for entry in entries.values() if entry is not None and entry.on_sale]

    async def with_variants(
        self, variant_ids: Sequence[UUID]
    ) -> tuple[Sequence[tuple[UUID, V]], Sequence[Withdrawn]]:
        """Read the products of the variants that are on sale, in the order asked for, each variant once.

        Beside them is what is known of those whose products were taken off sale; others are left out.
        """
        entries = {each: self._hot.with_variant(each) for each in variant_ids}
        if missing := [each for each, entry in entries.items() if entry is None]:
            for entry in await self._find_variants(missing):
                entries |= {each: entry for each in entry.variant_ids if each in entries}
        known = [(variant_id, entry) for variant_id, entry in entries.items() if entry is not None]
        return (
            [(variant_id, entry.view) for variant_id, entry in known if entry.on_sale],
            [
                Withdrawn(entry.product_id, entry.name, variant_id)
                for variant_id, entry in known
                if not entry.on_sale
            ],
        )

    async def categories(self) -> Sequence[Category]:
        """Read the categories."""
        found = self._hot.categories()
        if found is None:
            ticket = self._hot.ticket
            found = await self._read_model.categories()
            self._hot.keep_categories(found, ticket)
        return found

    async def _find(self, product_ids: Sequence[UUID]) -> Sequence[Entry[V]]:
        """Return what is known of products of which this process holds nothing."""
        ticket = self._hot.ticket
        try:
            found = await self._read_model.get(product_ids)
        except Unavailable:
            return await self._in_documents(product_ids)
        self._hot.keep(found, ticket)
        there = {entry.product_id for entry in found}
        if not (missing := [each for each in product_ids if each not in there]):
            return found
        return [*found, *(listing.entry for listing in await self._projector.fetch(missing))]

    async def _find_variants(self, variant_ids: Sequence[UUID]) -> Sequence[Entry[V]]:
        ticket = self._hot.ticket
        try:
            found = await self._read_model.with_variants(variant_ids)
        except Unavailable:
            products = await self._reader.with_variants(variant_ids)
            return [self._projector.listing(product).entry for product in products]
        self._hot.keep(found, ticket)
        return found

    async def _in_documents(self, product_ids: Sequence[UUID]) -> Sequence[Entry[V]]:
        products = await self._reader.batch(product_ids)
        return [self._projector.listing(product).entry for product in products]


class Assortment(Generic[V]):
    """Changing products.

    A change is projected as soon as it is stored, and not before: so each use case is a transaction and what
    follows it.
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
        return await self._shown(await self._create(details, variants))

    async def update(
        self, product_id: UUID, details: Details, variants: Sequence[VariantDraft], etag: str
    ) -> Product:
        """Replace a product. Raises ProductNotFound, EtagMismatch, SkuTaken, InvalidArgument, Busy."""
        check_currency(variants, self._currency)
        return await self._shown(await self._update(product_id, details, variants, etag))

    async def delete(self, product_id: UUID) -> None:
        """Take a product off sale; again is fine. Raises ProductNotFound if there never was one, Busy."""
        await self._shown(await self._delete(product_id))

    async def on_rating_changed(self, event: Event[ReviewRatingChanged]) -> None:
        """Take over what buyers think of a product, unless something as late is known."""
        try:
            await self._shown(await self._rate(event.payload))
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

    async def _shown(self, product: Product) -> Product:
        await self._projector.project(product)
        return product

    def _now(self) -> datetime:
        return in_milliseconds(self._clock.now())
