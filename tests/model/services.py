"""The real services, each as a function from a state and an input to a state and what it sends.

Nothing of a service is modelled: its use cases, its engine, its entities and its mapping to messages run as
they are, on its own stores in memory, which one suite of tests holds to what the real stores do. What stands
in for the wiring around them is small: a stub that takes calls, and a store of due work that hands out what
was claimed. Shipping is what its contract says (tests/model/parcel.py): its carriers are another world.

All that is asked of an order is asked under one correlation id, its own. So it is simple to say what every
event must carry, whatever took how long: late work is not told which it is.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from typing import Any, Generic, TypeVar
from unittest.mock import patch
from uuid import UUID

import structlog
from google.protobuf.message import Message

from stoa.cart.v1 import cart_pb2
from stoa.payment.v1 import payment_pb2
from stoa.shipping.v1 import shipping_pb2
from stoa_cart import events as cart_events
from stoa_cart import model as cart_model
from stoa_cart import testing as cart_memory
from stoa_cart.api import CartServicer
from stoa_cart.model import Cart, Item
from stoa_cart.service import Carts
from stoa_chassis.auth import Principal, acting_as
from stoa_chassis.avro import Event
from stoa_chassis.context import bound, correlation_id
from stoa_chassis.due import Backoff, DueStore, Unfinished
from stoa_chassis.errors import Code, DomainError, RemoteError, Unavailable
from stoa_chassis.inbox import AlreadyProcessed
from stoa_chassis.memory import MemoryStore, memory_unit_of_work
from stoa_chassis.money_proto import from_proto, to_proto
from stoa_chassis.outbox import Outbox
from stoa_chassis.validation import RequestCheck
from stoa_contracts.events import Payload
from stoa_contracts.money import Money
from stoa_events import (
    InventoryOutOfStock,
    InventoryReserved,
    OrderCancelled,
    OrderConfirmed,
    OrderPlaced,
    OrderReturned,
    OrderShipped,
    PaymentFailed,
    PaymentRefunded,
    PaymentSuccessful,
    ShipmentCreated,
    ShipmentStatusUpdated,
)
from stoa_inventory import events as inventory_events
from stoa_inventory import testing as inventory_memory
from stoa_inventory.service import Inventory
from stoa_order import events as order_events
from stoa_order import model as order_model
from stoa_order import peers, ports
from stoa_order import service as order_service
from stoa_order import testing as order_memory
from stoa_order.engine import SagaEngine
from stoa_order.links import GuestLinks
from stoa_order.model import Address, CartClaim, CartLine, Checkout, Offer, Order, Saga, Tariff
from stoa_order.returns import ReturnItem, ReturnRequest
from stoa_order.saga import Timeouts
from stoa_order.service import Orders, PlaceOrder
from stoa_payment import model as payment_model
from stoa_payment import testing as payment_memory
from stoa_payment.api import PaymentServicer
from stoa_payment.model import (
    Charge,
    GatewayRefund,
    Payment,
    Refund,
    RefundTerms,
    RequestKey,
    RetryPolicy,
)
from stoa_payment.ports import Tx as PaymentTx
from stoa_payment.service import Payments
from stoa_payment.testing import Bank, Fate
from tests.model import levelled
from tests.model.levelled import LONGEST_WAIT, NOW
from tests.model.parcel import NO_PARCEL, Parcel, Stopped
from tests.model.stepwise import STORE, Gateway, Run, Suspended

W = TypeVar("W", bound=Unfinished)
S = TypeVar("S")

USER = UUID(int=1)
CHANGED_MY_MIND = "changed my mind"
_PRICE = Money(Decimal(10), "USD")
_TARIFF = Tariff({"standard": Money(Decimal(1), "USD")}, Decimal(0))
_ADDRESS = Address("A. Buyer", "1 Street", "", "Town", "", "12345", "US")
_STAFF_REFUND = Money(Decimal(4), "USD")

SOON = NOW + LONGEST_WAIT
"""When all that waits has fallen due, and no deadline has passed."""
_MUCH_LATER = NOW + timedelta(days=2)
_CLAIM_FOR = timedelta(minutes=1)
LAPSED = NOW + _CLAIM_FOR
"""When what was claimed is in the cart again, unless its order was placed."""
_BACKOFF = Backoff(timedelta(seconds=1), LONGEST_WAIT / 2)
# An order that was given time for its stock and has it meanwhile still has time for its payment.
_TIMEOUTS = Timeouts(stock=LONGEST_WAIT * 2, payment=LONGEST_WAIT * 4, retry=_BACKOFF)
_RETRY = RetryPolicy(lease=timedelta(seconds=11), give_up_after=timedelta(hours=24))

TO_ORDER = (
    InventoryReserved,
    InventoryOutOfStock,
    PaymentSuccessful,
    PaymentFailed,
    PaymentRefunded,
    ShipmentCreated,
    ShipmentStatusUpdated,
)
TO_INVENTORY = (OrderPlaced, OrderCancelled, OrderShipped, OrderReturned)
TO_CART = (OrderPlaced, OrderConfirmed, OrderCancelled)
TO_SHIPPING = (OrderConfirmed, PaymentSuccessful, OrderCancelled)
TOPICS: tuple[type[Payload], ...] = (*TO_INVENTORY, *TO_ORDER, OrderConfirmed)
_LINKS = GuestLinks("a key", timedelta(days=1))
_RETURN_WINDOW = timedelta(days=30)


def variant(number: int) -> UUID:
    """The id of a variant."""
    return UUID(int=100 + number)


@dataclass(frozen=True)
class Question:
    """What the order service asks payment: a message on the wire, which may get lost or come twice."""

    kind: str
    message: bytes


@dataclass(frozen=True)
class Outcome(Generic[S]):
    """What an input led to. `problem` is an error that no service should ever see."""

    state: S
    events: tuple[Payload, ...] = ()
    questions: tuple[Question, ...] = ()
    problem: str = ""


@dataclass
class PaymentStub:
    """Takes the calls that order makes to payment. One that breaks the contract would never be answered."""

    correlation_id: str
    known: "PaymentState | None" = None
    asked: list[Question] = field(default_factory=list)
    refused: str = ""

    async def ProcessPayment(self, request: payment_pb2.ProcessPaymentRequest, **_: object) -> None:
        self._take("charge", request)

    async def RefundPayment(
        self, request: payment_pb2.RefundPaymentRequest, **_: object
    ) -> payment_pb2.RefundPaymentResponse:
        """Answer what payment knows of a refund, or what it says of one that can't be; else take the call.

        What comes of that is known when it is asked again.
        """
        key = RequestKey("service:order", request.request_id)
        rows = self.known.rows if self.known is not None else payment_memory.Rows()
        for refund in map(payment_memory.refund_of, rows.refunds):
            if refund.key == key:
                told = payment_pb2.Refund(amount=to_proto(refund.amount), status=refund.status.value)
                return payment_pb2.RefundPaymentResponse(refund=told)
        for payment in map(payment_memory.payment_of, rows.payments):
            amount = from_proto(request.amount, "amount") if request.HasField("amount") else None
            try:
                terms = RefundTerms(amount, request.reason)
                payment.refund(terms, key=key, correlation_id="", retry=_RETRY, now=NOW)
            except DomainError as refused:
                raise RemoteError(
                    "payment", "RefundPayment", Code.FAILED_PRECONDITION, refused.reason, ""
                ) from refused
        self._take("refund", request)
        raise Unavailable("no answer yet")

    def _take(self, kind: str, request: Message) -> None:
        try:
            _CHECKS[type(request)](request)
        except DomainError as error:
            self.refused = f"payment refuses to {kind}: {error}"
        if correlation_id() != self.correlation_id:
            self.refused = f"payment is asked to {kind} without the correlation id of the order"
        self.asked.append(Question(kind, request.SerializeToString(deterministic=True)))


@dataclass
class ShippingStub:
    """Takes the calls that order makes to shipping. Without a parcel whatever is asked for is granted."""

    parcel: Parcel
    fate: Fate
    events: tuple[Payload, ...] = ()

    async def StopShipment(self, request: shipping_pb2.StopShipmentRequest, **_: object) -> None:
        _CHECKS[type(request)](request)
        if self.parcel is NO_PARCEL:
            return
        if self.fate is Fate.UNREACHED:
            raise Unavailable("shipping is down")
        stopped, self.parcel, self.events = self.parcel.stop(UUID(request.order_id), USER)
        if self.fate is not Fate.ANSWERED:
            raise Unavailable("the answer is lost")
        if stopped is Stopped.UNDER_WAY:
            raise RemoteError("shipping", "StopShipment", Code.FAILED_PRECONDITION, stopped.value, "")


_CHECKS: dict[type[Message], RequestCheck] = {
    request: RequestCheck(request)
    for request in (
        shipping_pb2.StopShipmentRequest,
        payment_pb2.ProcessPaymentRequest,
        payment_pb2.RefundPaymentRequest,
        cart_pb2.GetCartForCheckoutRequest,
        cart_pb2.ClaimCartRequest,
        cart_pb2.ReleaseCartRequest,
    )
}


class SurvivedErrors:
    """A structlog processor that notes the errors which a service logs and survives, and drops all lines."""

    def __init__(self) -> None:
        self._noted = ""

    def __call__(self, logger: object, method: str, line: structlog.typing.EventDict) -> Any:
        if line.get("exc_info"):
            self._noted = str({name: value for name, value in line.items() if name != "exc_info"})
        raise structlog.DropEvent

    def take(self) -> str:
        """Return what was noted last; "" if nothing was since it was taken."""
        noted, self._noted = self._noted, ""
        return noted


SURVIVED = SurvivedErrors()


class Clock:
    """Stands still: that time passes is a step of the model, not of the clock."""

    def __init__(self, at: datetime = NOW) -> None:
        self._at = at

    def now(self) -> datetime:
        return self._at


@dataclass(frozen=True)
class Claimed(Generic[W]):
    """A store of due work in which nothing is due but what was claimed from the real one."""

    work: W
    store: DueStore[W]

    async def claim_due(self, now: datetime, limit: int) -> Sequence[W]:
        return [self.work]

    async def next_due(self) -> datetime | None:
        return await self.store.next_due()

    async def put_off(self, work: W, until: datetime) -> None:
        await self.store.put_off(work, until)


@contextmanager
def _ids_from(first: int) -> Iterator[None]:
    """Ids that are the same whenever the same happens, so that states can be told equal."""
    ids = map(lambda number: UUID(int=number), itertools.count(first))  # noqa: C417
    with (
        patch.object(order_model, "new_id", lambda: next(ids)),
        patch.object(order_service, "new_id", lambda: next(ids)),
        patch.object(cart_model, "new_id", lambda: next(ids)),
        patch.object(payment_model, "new_id", lambda: next(ids)),
    ):
        yield


_IDS_OF_AN_ORDER = 16  # bits: an order's id and the ids of all that belongs to it differ in these


def _correlation_of(order_id: UUID) -> str:
    return f"request {order_id.int >> _IDS_OF_AN_ORDER}"


def _event(payload: Any, position: int) -> Event[Any]:
    event_id = UUID(int=(payload.order_id.int << 16) + (TOPICS.index(type(payload)) << 8) + position)
    return Event(event_id, payload.TOPIC, 1, NOW, _correlation_of(payload.order_id), payload)


def _problem(service: str, store: MemoryStore[Any], correlation: str, error: str) -> str:
    """Say what no service should ever see, nor do; "" if nothing is wrong."""
    survived = SURVIVED.take()
    if store.violated:
        return f"{service}'s database refuses a row: {store.violated}"
    for event in store.published:
        if event.correlation_id != correlation:
            return f"{event.topic} does not carry the correlation id of its order"
    return error or (survived and f"{service}: {survived}")


def _payloads(store: MemoryStore[Any]) -> tuple[Payload, ...]:
    return tuple(event.payload for event in store.published if type(event.payload) in TOPICS)


# ---------------------------------------------------------------------------------------------------- order


@dataclass(frozen=True)
class Claim:
    """A saga in an instance's hands, and when it was claimed."""

    saga: Saga
    at: datetime

    @property
    def overdue(self) -> bool:
        """Whether the deadline had passed."""
        return self.saga.is_overdue(self.at)


