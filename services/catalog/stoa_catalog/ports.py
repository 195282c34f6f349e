"""What the use cases of the catalogue need from outside."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from stoa_catalog.model import Product


class Products(Protocol):
    """Products to be changed, those taken off sale included, in a unit of work that changes one of them."""

    async def get(self, product_id: UUID) -> Product:
        """Return a product, on sale or not. Raises ProductNotFound if there never was one."""
        ...

    async def add(self, product: Product) -> None:
        """Store a new product, and publish its events. Raises SkuTaken when the unit of work commits."""
        ...

    async def save(self, product: Product) -> None:
        """Store a changed product, and publish its events; nothing is written if nothing changed.

        Either its rating has changed or the rest. Raises SkuTaken when the unit of work commits.
        """
        ...


@dataclass(frozen=True, slots=True)
class Tx:
    """What a use case sees of a unit of work."""

    products: Products


class ProductReader(Protocol):
    """Products as the read model takes them from the store."""

    def on_sale(self) -> AsyncIterator[Product]:
        """Walk through all products on sale, oldest first."""
        ...

    async def versions(self) -> Mapping[UUID, int]:
        """Return the revision of each product on sale."""
        ...

    async def batch(self, product_ids: Iterable[UUID]) -> Sequence[Product]:
        """Return those products that there are, on sale or not."""
        ...

    async def with_variants(self, variant_ids: Iterable[UUID]) -> Sequence[Product]:
        """Return the products, on sale or not, that have any of these variants."""
        ...


class Views(Protocol):
    """The events of products that were looked at."""

    def record(self, product_id: UUID, user_id: UUID | None) -> None:
        """Publish soon that someone (None: nobody known) looked at a product."""
        ...
