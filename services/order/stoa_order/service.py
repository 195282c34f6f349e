"""The use cases of orders."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from stoa_chassis.auth import Principal
from stoa_chassis.avro import Event
from stoa_chassis.clock import Clock
from stoa_chassis.context import correlation_id
from stoa_chassis.errors import DomainError
from stoa_chassis.ids import new_id
from stoa_chassis.uow import UnitOfWork, transactional
from stoa_contracts.money import Money
from stoa_events import UserEmailVerified, UserErased, UserGuestMerged
from stoa_order.engine import SagaEngine
from stoa_order.links import GuestLinks
from stoa_order.model import (
    ACCOUNT,
    Address,
    Amounts,
    CartChanged,
    CartLine,
    Checkout,
    ClaimTooOld,
    Contact,
    Line,
    Offer,
    Order,
    OrderNotFound,
    OrderView,
    Request,
    RequestInProgress,
    Tariff,
    Withdrawn,
    check_offers,
)
from stoa_order.ports import AddressBook, Carts, Catalog, OrderViews, Quotes, RequestTaken, Tx
from stoa_order.returns import Return, ReturnRequest, ReturnView
from stoa_order.saga import Answer, Timeouts, plan, reactions

# An order begins to be stored so long before what it claimed may be in the cart again, or not at all: for
# longer than a transaction lives whose process stalls (`stoa_chassis.postgres`), and clocks may differ.
_CLAIM_RESERVE = timedelta(seconds=20)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceOrder:
    """What a buyer asks for.

    `destination` is an address or the id of one in the buyer's address book, `contact` how a guest is written
    to.
    """

    user_id: UUID
    request_id: str
    destination: Address | UUID
    shipping_method: str
    payment_token: str = field(repr=False)
    contact: Contact = ACCOUNT

    def request_for(self, order_id: UUID) -> Request:
        """Return what is asked for, as the order keeps it."""
        return Request.of(order_id, self.destination, self.shipping_method, self.payment_token, self.contact)


class Orders:
    """Placing, reading, cancelling and sending back orders, and taking the answers of other services.

    What a changed order asks of others is asked after its transaction has committed.
    """

    def __init__(
        self,
        uow: UnitOfWork[Tx],
        views: OrderViews,
        engine: SagaEngine,
        clock: Clock,
        tariff: Tariff,
        timeouts: Timeouts,
        links: GuestLinks,
        return_window: timedelta,
        carts: Carts,
        catalog: Catalog,
        addresses: AddressBook,
        quotes: Quotes,
    ) -> None:
        """Whatever was delivered can be sent back for `return_window`."""
        self._uow = uow
        self._views = views
        self._engine = engine
        self._clock = clock
        self._tariff = tariff
        self._timeouts = timeouts
        self._carts = carts
        self._catalog = catalog
        self._addresses = addresses
        self._quotes = quotes
        self._links = links
        self._return_window = return_window

    async def place(self, command: PlaceOrder) -> OrderView:
        """Order what is in the buyer's cart; the same request id gives the same order.

        The cart is claimed for the order before the order is stored, so that no other is of the same things.

        Raises:
            CartEmpty, CartChanged, ItemsUnavailable, PriceChanged, ForeignCurrency, ClaimTooOld: see the
                model. CartEmpty and CartChanged come from the cart service as well.
            InvalidArgument: there is no such address, or nothing is sent there so.
            RequestIdUsed, RequestIdReused: see `Order.check_again`.
            RequestInProgress: the same request is being carried out.
        """
        try:
            order = await self._place(command)
        except (DomainError, RequestTaken) as refused:
            # The request may have come before, and have claimed the cart, or come twice at the same moment:
            # the first to commit made the order. Looked up only here, since few requests come twice.
            known = await self._views.by_request(command.user_id, command.request_id)
            if known is not None:
                known.check_again(command.request_for(known.order_id))
                return known.view
            if isinstance(refused, RequestTaken):
                raise RequestInProgress("the same request is being carried out") from None
            raise
        self._engine.ask(order)
        return order.view

    async def _place(self, command: PlaceOrder) -> Order:
        checkout, address = await asyncio.gather(
            self._carts.checkout(command.user_id, command.request_id),
            self._resolve(command.user_id, command.destination),
        )
        await self._check_claims(checkout)
        offers, quote = await self._price(checkout.lines, address, command.shipping_method)
        lines = check_offers(checkout.lines, offers)
        amounts = self._tariff.amounts(lines, command.shipping_method, quote)
        asked_at = self._clock.now()
        claim = await self._carts.claim(command.user_id, command.request_id, new_id(), checkout.version)
        until = asked_at + claim.ttl - _CLAIM_RESERVE
        try:
            return await self._store(command, claim.order_id, until, lines, amounts, address)
        except RequestTaken:
            # The cart has forgotten that the request had led to an order, and was claimed for another.
            if await self._views.get(claim.order_id) is None:
                await self._carts.release(command.user_id, claim.order_id)
            raise

    async def _price(
        self, lines: Sequence[CartLine], address: Address, shipping_method: str
    ) -> tuple[Sequence[Offer | Withdrawn], Money | None]:
        """Ask for today's prices, and for what it costs to send the things there."""
        if not lines:
            return (), None
        offers = self._catalog.offers([line.variant_id for line in lines])
        return await asyncio.gather(offers, self._quotes.quote(lines, address, shipping_method))

    async def _check_claims(self, checkout: Checkout) -> None:
        """Check that the cart is nobody's: neither this request's nor another's order was made of it.

        Raises RequestTaken, CartChanged.
        """
        if checkout.order_id is not None and await self._views.get(checkout.order_id):
            raise RequestTaken(f"order {checkout.order_id}")
        for order_id in checkout.lapsed:
            # Also if that is cancelled since: its events are still to come, and would change the cart.
            if await self._views.get(order_id):
                raise CartChanged(
                    f"what is in the cart was ordered as order {order_id}; try again in a moment",
                    metadata={"order_id": str(order_id)},
                )

    @transactional
    async def _store(
        self,
        tx: Tx,
        command: PlaceOrder,
        order_id: UUID,
        until: datetime,
        lines: tuple[Line, ...],
        amounts: Amounts,
        address: Address,
    ) -> Order:
        now = self._clock.now()
        if now > until:
            raise ClaimTooOld("it took too long to place the order; send the same request again")
        order = Order.place(
            order_id=order_id,
            user_id=command.user_id,
            request_id=command.request_id,
            request=command.request_for(order_id),
            lines=lines,
            amounts=amounts,
            shipping_address=address,
            shipping_method=command.shipping_method,
            now=now,
            contact=command.contact,
            access_token=self._links.secret(order_id, now) if command.contact.email else "",
        )
        if command.contact.email and (account := await tx.guests.account_of(command.user_id)):
            order.change_buyer(account, now)  # she has signed in meanwhile, in another tab
        await self._save(tx, order, command.payment_token)
        return order

    async def get(self, order_id: UUID, caller: Principal) -> OrderView:
        """Read an order that is the caller's, or any if the caller is staff.

        Raises:
            OrderNotFound: there is none, or it is another's: the two look alike, so that ids can't be probed.
        """
        order = await self._views.get(order_id)
        if order is None or not caller.may_act_for(str(order.user_id)):
            raise OrderNotFound(f"order {order_id} not found")
        return order

    async def get_by_link(self, secret: str) -> OrderView:
        """Read an order with the secret of the link that a guest was sent. Raises OrderNotFound."""
        order_id = self._links.order_of(secret, self._clock.now())
        order = await self._views.get(order_id) if order_id is not None else None
        if order is None:
            raise OrderNotFound("this link leads to no order, or has expired")
        return order

    def access_token(self, order: OrderView) -> str:
        """Return the secret of the link to a guest's order; "" if no guest is written to about it."""
        return self._links.secret(order.order_id, order.created_at) if order.contact.email else ""

    async def list(
        self,
        *,
        user_id: UUID | None = None,
        status: str | None = None,
        before: UUID | None = None,
        limit: int,
    ) -> Sequence[OrderView]:
        """Read orders, newest first."""
        return await self._views.list(user_id=user_id, status=status, before=before, limit=limit)

    async def cancel(self, order_id: UUID, reason: str, caller: Principal) -> OrderView:
        """Cancel an order; what was paid is given back.

        What is confirmed is cancelled when shipping has stopped the parcel. It is asked at once; should it
        not answer, the order is returned as it is, and shipping asked until it does.

        Raises:
            OrderNotFound: as in `get`.
            NotCancellable: the carrier has it.
        """
        order = await self._cancel(order_id, reason, caller)
        if order.cancellation is not None:
            order = await self._engine.ask_now(order)
            order.check_stoppable()
        self._engine.ask(order)
        return order.view

    @transactional
    async def _cancel(self, tx: Tx, order_id: UUID, reason: str, caller: Principal) -> Order:
        order = await self._own(tx, order_id, caller)
        order.cancel(reason, self._clock.now())
        await self._save(tx, order)
        return order

    @transactional
    async def request_return(
        self, tx: Tx, order_id: UUID, request_id: str, request: ReturnRequest, caller: Principal
    ) -> Return:
        """Ask to send items of an order back; the same request id asks once.

        Raises:
            OrderNotFound: as in `get`.
            NotReturnable, ReturnWindowClosed, TooManyReturns, InvalidArgument, RequestIdReused: see
                `Order.request_return`.
        """
        order = await self._own(tx, order_id, caller)
        made = order.request_return(request_id, request, self._return_window, self._clock.now())
        await self._save(tx, order)
        return made

    async def list_returns_of(
        self, order_id: UUID, caller: Principal, *, after: UUID | None = None, limit: int
    ) -> Sequence[Return]:
        """Read the returns of an order, oldest first. Raises OrderNotFound, as `get`."""
        await self.get(order_id, caller)
        return await self._views.returns_of(order_id, after=after, limit=limit)

    async def list_returns(
        self, *, status: str | None = None, before: UUID | None = None, limit: int
    ) -> Sequence[ReturnView]:
        """Read the returns of all orders, newest first."""
        return await self._views.returns(status=status, before=before, limit=limit)

    @transactional
    async def approve_return(self, tx: Tx, order_id: UUID, return_id: UUID, reason: str) -> Return:
        """Let a return come. Raises OrderNotFound, ReturnNotFound, ReturnDecided."""
        order = await tx.orders.get(order_id)
        decided = order.approve_return(return_id, reason, self._clock.now())
        await self._save(tx, order)
        return decided

    @transactional
    async def reject_return(self, tx: Tx, order_id: UUID, return_id: UUID, reason: str) -> Return:
        """Refuse a return. Raises OrderNotFound, ReturnNotFound, ReturnDecided."""
        order = await tx.orders.get(order_id)
        decided = order.reject_return(return_id, reason, self._clock.now())
        await self._save(tx, order)
        return decided

    async def receive_return(self, order_id: UUID, return_id: UUID, reason: str) -> Return:
        """Take note that a return is here, and have it refunded.

        Raises OrderNotFound, ReturnNotFound, ReturnDecided.
        """
        order = await self._receive_return(order_id, return_id, reason)
        self._engine.ask(order)
        return order.return_(return_id)

    @transactional
    async def _receive_return(self, tx: Tx, order_id: UUID, return_id: UUID, reason: str) -> Order:
        order = await tx.orders.get(order_id)
        order.receive_return(return_id, reason, self._clock.now())
        await self._save(tx, order)
        return order

    async def _own(self, tx: Tx, order_id: UUID, caller: Principal) -> Order:
        """Read an order that the caller may change. Raises OrderNotFound, also for another's."""
        order = await tx.orders.get(order_id)
        if not caller.may_act_for(str(order.user_id)):
            raise OrderNotFound(f"order {order_id} not found")
        return order

    async def on_answer(self, event: Event[Answer]) -> None:
        """Let an answer that a step of the saga waits for take effect on its order, once."""
        if order := await self._on_answer(event):
            self._engine.ask(order)

    @transactional
    async def _on_answer(self, tx: Tx, event: Event[Answer]) -> Order | None:
        """Return the order if that changed it: else whoever brought it to its step has asked."""
        order = await tx.orders.get(event.payload.order_id)
        reactions()[type(event.payload)](order, event.payload, self._clock.now())
        changed = bool(order.changes)
        await self._save(tx, order)
        return order if changed else None

    @transactional
    async def on_guest_merged(self, tx: Tx, event: Event[UserGuestMerged]) -> None:
        """Let all orders of a guest belong to the account that she has become."""
        guest_id, user_id = event.payload.guest_id, event.payload.user_id
        await tx.guests.merge(guest_id, user_id)
        await self._change_buyer(tx, await tx.orders.of_buyer(guest_id), user_id)

    @transactional
    async def on_email_verified(self, tx: Tx, event: Event[UserEmailVerified]) -> None:
        """Let guests' orders belong to the account whose owner has proven that their address is hers."""
        found = await tx.orders.of_address(event.payload.email)
        await self._change_buyer(tx, found, event.payload.user_id)

    @transactional
    async def on_user_erased(self, tx: Tx, event: Event[UserErased]) -> None:
        """Forget who bought what a user bought."""
        for order_id in await tx.orders.of_buyer(event.payload.user_id):
            order = await tx.orders.get(order_id)
            order.erase_person(self._clock.now())
            await self._save(tx, order)

    async def _change_buyer(self, tx: Tx, order_ids: Sequence[UUID], user_id: UUID) -> None:
        for order_id in order_ids:
            order = await tx.orders.get(order_id)
            order.change_buyer(user_id, self._clock.now())
            await self._save(tx, order)

    async def _save(self, tx: Tx, order: Order, payment_token: str | None = None) -> None:
        """Store an order with the saga that it now calls for."""
        saga = plan(
            order,
            self._clock.now(),
            self._timeouts,
            token=payment_token,
            correlation_id=correlation_id(),
        )
        await tx.orders.save(order, saga)

    async def _resolve(self, user_id: UUID, destination: Address | UUID) -> Address:
        if isinstance(destination, Address):
            return destination
        return await self._addresses.address(user_id, destination)