@dataclass(frozen=True)
class Placing:
    """A request to place an order that is under way: what the cart service and the store have told it.

    It is `late` when what it has claimed may be in the cart again.
    """

    past: tuple[bytes, ...] = ()
    late: bool = False

    @property
    def next_step(self) -> str:
        """What it does next."""
        return _STEPS[len(self.past)]

    @property
    def has_claimed(self) -> bool:
        """Whether it is about to store the order."""
        return self.next_step == STORE


CLAIM = "claim the cart"
_STEPS = ("read the cart", CLAIM, STORE)


@dataclass(frozen=True)
class OrderState:
    """What the order service keeps of one order, and its saga if an instance has claimed it.

    `placing` is the request that leads to it, if that is under way; `parcel` what shipping has of it.
    """

    rows: order_memory.Rows = field(default_factory=order_memory.Rows)
    inbox: frozenset[UUID] = frozenset()
    claimed: Claim | None = None
    placing: Placing | None = None
    parcel: Parcel = NO_PARCEL

    @cached_property
    def order(self) -> Order | None:
        """The order, to look at; None if it was not placed."""
        facts = [recorded for _, recorded in self.rows.facts]
        return Order.replay(self.rows.facts[0][0], facts) if facts else None


@dataclass(frozen=True)
class Peers:
    """The services that placing an order asks; each order has a cart of its own."""

    basket: tuple[tuple[UUID, int], ...]

    async def checkout(self, user_id: UUID, request_id: str) -> Checkout:
        return Checkout([CartLine(key, key, quantity, _PRICE) for key, quantity in self.basket], "1")

    async def claim(self, user_id: UUID, request_id: str, order_id: UUID, version: str) -> CartClaim:
        return CartClaim(order_id, _CLAIM_FOR)

    async def release(self, user_id: UUID, order_id: UUID) -> None:
        pass

    async def offers(self, variant_ids: Sequence[UUID]) -> Sequence[Offer]:
        return [Offer(key, key, f"variant {key.int - 100}", _PRICE) for key in variant_ids]

    async def address(self, user_id: UUID, address_id: UUID) -> Address:
        return _ADDRESS

    async def quote(self, lines: Sequence[CartLine], address: Address, shipping_method: str) -> Money | None:
        return None


