"""The stores of the catalogue in memory, for tests of use cases; see `stoa_chassis.memory`.

That of the products refuses what the unique index of the documents refuses; tests/test_repository.py runs on
it and on MongoDB. tests/test_read_model.py runs on the read model in memory and on the one in PostgreSQL.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Generic, TypeVar
from uuid import UUID

from stoa_catalog import ports
from stoa_catalog.model import Category, Filters, Product, ProductNotFound, SkuTaken, sku_key
from stoa_catalog.read_model import Entry, Listing, categories_of
from stoa_chassis.errors import Unavailable
from stoa_chassis.memory import MemoryStore
from stoa_chassis.outbox import Outbox

V = TypeVar("V")


@dataclass(frozen=True)
class Rows:
    """What the catalog service keeps: products by their ids, those taken off sale included.

    Products in here are copies that nobody changes, and so is the mapping: each change makes a new one.
    """

    products: Mapping[UUID, Product] = field(default_factory=dict)


class Products:
    """Products to be changed, those taken off sale included, in a unit of work that changes one of them."""

    def __init__(self, view: MemoryStore[Rows], outbox: Outbox) -> None:
        self._view = view
        self._outbox = outbox
        self._changed: UUID | None = None

    async def get(self, product_id: UUID) -> Product:
        """Return a product, on sale or not. Raises ProductNotFound if there never was one."""
        product = self._view.rows.products.get(product_id)
        if product is None:
            raise ProductNotFound(f"product {product_id} not found")
        return _copy(product)

    async def add(self, product: Product) -> None:
        """Store a new product, and publish its events. Raises SkuTaken."""
        self._put(product)

    async def save(self, product: Product) -> None:
        """Store a changed product, and publish its events; nothing is written if nothing changed.

        Either its rating has changed or the rest. Raises SkuTaken.
        """
        stored = self._view.rows.products[product.product_id]
        if product.revision != stored.revision:
            self._put(product)

    def _put(self, product: Product) -> None:
        if self._changed is not None:
            raise RuntimeError(
                f"a unit of work writes one product, once: {self._changed} or {product.product_id}"
            )
        self._changed = product.product_id
        keys = _sku_keys(product)
        others = (each for each in self._view.rows.products.values() if each.product_id != product.product_id)
        taken = {key for other in others for key in _sku_keys(other)}
        if refused := [at for at, key in enumerate(keys) if key in taken]:
            raise SkuTaken.at(refused)
        self._view.rows = Rows({**self._view.rows.products, product.product_id: _copy(product)})
        self._outbox.collect(product)


def open_tx(view: MemoryStore[Rows], outbox: Outbox) -> ports.Tx:
    """Put the repository on the view of a transaction."""
    return ports.Tx(Products(view, outbox))


@dataclass(frozen=True)
class ProductReader:
    """Products as the read model takes them from the store, those taken off sale included."""

    store: Callable[[], MemoryStore[Rows]]

    async def walk(self, after: UUID | None = None, limit: int = 0) -> AsyncIterator[Product]:
        """Walk through all products, oldest first, from the one after another; at most so many, if any."""
        products = sorted(self.store().rows.products.values(), key=lambda product: product.product_id)
        left = [product for product in products if after is None or product.product_id > after]
        for product in left[:limit] if limit else left:
            await asyncio.sleep(0)
            yield _copy(product)

    async def batch(self, product_ids: Iterable[UUID]) -> Sequence[Product]:
        """Return those products that there are."""
        products = self.store().rows.products
        return [_copy(products[product_id]) for product_id in set(product_ids) if product_id in products]

    async def with_variants(self, variant_ids: Iterable[UUID]) -> Sequence[Product]:
        """Return the products that have any of these variants."""
        wanted = set(variant_ids)
        return [
            _copy(product)
            for product in self.store().rows.products.values()
            if any(variant.variant_id in wanted for variant in product.variants)
        ]


class ReadModel(Generic[V]):
    """The read model in memory. `down` is for what happens while it can't be reached."""

    def __init__(self) -> None:
        self.kept: dict[UUID, Listing[V]] = {}
        self.down = False
        self.reads = 0
        self._followers: list[Callable[[UUID], None]] = []
        self._form = ""
        self._turn: tuple[bool, UUID | None] = (True, None)
        self._alone = asyncio.Lock()

    def follow(self, changed: Callable[[UUID], None]) -> None:
        """Tell of each change from now on."""
        self._followers.append(changed)

    async def get(self, product_ids: Iterable[UUID]) -> Sequence[Entry[V]]:
        """Return what is known of these products, on sale or not."""
        return [listing.entry for listing in (await self.listings(product_ids)).values()]

    async def with_variants(self, variant_ids: Iterable[UUID]) -> Sequence[Entry[V]]:
        """Return the products, on sale or not, that have any of these variants."""
        await self._read()
        wanted = set(variant_ids)
        return [each.entry for each in self.kept.values() if wanted & {*each.entry.variant_ids}]

    async def page(self, filters: Filters, before: UUID | None, limit: int) -> Sequence[Entry[V]]:
        """Return the newest products that pass the filters and are older than `before`."""
        await self._read()
        newest_first = sorted(self.kept.values(), key=lambda listing: listing.product_id, reverse=True)
        passing = [
            listing.entry
            for listing in newest_first
            if _passes(listing, filters) and (before is None or listing.product_id < before)
        ]
        return passing[:limit]

    async def categories(self) -> Sequence[Category]:
        """Return all categories, by name."""
        await self._read()
        on_sale = [each for each in self.kept.values() if each.entry.on_sale]
        counts = Counter((listing.category, listing.subcategory) for listing in on_sale)
        return categories_of((*section, count) for section, count in counts.items())

    async def listings(self, product_ids: Iterable[UUID]) -> Mapping[UUID, Listing[V]]:
        """Return all that is known of these products."""
        await self._read()
        return {each: self.kept[each] for each in product_ids if each in self.kept}

    async def listings_between(
        self, after: UUID | None, upto: UUID | None, limit: int
    ) -> Mapping[UUID, Listing[V]]:
        """Return all that is known of the products whose ids are in a range, the lowest `limit` of them."""
        await self._read()
        ids = (
            product_id
            for product_id in sorted(self.kept)
            if (after is None or product_id > after) and (upto is None or product_id <= upto)
        )
        return {product_id: self.kept[product_id] for product_id in islice(ids, limit)}

    async def put(self, listings: Sequence[Listing[V]], instead_of: Mapping[UUID, int] | None = None) -> None:
        """Take in what is later than what is known, and tell every process of it."""
        await self._read()
        for listing in listings:
            known = self.kept.get(listing.product_id)
            wrong = known is not None and (instead_of or {}).get(listing.product_id) == known.revision
            if known is None or wrong or known.revision < listing.revision:
                self.kept[listing.product_id] = listing
                self._tell(listing.product_id)

    async def drop(self, seen: Mapping[UUID, int]) -> None:
        """Forget products of which there is no document, as if they had never been, if they are as seen."""
        await self._read()
        for product_id, revision in seen.items():
            if product_id in self.kept and self.kept[product_id].revision == revision:
                del self.kept[product_id]
                self._tell(product_id)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Wait until no other process is here, and keep all others out meanwhile."""
        async with self._alone:
            yield

    async def form(self) -> str:
        """Return the form of the views that all of it was last made in; "" before it is complete."""
        await self._read()
        return self._form

    async def has_form(self, form: str) -> None:
        """Note that all of it is there, in this form."""
        self._form = form

    async def take_turn(self, seconds: float) -> tuple[UUID | None] | None:
        """Return after which product to compare the next page, None if it is not yet time for one."""
        due, after = self._turn
        self._turn = (seconds == 0, after)
        return (after,) if due else None

    async def compared(self, upto: UUID | None) -> None:
        """Note how far it was compared; None is to the end."""
        self._turn = (self._turn[0], upto)

    async def _read(self) -> None:
        await asyncio.sleep(0)
        self.reads += 1
        if self.down:
            raise Unavailable("the read model is down")

    def _tell(self, product_id: UUID) -> None:
        for changed in self._followers:
            changed(product_id)


def _passes(listing: Listing[Any], filters: Filters) -> bool:
    low, high = filters.min_price, filters.max_price
    return (
        listing.entry.on_sale
        and filters.category in ("", listing.category)
        and filters.subcategory in ("", listing.subcategory)
        and filters.brand in ("", listing.brand)
        and (not filters.tag or filters.tag in listing.tags)
        and (
            (low is None and high is None)
            or any(
                (low is None or low <= price) and (high is None or price <= high) for price in listing.prices
            )
        )
    )


class Views:
    """Keeps who looked at which product."""

    def __init__(self) -> None:
        self.recorded: list[tuple[UUID, UUID | None]] = []

    def record(self, product_id: UUID, user_id: UUID | None) -> None:
        """Keep that someone (None: nobody known) looked at a product."""
        self.recorded.append((product_id, user_id))


def _copy(product: Product) -> Product:
    return replace(product, events=[])


def _sku_keys(product: Product) -> list[str]:
    """Return the keys of the SKUs that no other product may have: a deletion frees them."""
    return [sku_key(variant.sku) for variant in product.variants] if product.deleted_at is None else []
