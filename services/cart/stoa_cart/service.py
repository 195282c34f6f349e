"""The use cases of carts."""

import asyncio
from datetime import timedelta
from uuid import UUID

from stoa_cart.model import Cart, Checkout, Claim, Offer
from stoa_cart.ports import CartReader, Catalog, Inventory, PriceBook, Tx
from stoa_chassis.avro import Event
from stoa_chassis.clock import Clock
from stoa_chassis.errors import InvalidArgument
from stoa_chassis.uow import UnitOfWork, transactional
from stoa_events import (
    OrderCancelled,
    OrderConfirmed,
    OrderPlaced,
    ProductCreated,
    ProductDeleted,
    ProductUpdated,
)


class Carts:
    """Filling, looking at and emptying carts.

    Whatever its owner does with a cart shows it at the prices of now, as far as the catalogue's events have
    come, and these are from then on the prices seen. Checkout reads the prices seen, unchanged: the order
    service refuses an order when one has changed since, and looking at the cart again resolves it. Should the
    look come before the event of the new price, it shows the old one, and the next one resolves it.

    An order claims what it is made of before it is placed, for `claim_for`; a claim that has lapsed is given
    back whenever the cart is used next.
    """

    def __init__(
        self,
        uow: UnitOfWork[Tx],
        reader: CartReader,
        prices: PriceBook,
        catalog: Catalog,
        inventory: Inventory,
        clock: Clock,
        claim_for: timedelta,
    ) -> None:
        self._uow = uow
        self._reader = reader
        self._prices = prices
        self._catalog = catalog
        self._inventory = inventory
        self._clock = clock
        self._claim_for = claim_for

    @transactional
    async def get(self, tx: Tx, user_id: UUID) -> Cart:
        """Show a cart to its owner. Needs no other service."""
        cart = await self._refreshed(tx, user_id)
        await tx.carts.save(cart)
        return cart

    async def for_checkout(self, user_id: UUID, request_id: str) -> Checkout:
        """Read a cart at the prices that its owner last saw, whatever things cost now."""
        cart = await self._reader.get(user_id)
        cart.lapse(self._clock.now())
        return cart.checkout(request_id)

    @transactional
    async def claim(
        self, tx: Tx, user_id: UUID, request_id: str, order_id: UUID, version: str
    ) -> tuple[Claim, timedelta]:
        """Take out what is in a cart for an order, and tell for how long.

        Raises:
            CartEmpty, CartChanged: see `Cart.claim`.
            CartBusy: others kept changing the cart.
        """
        cart, now = await self._read(tx, user_id), self._clock.now()
        claim = cart.claim(request_id, order_id, version, now, now + self._claim_for)
        await tx.carts.save(cart)
        return claim, self._claim_for

    async def add(self, user_id: UUID, product_id: UUID, variant_id: UUID, quantity: int) -> Cart:
        """Put a variant in, if there are enough of it in stock for all that the cart would hold.

        Raises:
            InvalidArgument: the variant is not on sale or not of that product, or see `Cart.add`.
            OutOfStock, CartFull: see `Cart.add`.
            CartBusy: others kept changing the cart.
            RemoteError: the catalogue or the inventory can't be asked.
        """
        offer, available = await asyncio.gather(
            self._catalog.offer(variant_id), self._inventory.available(variant_id)
        )
        if offer is None:
            raise InvalidArgument("item.variant_id", "is not on sale")
        if offer.product_id != product_id:
            raise InvalidArgument("item.product_id", "is not the product of this variant")
        return await self._put_in(user_id, offer, quantity, available)

    @transactional
    async def _put_in(self, tx: Tx, user_id: UUID, offer: Offer, quantity: int, available: int) -> Cart:
        cart = await self._refreshed(tx, user_id)
        cart.add(offer, quantity, available, self._clock.now())
        await tx.carts.save(cart)
        return cart

    @transactional
    async def update(self, tx: Tx, user_id: UUID, item_id: UUID, quantity: int) -> Cart:
        """Set how many of a line there are; it may become less whatever is in stock.

        Raises:
            ItemNotFound, ItemUnavailable, InvalidArgument, OutOfStock: see `Cart.set_quantity`.
            CartBusy: others kept changing the cart.
            RemoteError: the inventory can't be asked.
        """
        cart = await self._refreshed(tx, user_id)
        item = cart.item(item_id)
        grows = item.available and quantity > item.quantity
        available = await self._inventory.available(item.variant_id) if grows else quantity
        cart.set_quantity(item_id, quantity, available, self._clock.now())
        await tx.carts.save(cart)
        return cart

    @transactional
    async def remove(self, tx: Tx, user_id: UUID, item_id: UUID) -> Cart:
        """Take a line out, if it is there. Raises CartBusy."""
        cart = await self._refreshed(tx, user_id)
        cart.remove(item_id, self._clock.now())
        await tx.carts.save(cart)
        return cart

    @transactional
    async def clear(self, tx: Tx, user_id: UUID) -> None:
        """Take everything out. Raises CartBusy."""
        cart = await self._read(tx, user_id)
        cart.clear(self._clock.now())
        await tx.carts.save(cart)

    @transactional
    async def on_order_placed(self, tx: Tx, event: Event[OrderPlaced]) -> None:
        """Hold what was ordered, once; what was put in since stays. Raises CartBusy."""
        cart, now = await tx.carts.get(event.payload.user_id), self._clock.now()
        cart.on_order_placed(event.payload, now)
        await tx.carts.save(cart)

    @transactional
    async def on_order_confirmed(self, tx: Tx, event: Event[OrderConfirmed]) -> None:
        """Let go of what was ordered. Raises CartBusy."""
        cart, now = await tx.carts.get(event.payload.user_id), self._clock.now()
        cart.on_order_confirmed(event.payload, now)
        await tx.carts.save(cart)

    @transactional
    async def on_order_cancelled(self, tx: Tx, event: Event[OrderCancelled]) -> None:
        """Put back what was ordered; what was put in since stays. Raises CartBusy."""
        cart, now = await tx.carts.get(event.payload.user_id), self._clock.now()
        cart.on_order_cancelled(event.payload, now)
        await tx.carts.save(cart)

    async def on_product_changed(self, event: Event[ProductCreated] | Event[ProductUpdated]) -> None:
        """Note what the variants of a product cost, unless a later version of it is known."""
        product = event.payload
        prices = {variant.variant_id: variant.price for variant in product.variants}
        await self._prices.learn(product.product_id, product.version, prices)

    async def on_product_deleted(self, event: Event[ProductDeleted]) -> None:
        """Note that the variants of a product are not on sale any more."""
        await self._prices.learn(event.payload.product_id, event.payload.version, {})

    async def _read(self, tx: Tx, user_id: UUID) -> Cart:
        """Read a cart to change it, with what is in it again."""
        cart = await tx.carts.get(user_id)
        cart.lapse(self._clock.now())
        return cart

    async def _refreshed(self, tx: Tx, user_id: UUID) -> Cart:
        """Read a cart for its owner, who sees it at the prices of now on the occasion."""
        cart = await self._read(tx, user_id)
        cart.refresh(await self._prices.of({item.product_id for item in cart.items}))
        return cart