Act = Callable[[Orders, SagaEngine], Awaitable[object]]


class OrderService:
    """One order in the order service."""

    def __init__(self, number: int, basket: tuple[tuple[UUID, int], ...], card: str, remembers: bool) -> None:
        self._first_id = (number + 1) << _IDS_OF_AN_ORDER
        self._request_id = f"request-{number}"
        self._peers = Peers(basket)
        self._card = card
        self._remembers = remembers
        self._loop = asyncio.new_event_loop()
        (placed,) = self.place(OrderState()).events
        assert isinstance(placed, OrderPlaced)
        self.order_id = placed.order_id

    def close(self) -> None:
        self._loop.close()

    def place(self, state: OrderState) -> Outcome[OrderState]:
        """The buyer orders; sent twice it is one order."""
        first_id = self._first_id + (0x8000 if state.rows.facts else 0)
        with _ids_from(first_id):
            return self._do(state, lambda orders, _: orders.place(self._command))

    @property
    def _command(self) -> PlaceOrder:
        return PlaceOrder(
            user_id=USER,
            request_id=self._request_id,
            destination=_ADDRESS,
            shipping_method="standard",
            payment_token=self._card,
        )

    def place_on(
        self,
        state: OrderState,
        carts: "CartService",
        cart: "CartState",
        others: order_memory.Rows,
        fate: Fate,
    ) -> tuple[Outcome[OrderState], "CartState"]:
        """Let a request to place the order do its next step, or its first, and come to the one after it.

        `others` are the other orders of the same cart. Returns what becomes of the cart as well.
        """
        placing = state.placing or Placing()
        till = Till(carts, cart, others, placing, fate)
        # One that comes again would place another order, if it were not for the cart and the order.
        again = state.rows.facts or any(claim.request_id == self._request_id for claim in cart.claims)
        with _ids_from(self._first_id + (0x8000 if again else 0)):
            outcome = self._do(
                replace(state, placing=None), lambda orders, _: orders.place(self._command), till=till
            )
        if till.suspended:
            placing = replace(placing, past=tuple(till.past))
            outcome = replace(outcome, state=replace(outcome.state, placing=placing))
        return outcome, till.cart

    def be_late(self, state: OrderState) -> OrderState:
        """So much time passes that what a request has claimed may be in the cart again."""
        if state.placing is None or not state.placing.has_claimed:
            return state
        return replace(state, placing=replace(state.placing, late=True))

    def cancel(self, state: OrderState, fate: Fate = Fate.ANSWERED) -> Outcome[OrderState]:
        """The buyer cancels; `fate` is what becomes of the question to shipping, if there is one."""
        buyer = Principal(str(USER))
        return self._do(
            state, lambda orders, _: orders.cancel(self.order_id, CHANGED_MY_MIND, buyer), fate=fate
        )

    def send_back(self, state: OrderState) -> Outcome[OrderState]:
        """The buyer wants to send one of the first line back."""
        order = state.order
        assert order is not None
        request = ReturnRequest((ReturnItem(order.lines[0].variant_id, 1),), "")
        number = len(order.returns)
        with _ids_from(self._first_id + 0x9000 + number):
            return self._do(
                state,
                lambda orders, _: orders.request_return(
                    self.order_id, f"return-{number}", request, Principal(str(USER))
                ),
            )

    def decide(
        self, state: OrderState, return_id: UUID, decision: str, payment: "PaymentState"
    ) -> Outcome[OrderState]:
        """Staff approve, reject or receive a return."""
        return self._do(
            state,
            lambda orders, _: getattr(orders, f"{decision}_return")(self.order_id, return_id, ""),
            payment=payment,
        )

    def ship(self, state: OrderState, payload: Payload) -> Outcome[OrderState]:
        """An event comes to shipping."""
        parcel, events = state.parcel.handle(payload, self.order_id, USER)
        return Outcome(replace(state, parcel=parcel), events)

    def scan(self, state: OrderState) -> Outcome[OrderState]:
        """The carrier scans the parcel: first when it takes it, then when it delivers it."""
        parcel, events = state.parcel.scan(self.order_id, USER)
        return Outcome(replace(state, parcel=parcel), events)

    def handle(
        self, state: OrderState, payload: Payload, position: int, payment: "PaymentState | None" = None
    ) -> Outcome[OrderState]:
        """An event comes."""

        def handle(orders: Orders, _: SagaEngine) -> Awaitable[object]:
            handler = order_events.handlers(orders).get(type(payload))
            return handler(_event(payload, position)) if handler else asyncio.sleep(0)

        return self._do(state, handle, payment=payment)

    def claims(self, state: OrderState) -> Sequence[Claim]:
        """Say what an instance may claim: the saga to be asked again, or because its deadline has passed."""
        times = {SOON, *(saga.deadline for saga in state.rows.sagas if saga.deadline)}
        return [claim for at in sorted(times) for claim in self._claims_at(state, at)]

    def claim(self, state: OrderState, claim: Claim) -> Outcome[OrderState]:
        """An instance claims the saga."""
        return Outcome(replace(state, claimed=claim))

    def take_up(
        self,
        state: OrderState,
        payment: "PaymentState | None" = None,
        fate: Fate = Fate.ANSWERED,
    ) -> Outcome[OrderState]:
        """The engine takes up what was claimed; `fate` is what becomes of a question to shipping."""
        assert state.claimed is not None
        return self._do(
            replace(state, claimed=None),
            lambda _, engine: engine.due.work_off(),
            state.claimed,
            payment=payment,
            fate=fate,
        )

    def drop_claim(self, state: OrderState) -> Outcome[OrderState]:
        """The instance dies with what it claimed."""
        return Outcome(replace(state, claimed=None))

    def _claims_at(self, state: OrderState, at: datetime) -> Iterable[Claim]:
        store = MemoryStore(state.rows)
        for saga in _drive(order_memory.DueSagas(lambda: store, _BACKOFF).claim_due(at, 1)):
            # That it falls due again later makes no difference to whoever has it.
            yield Claim(replace(levelled.saga(saga), due=NOW), at)

    def _do(
        self,
        state: OrderState,
        act: Act,
        claimed: Claim | None = None,
        till: "Till | None" = None,
        payment: "PaymentState | None" = None,
        fate: Fate = Fate.ANSWERED,
    ) -> Outcome[OrderState]:
        store = MemoryStore(state.rows, state.inbox if self._remembers else frozenset())
        clock = till or Clock(claimed.at if claimed else NOW)
        uow = memory_unit_of_work(
            (lambda: till.store(store)) if till else (lambda: store), order_memory.open_tx, clock
        )
        sagas: DueStore[Saga] = order_memory.DueSagas(lambda: store, _BACKOFF)
        if claimed:
            sagas = Claimed(claimed.saga, sagas)
        correlation = f"request {self._first_id >> _IDS_OF_AN_ORDER}"
        stub, shipping = PaymentStub(correlation, payment), ShippingStub(state.parcel, fate)
        its_calls: Any = stub  # it has those that order makes
        its_stops: Any = shipping
        asked = ports.Peers(peers.Payments(its_calls), peers.Shipping(its_stops))
        engine = SagaEngine(uow, sagas, asked, clock, _TIMEOUTS)
        views = order_memory.OrderViews((lambda: till.read(store)) if till else (lambda: store))
        its_carts: Any = till  # it has the calls that order makes
        carts = peers.Carts(its_carts) if till else self._peers
        placed_with = (carts, self._peers, self._peers, self._peers)
        orders = Orders(uow, views, engine, clock, _TARIFF, _TIMEOUTS, _LINKS, _RETURN_WINDOW, *placed_with)

        async def go() -> None:
            with bound("" if claimed else correlation):
                await act(orders, engine)
            await engine.asked()

        error = ""
        try:
            self._loop.run_until_complete(go())
        except (DomainError, AlreadyProcessed, Suspended):
            pass
        except Exception as raised:
            error = f"order: {raised!r}"
        problem = stub.refused or _problem("order", store, correlation, error)
        inbox = store.inbox if self._remembers else frozenset()
        rows = state.rows if store.rows is state.rows else levelled.orders(store.rows)
        after = OrderState(rows, inbox, state.claimed, state.placing, shipping.parcel)
        return Outcome(after, (*_payloads(store), *shipping.events), tuple(stub.asked), problem)


