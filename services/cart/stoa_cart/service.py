"""The use cases of carts."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol
from uuid import UUID

from stoa_cart.model import Cart, Offer
from stoa_cart.repository import CartStore, PriceBook
from stoa_chassis.avro import Event
from stoa_chassis.clock import Clock
from stoa_chassis.errors import InvalidArgument
from stoa_contracts.money import Money
from stoa_events import OrderPlaced


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


class Carts:
    """Filling, looking at and emptying carts.

    Whatever its owner does with a cart shows it at the prices of now, as far as the catalogue's events have
    come, and these are from then on the prices seen. Checkout reads the prices seen, unchanged: the order
    service refuses an order when one has changed since, and looking at the cart again resolves it. Should the
    look come before the event of the new price, it shows the old one, and the next one resolves it.
    """

    def __init__(
        self, store: CartStore, prices: PriceBook, catalog: Catalog, inventory: Inventory, clock: Clock
    ) -> None:
        self._store = store
        self._prices = prices
        self._catalog = catalog
        self._inventory = inventory
        self._clock = clock

    async def get(self, user_id: UUID) -> Cart:
        """Show a cart to its owner. Needs no other service."""

        async def only_look(_: Cart) -> None:
            """Change nothing but the prices seen."""

        return await self._as_owner(user_id, only_look)

    async def for_checkout(self, user_id: UUID) -> Cart:
        """Read a cart at the prices that its owner last saw, whatever things cost now."""
        return await self._store.get(user_id)

    async def add(self, user_id: UUID, product_id: UUID, variant_id: UUID, quantity: int) -> Cart:
        """Put a variant in, if there are enough of it in stock for all that the cart would hold.

        Raises:
            InvalidArgument: the variant is not on sale or not of that product, or see `Cart.add`.
            OutOfStock, CartFull, CartBusy: see `Cart.add` and `CartStore.change`.
            RemoteError: the catalogue or the inventory can't be asked.
        """
        offer, available = await asyncio.gather(
            self._catalog.offer(variant_id), self._inventory.available(variant_id)
        )
        if offer is None:
            raise InvalidArgument("item.variant_id", "is not on sale")
        if offer.product_id != product_id:
            raise InvalidArgument("item.product_id", "is not the product of this variant")

        async def put_in(cart: Cart) -> None:
            cart.add(offer, quantity, available, self._clock.now())

        return await self._as_owner(user_id, put_in)

    async def update(self, user_id: UUID, item_id: UUID, quantity: int) -> Cart:
        """Set how many of a line there are; it may become less whatever is in stock.

        Raises:
            ItemNotFound, InvalidArgument, OutOfStock, CartBusy: see `Cart.set_quantity` and
                `CartStore.change`.
            RemoteError: the inventory can't be asked.
        """

        async def set_quantity(cart: Cart) -> None:
            item = cart.item(item_id)
            grows = quantity > item.quantity
            available = await self._inventory.available(item.variant_id) if grows else quantity
            cart.set_quantity(item_id, quantity, available, self._clock.now())

        return await self._as_owner(user_id, set_quantity)

    async def remove(self, user_id: UUID, item_id: UUID) -> Cart:
        """Take a line out, if it is there. Raises CartBusy."""

        async def take_out(cart: Cart) -> None:
            cart.remove(item_id, self._clock.now())

        return await self._as_owner(user_id, take_out)

    async def clear(self, user_id: UUID) -> None:
        """Take everything out."""
        await self._store.clear(user_id)

    async def order_placed(self, event: Event[OrderPlaced]) -> None:
        """Take out what was ordered, once; what was put in since stays.

        Raises:
            AlreadyProcessed, CartBusy: see `CartStore.change`.
        """
        ordered = [(item.variant_id, item.quantity) for item in event.payload.items]

        async def take_out(cart: Cart) -> None:
            cart.take_out_ordered(ordered, self._clock.now())

        await self._store.change(event.payload.user_id, take_out, consuming=event)

    async def product_changed(self, product_id: UUID, version: int, prices: Mapping[UUID, Money]) -> None:
        """Note what the variants of a product cost, unless a later version of it is known."""
        await self._prices.learn(product_id, version, prices)

    async def _as_owner(self, user_id: UUID, decide: Callable[[Cart], Awaitable[None]]) -> Cart:
        """Change a cart for its owner, who sees all of it on the occasion."""

        async def see_and_decide(cart: Cart) -> None:
            cart.see(await self._prices.of({item.product_id for item in cart.items}))
            await decide(cart)

        return await self._store.change(user_id, see_and_decide)
