"""The use cases of orders."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import asyncpg

from stoa_chassis.auth import Principal
from stoa_chassis.avro import Event
from stoa_chassis.clock import Clock
from stoa_chassis.errors import DomainError
from stoa_chassis.uow import UnitOfWork
from stoa_order.engine import SagaEngine
from stoa_order.model import (
    Address,
    CartLine,
    Offer,
    Order,
    OrderNotFound,
    RequestInProgress,
    Tariff,
    check_offers,
)
from stoa_order.repository import OrderReader, Tx


class Carts(Protocol):
    """What is in a buyer's cart."""

    async def lines(self, user_id: UUID) -> Sequence[CartLine]:
        """Return the lines at the prices that the owner last saw."""
        ...


class Catalog(Protocol):
    """What things cost today."""

    async def offers(self, variant_ids: Sequence[UUID]) -> Sequence[Offer]:
        """Return today's offers; variants that are not on sale are left out."""
        ...


class AddressBook(Protocol):
    """The addresses that users keep."""

    async def address(self, user_id: UUID, address_id: UUID) -> Address:
        """Return one of a user's addresses."""
        ...


@dataclass(frozen=True, slots=True)
class PlaceOrder:
    """What a buyer asks for. `destination` is an address or the id of one in the buyer's address book."""

    user_id: UUID
    request_id: str
    destination: Address | UUID
    shipping_method: str
    payment_token: str


class Orders:
    """Placing, reading and cancelling orders, and hearing what other services say about them."""

    def __init__(
        self,
        uow: UnitOfWork[Tx],
        reader: OrderReader,
        engine: SagaEngine,
        clock: Clock,
        tariff: Tariff,
        carts: Carts,
        catalog: Catalog,
        addresses: AddressBook,
    ) -> None:
        self._uow = uow
        self._reader = reader
        self._engine = engine
        self._clock = clock
        self._tariff = tariff
        self._carts = carts
        self._catalog = catalog
        self._addresses = addresses

    async def place(self, command: PlaceOrder) -> Order:
        """Order what is in the buyer's cart; the same request id gives the same order.

        Raises:
            CartEmpty, ItemsUnavailable, PriceChanged: see `check_offers`.
        """
        try:
            cart, address = await asyncio.gather(
                self._carts.lines(command.user_id), self._resolve(command.user_id, command.destination)
            )
            offers = await self._catalog.offers([line.variant_id for line in cart]) if cart else ()
            lines = check_offers(cart, offers)
        except DomainError:
            # The request may have come before, and have emptied the cart. Looked up only here and where the
            # order can't be written, since few requests come twice.
            if order := await self._reader.by_request(command.user_id, command.request_id):
                return order
            raise
        order = Order.place(
            command.user_id,
            command.request_id,
            lines,
            self._tariff,
            address,
            command.shipping_method,
            self._clock.now(),
        )
        try:
            async with self._uow.begin() as tx:
                await tx.orders.save(order, command.payment_token)
                tx.publish(order)
        except asyncpg.UniqueViolationError:
            # The same request, twice at the same moment: the first to commit made the order.
            if first := await self._reader.by_request(command.user_id, command.request_id):
                return first
            raise RequestInProgress("the same request is being carried out") from None
        return order

    async def get(self, order_id: UUID, caller: Principal) -> Order:
        """Read an order that is the caller's, or any if the caller is staff.

        Raises:
            OrderNotFound: there is none, or it is another's: the two look alike, so that ids can't be probed.
        """
        order = await self._reader.get(order_id)
        if order is None or not caller.may_act_for(str(order.user_id)):
            raise OrderNotFound(f"order {order_id} not found")
        return order

    async def list(
        self,
        *,
        user_id: UUID | None = None,
        status: str | None = None,
        before: UUID | None = None,
        limit: int,
    ) -> Sequence[Order]:
        """Read orders, newest first."""
        return await self._reader.list(user_id=user_id, status=status, before=before, limit=limit)

    async def cancel(self, order_id: UUID, reason: str, caller: Principal) -> Order:
        """Cancel an order; what was paid is given back.

        Raises:
            OrderNotFound: as in `get`.
            NotCancellable: it was shipped.
        """

        async def decide(tx: Tx) -> Order:
            order = await tx.orders.get(order_id)
            if not caller.may_act_for(str(order.user_id)):
                raise OrderNotFound(f"order {order_id} not found")
            order.cancel(reason, self._clock.now())
            await tx.orders.save(order)
            tx.publish(order)
            return order

        order = await self._uow.run(decide)
        self._engine.ask(order)
        return order

    async def hear(self, decide: Callable[[Order, Any, datetime], None], event: Event[Any]) -> None:
        """Let an answer from another service take effect on its order, once."""

        async def apply(tx: Tx) -> tuple[Order, str | None] | None:
            order = await tx.orders.get(event.payload.order_id)
            decide(order, event.payload, self._clock.now())
            if not order.changes:
                return None  # whoever brought it to its step has asked
            payment_token = await tx.orders.save(order)
            tx.publish(order)
            return order, payment_token

        if changed := await self._uow.run(apply, consuming=event):
            self._engine.ask(*changed)

    async def _resolve(self, user_id: UUID, destination: Address | UUID) -> Address:
        if isinstance(destination, Address):
            return destination
        return await self._addresses.address(user_id, destination)