# ----------------------------------------------------------------------------------------------------- cart


@dataclass(frozen=True)
class CartState:
    """What the cart service keeps of the one cart, and how many of each variant were put into it in all.

    `lapses` counts how often a claim has lapsed.
    """

    items: tuple[Item, ...]
    put_in: frozenset[tuple[UUID, int]]
    claims: tuple[cart_model.Claim, ...] = ()
    inbox: frozenset[UUID] = frozenset()
    added: int = 0
    lapses: int = 0

    def at_last(self) -> Cart:
        """Return the cart as it will be found."""
        cart = Cart(USER, "USD", list(self.items), NOW, list(self.claims))
        cart.lapse(LAPSED)
        return cart


def filled(basket: Sequence[tuple[UUID, int]]) -> CartState:
    """A cart with so many of each variant."""
    items = [Item(UUID(int=key.int + 1000), key, key, quantity, _PRICE) for key, quantity in basket]
    return CartState(tuple(items), frozenset(basket))


class CartService:
    """The cart service, with the cart of the one shopper."""

    def __init__(self, service: type[Carts], remembers: bool) -> None:
        self._service = service
        self._remembers = remembers
        self._loop = asyncio.new_event_loop()

    def close(self) -> None:
        self._loop.close()

    def handle(self, state: CartState, payload: Any, position: int) -> Outcome[CartState]:
        """An event comes."""
        event = _event(payload, position)
        return self._do(state, lambda carts: cart_events.handlers(carts)[type(payload)](event))[0]

    def look(self, state: CartState) -> Outcome[CartState]:
        """Its owner looks at it when what was claimed is in it again."""
        outcome, _ = self._do(state, lambda carts: carts.get(USER), LAPSED)
        return replace(outcome, state=replace(outcome.state, lapses=state.lapses + 1))

    def add(self, state: CartState) -> Outcome[CartState]:
        """Its owner puts in one more of the first variant."""
        first = variant(0)
        with _ids_from(2000 + state.added):
            drive = self._loop.run_until_complete
            outcome, _ = self._do(state, lambda carts: carts.add(USER, first, first, 1), drive=drive)
        put_in = dict(state.put_in)
        put_in[first] += 1
        return replace(
            outcome, state=replace(outcome.state, put_in=frozenset(put_in.items()), added=state.added + 1)
        )

    def call(self, state: CartState, name: str, request: Message) -> tuple[CartState, Message]:
        """Order calls it. Raises DomainError as the service does."""
        outcome, answer = self._do(
            state, lambda carts: getattr(CartServicer(carts), name)(request, None), raises=True
        )
        return outcome.state, answer

    def _do(
        self,
        state: CartState,
        act: Callable[[Carts], Coroutine[Any, Any, Any] | Awaitable[Any]],
        at: datetime = NOW,
        raises: bool = False,
        drive: Callable[[Any], Any] | None = None,
    ) -> tuple[Outcome[CartState], Any]:
        cart = Cart(USER, "USD", list(state.items), NOW, list(state.claims))
        watched = {key: (0, None) for key, _ in state.put_in}  # prices that never change
        rows = cart_memory.Rows({USER: cart}, prices=watched)
        store = MemoryStore(rows, state.inbox if self._remembers else frozenset())
        clock, shelf = Clock(at), cart_memory.Shelf("USD")
        for key, _ in state.put_in:
            shelf.offers[key], shelf.stock[key] = cart_model.Offer(key, key, _PRICE), 1_000
        carts = self._service(
            memory_unit_of_work(lambda: store, cart_memory.open_tx("USD"), clock),
            cart_memory.CartReader(lambda: store, "USD"),
            cart_memory.PriceBook(lambda: store),
            shelf,
            shelf,
            clock,
            _CLAIM_FOR,
        )
        answer, error = None, ""
        try:
            answer = (drive or _drive)(act(carts))
        except AlreadyProcessed:
            pass
        except DomainError:
            if raises:
                raise
        except Exception as raised:
            error = f"cart: {raised!r}"
        after = store.rows.carts[USER]
        inbox = store.inbox if self._remembers else frozenset()
        changed = replace(state, items=tuple(after.items), claims=tuple(after.claims), inbox=inbox)
        return Outcome(changed, problem=error), answer


