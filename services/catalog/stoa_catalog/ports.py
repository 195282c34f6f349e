"""What the use cases of the catalogue need from outside."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar
from uuid import UUID

from stoa_catalog.model import Category, Filters, Product
from stoa_catalog.read_model import Entry, Listing

V = TypeVar("V")


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
    """Products as the read model takes them from the store, those taken off sale included."""

    def walk(self, after: UUID | None = None, limit: int = 0) -> AsyncIterator[Product]:
        """Walk through all products, oldest first, from the one after another; at most so many, if any."""
        ...

    async def batch(self, product_ids: Iterable[UUID]) -> Sequence[Product]:
        """Return those products that there are."""
        ...

    async def with_variants(self, variant_ids: Iterable[UUID]) -> Sequence[Product]:
        """Return the products that have any of these variants."""
        ...


class ReadModel(Protocol[V]):
    """The read model that all processes share. Its methods raise Unavailable while it can't be reached."""

    async def get(self, product_ids: Iterable[UUID]) -> Sequence[Entry[V]]:
        """Return what is known of these products, on sale or not."""
        ...

    async def with_variants(self, variant_ids: Iterable[UUID]) -> Sequence[Entry[V]]:
        """Return the products, on sale or not, that have any of these variants."""
        ...

    async def page(self, filters: Filters, before: UUID | None, limit: int) -> Sequence[Entry[V]]:
        """Return the newest products that pass the filters and are older than `before`."""
        ...

    async def categories(self) -> Sequence[Category]:
        """Return all categories, by name."""
        ...

    async def listings(self, product_ids: Iterable[UUID]) -> Mapping[UUID, Listing[V]]:
        """Return all that is known of these products."""
        ...

    async def listings_between(
        self, after: UUID | None, upto: UUID | None, limit: int
    ) -> Mapping[UUID, Listing[V]]:
        """Return all that is known of the products whose ids are in a range, the lowest `limit` of them.

        They come in order; None has no bound.
        """
        ...

    async def put(self, listings: Sequence[Listing[V]], instead_of: Mapping[UUID, int] | None = None) -> None:
        """Take in what is later than what is known, and tell every process of it.

        `instead_of` are revisions of products that were found to be wrong: they count for nothing.
        """
        ...

    async def drop(self, seen: Mapping[UUID, int]) -> None:
        """Forget products of which there is no document, as if they had never been, if they are as seen."""
        ...

    def alone(self) -> AbstractAsyncContextManager[None]:
        """Wait until no other process is here, and keep all others out meanwhile."""
        ...

    async def form(self) -> str:
        """Return the form of the views that all of it was last made in; "" before it is complete."""
        ...

    async def has_form(self, form: str) -> None:
        """Note that all of it is there, in this form."""
        ...

    async def take_turn(self, seconds: float) -> tuple[UUID | None] | None:
        """Return after which product to compare the next page, None if it is not yet time for one.

        Of all processes one gets a turn, and the next one comes `seconds` later.
        """
        ...

    async def compared(self, upto: UUID | None) -> None:
        """Note how far it was compared; None is to the end."""
        ...


class Views(Protocol):
    """The events of products that were looked at."""

    def record(self, product_id: UUID, user_id: UUID | None) -> None:
        """Publish soon that someone (None: nobody known) looked at a product."""
        ...
