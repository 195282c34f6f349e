"""The use cases of carts."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

from stoa_cart.model import Cart, Checkout, Claim, Handover, Offer
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
    UserGuestMerged,
)

OrderEvent: TypeAlias = Event[OrderPlaced] | Event[OrderConfirmed] | Event[OrderCancelled]
"""What says what becomes of an order's claim."""


class _Moved(Exception):
    """What an order holds is in the cart of an account, or is on the way there."""

    def __init__(self, cart: Cart, user_id: UUID) -> None:
        self.cart = cart
        self.user_id = user_id


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

    @transactional
    async def release(self, tx: Tx, user_id: UUID, order_id: UUID) -> None:
        """Give back what an order claimed that will not be placed. Raises CartBusy."""
        cart = await self._read(tx, user_id)
        cart.release(order_id, self._clock.now())
        await tx.carts.save(cart)

    async def add(self, user_id: UUID, product_id: UUID, variant_id: UUID, quantity: int) -> Cart:
        """Put a variant in, if there are enough of it in stock for all that the cart would hold.

        Raises:
            InvalidArgument: the variant is not on sale or not of that product, or see `Cart.add`.
            OutOfStock, CartFull: see `Cart.add`.
            CartBusy: others kept changing the cart.
            RemoteError: the catalogue or the inventory can't be asked.
        """
        await self._prices.watch(product_id)  # so that no change is missed from the offer on
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
        cart = await self._refreshed(tx, user_id, offer.product_id)
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

    async def on_order_placed(self, event: Event[OrderPlaced]) -> None:
        """Hold what was ordered, once; what was put in since stays. Raises CartBusy."""
        await self._on_order(event, Cart.on_order_placed)

    async def on_order_confirmed(self, event: Event[OrderConfirmed]) -> None:
        """Let go of what was ordered. Raises CartBusy."""
        await self._on_order(event, Cart.on_order_confirmed)

    async def on_order_cancelled(self, event: Event[OrderCancelled]) -> None:
        """Put back what was ordered; what was put in since stays. Raises CartBusy."""
        await self._on_order(event, Cart.on_order_cancelled)

    async def on_guest_merged(self, event: Event[UserGuestMerged]) -> None:
        """Take over the cart of a guest who has signed in, once. Raises CartBusy."""
        guest_id, user_id = event.payload.guest_id, event.payload.user_id
        while (handover := await self._hand_over(guest_id, user_id)) is not None:
            await self._finish(guest_id, handover)

    async def _on_order(self, event: OrderEvent, take_effect: Callable[[Cart, Any, datetime], None]) -> None:
        """Let an event of an order take effect on the cart that has its claim."""
        user_id = event.payload.user_id
        while True:
            try:
                return await self._on_order_of(event, user_id, take_effect)
            except _Moved as moved:
                if (handover := moved.cart.handover) is not None:
                    await self._finish(moved.cart.user_id, handover)
                user_id = moved.user_id

    @transactional
    async def _on_order_of(
        self,
        tx: Tx,
        event: OrderEvent,
        user_id: UUID,
        take_effect: Callable[[Cart, Any, datetime], None],
    ) -> None:
        cart = await tx.carts.get(user_id)
        if (moved_to := cart.moved.get(event.payload.order_id)) is not None:
            raise _Moved(cart, moved_to)
        take_effect(cart, event.payload, self._clock.now())
        await tx.carts.save(cart)

    # A guest's cart goes over in three steps, each of which changes one cart, and can be taken again.

    async def _finish(self, guest_id: UUID, handover: Handover) -> None:
        await self._take_over(handover)
        await self._handed_over(guest_id, handover.handover_id)

    @transactional
    async def _hand_over(self, tx: Tx, guest_id: UUID, user_id: UUID) -> Handover | None:
        cart = await self._read(tx, guest_id)
        handover = cart.hand_over(user_id, self._clock.now())
        await tx.carts.save(cart)
        return handover

    @transactional
    async def _take_over(self, tx: Tx, handover: Handover) -> None:
        cart = await self._read(tx, handover.user_id)
        cart.take_over(handover, self._clock.now())
        await tx.carts.save(cart)

    @transactional
    async def _handed_over(self, tx: Tx, guest_id: UUID, handover_id: UUID) -> None:
        cart = await tx.carts.get(guest_id)
        cart.handed_over(handover_id)
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

    async def _refreshed(self, tx: Tx, user_id: UUID, *coming: UUID) -> Cart:
        """Read a cart for its owner, who sees it at the prices of now on the occasion.

        What changes of its products is noted from now on, and of those that are coming into it.
        """
        cart = await self._read(tx, user_id)
        cart.refresh(await self._prices.of({*coming, *(item.product_id for item in cart.items)}))
        return cart