class Till:
    """The cart service and the store, as the placing of an order that goes on step by step reaches them.

    What it was told before it is told again; it is suspended at the step after the one whose fate is given.
    """

    def __init__(
        self,
        carts: CartService,
        cart: CartState,
        others: order_memory.Rows,
        placing: Placing,
        fate: Fate,
    ) -> None:
        self.cart = cart
        self.past = list(placing.past)
        self.suspended = False
        self._carts = carts
        self._others = others
        self._late = placing.late
        self._fate: Fate | None = fate
        self._at = 0

    def now(self) -> datetime:
        """Return the time at which the step that is done now was done."""
        return LAPSED if self._late and self._at == len(self.past) else NOW

    async def GetCartForCheckout(self, request: cart_pb2.GetCartForCheckoutRequest) -> Message:
        return self._call("GetCartForCheckout", request, cart_pb2.GetCartForCheckoutResponse)

    async def ClaimCart(self, request: cart_pb2.ClaimCartRequest) -> Message:
        return self._call("ClaimCart", request, cart_pb2.ClaimCartResponse)

    async def ReleaseCart(self, request: cart_pb2.ReleaseCartRequest) -> Message:
        return self._call("ReleaseCart", request, cart_pb2.ReleaseCartResponse)

    def store(self, orders: MemoryStore[order_memory.Rows]) -> MemoryStore[order_memory.Rows]:
        """Return the store as the transaction finds it."""
        self._take()
        return orders

    def read(self, orders: MemoryStore[order_memory.Rows]) -> MemoryStore[order_memory.Rows]:
        """Return the store as a statement outside of a transaction finds it."""
        return MemoryStore(order_memory.Rows((*orders.rows.facts, *self._others.facts)))

    def _call(self, name: str, request: Message, answer: type[Message]) -> Message:
        if self._at == len(self.past):
            fate = self._take()
            _CHECKS[type(request)](request)
            self.cart, answered = self._carts.call(self.cart, name, request)
            if fate is not Fate.ANSWERED:
                raise Unavailable("no answer")
            self.past.append(answered.SerializeToString(deterministic=True))
        self._at += 1
        return answer.FromString(self.past[self._at - 1])

    def _take(self) -> Fate:
        if self._fate is None:
            self.suspended = True
            raise Suspended("placing an order")
        fate, self._fate = self._fate, None
        return fate


