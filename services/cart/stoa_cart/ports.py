"""What the use cases of carts need from outside."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from stoa_cart.model import Cart, Offer
from stoa_contracts.money import Money


class Carts(Protocol):
    """The carts of all users, in a unit of work that changes one of them."""

    async def get(self, user_id: UUID) -> Cart:
        """Return a user's cart, an empty one if there is none. Using it renews its life."""
        ...

    async def save(self, cart: Cart) -> None:
        """Store a changed cart, and publish its events. Nothing is written if nothing changed."""
        ...


@dataclass(frozen=True, slots=True)
class Tx:
    """What a use case sees of a unit of work."""

    carts: Carts


class CartReader(Protocol):
    """Carts as they are, outside of a unit of work."""

    async def get(self, user_id: UUID) -> Cart:
        """Return a user's cart, an empty one if there is none. Using it renews its life."""
        ...


class PriceBook(Protocol):
    """What variants cost now: the catalogue's prices, as its events tell them, of products that are watched.

    Those are the ones in carts: there may be a million others. A price is kept by product, with the product's
    version, so that an event that comes late does not bring an old price back, and neither does one that
    comes after the deletion.
    """

    async def watch(self, product_id: UUID) -> None:
        """Watch a product that somebody wants, for an hour unless it is asked for by then."""
        ...

    async def of(self, product_ids: Iterable[UUID]) -> Mapping[UUID, Mapping[UUID, Money]]:
        """Return what these products' variants that are on sale cost, by product and variant.

        They are in a cart, and watched for longer than that lives. Products of which no event has come since
        they are watched are left out.
        """
        ...

    async def learn(self, product_id: UUID, version: int, prices: Mapping[UUID, Money]) -> None:
        """Note the prices that a version of a product has, by variant, if the product is watched.

        Nothing is noted if a later version is known.
        """
        ...


class Catalog(Protocol):
    """What is on sale, and for how much."""

    async def offer(self, variant_id: UUID) -> Offer | None:
        """Return today's offer of a variant, None if it is not on sale."""
        ...


class Inventory(Protocol):
    """What is in stock."""

    async def available(self, variant_id: UUID) -> int:
        """Return how many of a variant can still be promised."""
        ...
