"""The use cases of carts."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol
from uuid import UUID

from stoa_cart.model import Cart, Offer, VariantNotFound
from stoa_cart.repository import CartStore, PriceBook
from stoa_chassis.avro import Event
from stoa_chassis.clock import Clock
from stoa_chassis.errors import InvalidArgument, RemoteError
from stoa_chassis.money import Money
from stoa_events import OrderPlaced

_PATIENCE = 5.0  # seconds, when an answer is needed
_LITTLE_PATIENCE = 1.0  # when it would only be better


class Catalog(Protocol):
    """What is on sale, and for how much."""

    async def offers(self, variant_ids: Sequence[UUID], patience: float) -> Sequence[Offer]:
        """Return today's offers, within so many seconds; variants that are not on sale are left out."""
        ...


class Inventory(Protocol):
    """What is in stock."""

    async def available(self, variant_id: UUID) -> int:
        """Return how many of a variant can still be promised."""
        ...


class Carts:
    """Filling, looking at and emptying carts.

    A cart remembers the prices that its owner has seen. Whatever the owner does shows today's prices, and from
    then on these are the ones seen. Checkout gets the prices seen: if one has changed since, the order service
    refuses the order, and looking at the cart once more is all it takes to agree to the new price.
    """

    def __init__(
        self, store: CartStore, prices: PriceBook, catalog: Catalog, inventory: Inventory, clock: Clock
    ) -> None:
        self._store = store
        self._prices = prices
        self._catalog = catalog
        self._inventory = inventory
        self._clock = clock

    async def look(self, user_id: UUID) -> Cart:
        """Show a cart to its owner. Works without any other service."""

        async def only_look(_: Cart) -> None:
            """Change nothing but the prices seen."""

        return await self._as_owner(user_id, only_look)

    async def for_checkout(self, user_id: UUID) -> Cart:
        """Read a cart with the prices that its owner last saw, however things stand now."""
        return await self._store.get(user_id)

    async def add(self, user_id: UUID, product_id: UUID, variant_id: UUID, quantity: int) -> Cart:
        """Put a variant in, if there are enough of it for all that the cart then holds.

        Raises VariantNotFound, OutOfStock, CartFull, CartTooValuable, CartBusy, InvalidArgument, and
        RemoteError while the catalogue or the inventory can't be asked.
        """
        offers, available = await asyncio.gather(
            self._catalog.offers([variant_id], _PATIENCE), self._inventory.available(variant_id)
        )
        if not offers:
            raise VariantNotFound(variant_id)
        (offer,) = offers
        if offer.product_id != product_id:
            raise InvalidArgument("item.product_id", "is not the product of this variant")

        async def put_in(cart: Cart) -> None:
            cart.add(offer, quantity, available, self._clock.now())

        return await self._as_owner(user_id, put_in)

    async def change(self, user_id: UUID, item_id: UUID, quantity: int) -> Cart:
        """Set how many of a line there are.

        Raises ItemNotFound, OutOfStock, CartTooValuable, CartBusy; RemoteError while the inventory can't be
        asked, which it is only if they become more.
        """

        async def set_quantity(cart: Cart) -> None:
            line = cart.line(item_id)
            rises = quantity > line.quantity
            available = await self._inventory.available(line.variant_id) if rises else 0
            cart.change(item_id, quantity, self._clock.now(), available)

        return await self._as_owner(user_id, set_quantity)

    async def remove(self, user_id: UUID, item_id: UUID) -> Cart:
        """Take a line out, if it is there. Raises CartBusy."""

        async def take_out(cart: Cart) -> None:
            cart.remove(item_id, self._clock.now())

        return await self._as_owner(user_id, take_out)

    async def clear(self, user_id: UUID) -> None:
        """Take everything out."""
        await self._store.clear(user_id)

    async def take_ordered(self, event: Event[OrderPlaced]) -> None:
        """Take out what was ordered, once; what was put in since stays. Raises AlreadyProcessed, CartBusy."""
        ordered = [(item.variant_id, item.quantity) for item in event.payload.items]

        async def take_out(cart: Cart) -> None:
            cart.take_out(ordered, self._clock.now())

        await self._store.change(event.payload.user_id, take_out, consuming=event)

    async def learn_prices(self, product_id: UUID, version: int, prices: Mapping[UUID, Money]) -> None:
        """Note what the variants of a product cost, unless something later is known."""
        await self._prices.learn(product_id, version, prices)

    async def _as_owner(self, user_id: UUID, decide: Callable[[Cart], Awaitable[None]]) -> Cart:
        """Change a cart on behalf of its owner, who sees today's prices on this occasion."""

        async def change(cart: Cart) -> None:
            await self._show_prices(cart)
            await decide(cart)

        return await self._store.change(user_id, change)

    async def _show_prices(self, cart: Cart) -> None:
        if not cart.lines:
            return
        known = await self._prices.of({line.product_id for line in cart.lines})
        for prices in known.values():
            cart.see(prices)
        # A product that is so new that its event is still under way, or a price book that was lost.
        unknown = [line.variant_id for line in cart.lines if line.product_id not in known]
        if unknown:
            with contextlib.suppress(RemoteError):
                offers = await self._catalog.offers(unknown, _LITTLE_PATIENCE)
                cart.see({offer.variant_id: offer.price for offer in offers})