# ------------------------------------------------------------------------------------------------ inventory


@dataclass(frozen=True)
class StockState:
    """What the inventory service keeps."""

    rows: inventory_memory.Rows
    inbox: frozenset[UUID] = frozenset()


def stocked(counts: Sequence[int]) -> StockState:
    """An inventory with so many of each variant."""
    stock = {variant(number): count for number, count in enumerate(counts)}
    return StockState(inventory_memory.stocked(stock, NOW))


class InventoryService:
    """The inventory service, whose stock all orders share."""

    def __init__(self, service: type[Inventory], remembers: bool) -> None:
        self._service = service
        self._remembers = remembers

    def handle(self, state: StockState, payload: Any, position: int) -> Outcome[StockState]:
        """An event comes."""
        store = MemoryStore(state.rows, state.inbox if self._remembers else frozenset())
        clock = Clock()
        inventory = self._service(
            memory_unit_of_work(lambda: store, inventory_memory.open_tx, clock),
            inventory_memory.StockReader(lambda: store),
            inventory_memory.FakeCatalog(),
            clock,
        )
        event, error = _event(payload, position), ""
        try:
            with bound(event.correlation_id):
                _drive(inventory_events.handlers(inventory)[type(payload)](event))
        except AlreadyProcessed:
            pass
        except Exception as raised:
            error = f"inventory can't handle {payload.TOPIC}: {raised!r}"
        problem = _problem("inventory", store, event.correlation_id, error)
        inbox = store.inbox if self._remembers else frozenset()
        return Outcome(StockState(store.rows, inbox), _payloads(store), (), problem)


