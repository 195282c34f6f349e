"""The store of products in memory, for tests of use cases; see `stoa_chassis.memory`.

It refuses what the unique index of the documents refuses. One suite, tests/test_repository.py, runs on this
one and on MongoDB.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from stoa_catalog import ports
from stoa_catalog.model import Product, ProductNotFound, SkuTaken, sku_key
from stoa_chassis.memory import MemoryStore
from stoa_chassis.outbox import Outbox


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
    """Products as the read model takes them from the store."""

    store: Callable[[], MemoryStore[Rows]]

    async def on_sale(self) -> AsyncIterator[Product]:
        """Walk through all products on sale, oldest first."""
        for product in sorted(self._on_sale(), key=lambda product: product.product_id):
            yield _copy(product)

    async def versions(self) -> Mapping[UUID, int]:
        """Return the revision of each product on sale."""
        return {product.product_id: product.revision for product in self._on_sale()}

    async def batch(self, product_ids: Iterable[UUID]) -> Sequence[Product]:
        """Return those products that there are, on sale or not."""
        products = self.store().rows.products
        return [_copy(products[product_id]) for product_id in set(product_ids) if product_id in products]

    async def with_variants(self, variant_ids: Iterable[UUID]) -> Sequence[Product]:
        """Return the products, on sale or not, that have any of these variants."""
        wanted = set(variant_ids)
        return [
            _copy(product)
            for product in self.store().rows.products.values()
            if any(variant.variant_id in wanted for variant in product.variants)
        ]

    def _on_sale(self) -> list[Product]:
        return [each for each in self.store().rows.products.values() if each.deleted_at is None]


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