# -------------------------------------------------------------------------------------------------- payment


@dataclass(frozen=True)
class Task:
    """A use case of payment that is under way: what for, what it saw so far, what it does next."""

    name: str
    argument: Any
    first_id: int
    past: tuple[Any, ...] = ()
    next_step: str = ""


class StaffRefund(StrEnum):
    """What staff may give back on their own."""

    PART = "refund a part by staff"
    PART_WITH_THE_SAGAS_KEY = "refund a part by staff, with the request id of the saga"
    ALL = "refund all by staff"


BRING_ON, GIVE_UP = "bring it on", "see whether to give up"
_NAMES = ("charge", "refund", "notice", BRING_ON, GIVE_UP, *StaffRefund)
# What nobody asks for, so that nobody says under which correlation id.
_LATE = ("notice", BRING_ON, GIVE_UP)


@dataclass(frozen=True)
class PaymentState:
    """One order's payment: the service's rows, the gateway's books, and what is under way."""

    rows: payment_memory.Rows = field(default_factory=payment_memory.Rows)
    bank: Bank = field(default_factory=Bank)
    tasks: tuple[Task, ...] = ()


@dataclass(frozen=True)
class PaymentDue:
    """A payment that was claimed to be brought on, as it was then."""

    row: payment_memory.Row

    @property
    def work(self) -> Payment:
        return payment_memory.payment_of(self.row)


@dataclass(frozen=True)
class RefundDue:
    """A refund that was claimed to be brought on, as it was then."""

    row: payment_memory.Row

    @property
    def work(self) -> Refund:
        return payment_memory.refund_of(self.row)


class PaymentService:
    """The payment of one order, and the gateway."""

    def __init__(
        self,
        order_id: UUID,
        service: type[Payments],
        store: type[payment_memory.Payments],
        gateway: type[Gateway],
    ) -> None:
        self._order_id = order_id
        self._service = service
        self._store = store
        self._gateway = gateway
        self._loop = asyncio.new_event_loop()

    def close(self) -> None:
        self._loop.close()

    def start(self, state: PaymentState, name: str, argument: Any) -> Outcome[PaymentState]:
        """A use case begins, and comes to its first step."""
        # Two that begin at the same moment make different things, and so must the ids be; but asked twice for
        # the same they may be the same.
        rows = len(state.rows.payments) + len(state.rows.refunds)
        first_id = self._order_id.int + 0x1000 * (1 + _NAMES.index(name)) + 0x10 * rows
        return self._go_on(state, Task(name, argument, first_id), None)

    def step(self, state: PaymentState, number: int, fate: Fate) -> Outcome[PaymentState]:
        """A use case does its next step, and comes to the one after it or to its end."""
        return self._go_on(self.die(state, number), state.tasks[number], fate)

    def die(self, state: PaymentState, number: int) -> PaymentState:
        """The instance dies in the middle of a use case."""
        tasks = state.tasks[:number] + state.tasks[number + 1 :]
        return replace(state, tasks=tasks)

    @staticmethod
    def fates(task: Task) -> tuple[Fate, ...]:
        """What may become of the next step; the first is what becomes of it if nothing is wrong."""
        return {STORE: (Fate.ANSWERED,), "find": (Fate.ANSWERED, Fate.UNREACHED)}.get(
            task.next_step, (Fate.ANSWERED, Fate.LOST, Fate.UNREACHED, Fate.LINGERS)
        )

    @staticmethod
    def due(state: PaymentState) -> Sequence[PaymentDue | RefundDue]:
        """Say what an instance may claim to bring it on."""
        store = MemoryStore(state.rows)
        claimed = _drive(payment_memory.Unsettled(lambda: store, _BACKOFF, _RETRY.lease).claim_due(SOON, 10))
        return [
            PaymentDue(levelled.payment_row(work, SOON))
            if isinstance(work, Payment)
            else RefundDue(levelled.refund_row(work, SOON))
            for work in claimed
        ]

    def by_staff(self, what: StaffRefund, payment_id: UUID) -> Question:
        """What staff ask to give something back."""
        request_ids = {StaffRefund.PART_WITH_THE_SAGAS_KEY: f"cancel-{self._order_id}"}
        request = payment_pb2.RefundPaymentRequest(
            payment_id=str(payment_id),
            request_id=request_ids.get(what, what.name),
            amount=None if what is StaffRefund.ALL else to_proto(_STAFF_REFUND),
            reason="kindness",
        )
        return Question("refund", request.SerializeToString(deterministic=True))

    def _go_on(self, state: PaymentState, task: Task, fate: Fate | None) -> Outcome[PaymentState]:
        store = MemoryStore(state.rows)
        run = Run(store, state.bank, task.past, fate)
        clock = Clock(_MUCH_LATER if task.name == GIVE_UP else NOW)
        correlation = _correlation_of(self._order_id)
        tasks, error = state.tasks, ""
        drive = self._loop.run_until_complete if isinstance(task.argument, PaymentDue | RefundDue) else _drive
        by_staff = task.name in tuple(StaffRefund)
        caller = Principal("staff", acts_as_staff=True) if by_staff else Principal(service="order")
        late = task.name in _LATE
        try:
            with _ids_from(task.first_id), bound("" if late else correlation), acting_as(caller):
                drive(self._use_case(run, task, clock))
        except Suspended as suspended:
            tasks = tuple(
                sorted((*tasks, replace(task, past=tuple(run.past), next_step=suspended.next_step)), key=repr)
            )
        except DomainError:
            pass  # the caller is told, and asks again
        except Exception as raised:
            error = f"payment: {raised!r}"
        rows = state.rows if store.rows is state.rows else levelled.payments(store.rows, clock.now())
        problem = _problem("payment", store, correlation, error)
        return Outcome(PaymentState(rows, run.bank, tasks), _payloads(store), (), problem)

    def _use_case(self, run: Run, task: Task, clock: Clock) -> Coroutine[Any, Any, object]:
        def open_tx(view: MemoryStore[payment_memory.Rows], outbox: Outbox) -> PaymentTx:
            return PaymentTx(self._store(lambda: view, outbox), payment_memory.Refunds(lambda: view))

        gateway = self._gateway(run)
        unsettled: DueStore[Payment | Refund] = payment_memory.Unsettled(run.store, _BACKOFF, _RETRY.lease)
        if isinstance(task.argument, PaymentDue | RefundDue):
            unsettled = Claimed(task.argument.work, unsettled)
        payments = self._service(
            memory_unit_of_work(run.store, open_tx, clock),
            self._store(run.store),
            payment_memory.Refunds(run.store),
            unsettled,
            gateway,
            clock,
            _RETRY,
            _BACKOFF,
        )
        match task.argument:
            case Question("charge", message):
                charge = payment_pb2.ProcessPaymentRequest.FromString(message)
                return PaymentServicer(payments).ProcessPayment(charge, None)
            case Question("refund", message):
                refund = payment_pb2.RefundPaymentRequest.FromString(message)
                return PaymentServicer(payments).RefundPayment(refund, None)
            case Charge() | GatewayRefund() as subject:
                return payments.receive_notice(*gateway.notice(subject))
            case _:
                return payments.unsettled.work_off()


T = TypeVar("T")


def _drive(work: Coroutine[Any, Any, T] | Awaitable[T]) -> T:
    """Run a coroutine that waits for nothing outside of the model, and return its result."""
    try:
        next(work.__await__())
    except StopIteration as ended:
        result: T = ended.value
        return result
    raise AssertionError("it waits for something that the model does not know")
