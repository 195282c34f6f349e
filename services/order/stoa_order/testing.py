"""The orders in memory, for tests of use cases and for the model check; see `stoa_chassis.memory`.

They refuse what the constraints of the migrations refuse. One suite, tests/test_repository.py, runs on these
and on PostgreSQL. At the end are examples: an order, and what other services answer about it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from stoa_chassis.context import correlation_id, deadline
from stoa_chassis.due import Backoff
from stoa_chassis.emails import email_key
from stoa_chassis.errors import Unavailable
from stoa_chassis.ids import new_id
from stoa_chassis.memory import MemoryStore
from stoa_chassis.outbox import Outbox
from stoa_chassis.uow import LostRace
from stoa_contracts.money import Money
from stoa_events import (
    InventoryOutOfStock,
    InventoryOutOfStockItem,
    InventoryReserved,
    PaymentCaptured,
    PaymentFailed,
    PaymentRefunded,
    PaymentSuccessful,
    ShipmentCreated,
    ShipmentStatusUpdated,
)
from stoa_order import facts, ports
from stoa_order.links import GuestLinks
from stoa_order.model import (
    ACCOUNT,
    Address,
    CartClaim,
    CartLine,
    Checkout,
    Contact,
    Line,
    Offer,
    Order,
    OrderNotFound,
    OrderView,
    PersonErased,
    Recorded,
    Request,
    ReturnRefundMade,
    Saga,
    ShipmentStatus,
    ShipmentStopped,
    ShipmentUnderWay,
    Tariff,
)
from stoa_order.returns import Return, ReturnItem, ReturnRequest, ReturnView


@dataclass(frozen=True)
class Rows:
    """What the order service keeps: the facts of each order, the sagas, and the accounts of guests.

    Views are made of the facts.
    """

    facts: tuple[tuple[UUID, Recorded], ...] = ()
    sagas: tuple[Saga, ...] = ()
    guests: tuple[tuple[UUID, UUID | None], ...] = ()


# Where a repository finds its rows: the view of a transaction, or the store for a statement outside of one.
Open = Callable[[], MemoryStore[Rows]]


class Orders:
    """The orders, to decide on them."""

    def __init__(self, store: Open, outbox: Outbox) -> None:
        self._store = store
        self._outbox = outbox

    async def get(self, order_id: UUID) -> Order:
        """Make an order of its recorded facts, with the saga that it has. Raises OrderNotFound."""
        store = self._store()
        recorded = [fact for key, fact in store.rows.facts if key == order_id]
        if not recorded:
            raise OrderNotFound(f"order {order_id} not found")
        order = Order.replay(order_id, recorded)
        order.saga = next((saga for saga in store.rows.sagas if saga.order_id == order_id), None)
        return order

    async def save(self, order: Order, saga: Saga | None) -> None:
        """Append what is new of an order, store its saga (or that it has none), and publish its events.

        An order of which nothing is new is left as it is. Raises LostRace if somebody else changed it since
        it was read, and RequestTaken. Of an order whose person was erased the facts before are changed, so
        that they tell nobody any more who that was.
        """
        if not order.changes:
            return
        store = self._store()
        self._check(store, order)
        new = tuple((order.order_id, recorded) for recorded in order.changes)
        kept = (*store.rows.facts, *new)
        if any(isinstance(recorded.fact, PersonErased) for recorded in order.changes):
            kept = tuple(
                (key, _without_person(recorded) if key == order.order_id else recorded)
                for key, recorded in kept
            )
        store.rows = replace(store.rows, facts=kept, sagas=_with(store.rows.sagas, order.order_id, saga))
        order.changes.clear()
        order.saga = saga
        self._outbox.collect(order)

    async def of_buyer(self, user_id: UUID) -> Sequence[UUID]:
        """Return the ids of all orders that belong to a user, oldest first."""
        return sorted(order.order_id for order in _orders(self._store()) if order.user_id == user_id)

    async def of_address(self, email: str) -> Sequence[UUID]:
        """Return the ids of the guests' orders about which this address is written to, oldest first."""
        return sorted(
            order.order_id
            for order in _orders(self._store())
            if order.contact.email and email_key(order.contact.email) == email_key(email)
        )

    def _check(self, store: MemoryStore[Rows], order: Order) -> None:
        known = {(key, recorded.version) for key, recorded in store.rows.facts}
        if any((order.order_id, recorded.version) in known for recorded in order.changes):
            if order.is_new:
                raise ports.RequestTaken(order.request_id)
            raise LostRace(f"order {order.order_id}")
        for other in _orders(store):
            same = (other.user_id, other.request_id) == (order.user_id, order.request_id)
            if same and other.order_id != order.order_id:
                raise ports.RequestTaken(order.request_id)
        for line in order.lines:
            store.check(line.quantity > 0, "order_items_quantity_check")
            store.check(line.price > Money.zero(line.price.currency), "order_items_price_check")


class Guests:
    """Who has become of guests. Two transactions that touch the same guest come one after the other."""

    def __init__(self, store: Open) -> None:
        self._store = store

    async def account_of(self, guest_id: UUID) -> UUID | None:
        """Return the account that a guest has become, if she has."""
        return self._touch(guest_id, None)

    async def merge(self, guest_id: UUID, user_id: UUID) -> None:
        """Note that a guest has become an account; the first one counts."""
        self._touch(guest_id, user_id)

    def _touch(self, guest_id: UUID, user_id: UUID | None) -> UUID | None:
        store = self._store()
        known = dict(store.rows.guests)
        account = known.get(guest_id) or user_id
        if known.get(guest_id, guest_id) != account:
            store.rows = replace(store.rows, guests=tuple({**known, guest_id: account}.items()))
        return account


def open_tx(view: MemoryStore[Rows], outbox: Outbox) -> ports.Tx:
    """Put the repositories on the view of a transaction."""
    return ports.Tx(Orders(lambda: view, outbox), Guests(lambda: view))


@dataclass(frozen=True)
class OrderViews:
    """The orders, as they are shown."""

    store: Open

    async def get(self, order_id: UUID) -> OrderView | None:
        """Read one order, if it was placed."""
        return next((order.view for order in _orders(self.store()) if order.order_id == order_id), None)

    async def by_request(self, user_id: UUID, request_id: str) -> Order | None:
        """Read the order that a buyer's request led to, if it did, with what was asked for."""
        for order in _orders(self.store()):
            if (order.user_id, order.request_id) == (user_id, request_id):
                return order
        return None

    async def list(
        self, *, user_id: UUID | None, status: str | None, before: UUID | None, limit: int
    ) -> Sequence[OrderView]:
        """Read orders, newest first, that come after `before` in that order."""
        found = [
            order.view
            for order in sorted(_orders(self.store()), key=lambda order: order.order_id, reverse=True)
            if user_id in (None, order.user_id)
            and status in (None, order.status.value)
            and (before is None or order.order_id < before)
        ]
        return found[:limit]

    async def returns_of(self, order_id: UUID, *, after: UUID | None, limit: int) -> Sequence[Return]:
        """Read the returns of an order, oldest first, that come after `after` in that order."""
        found = [
            view.return_
            for view in _returns(self.store())
            if view.order_id == order_id and (after is None or view.return_.return_id > after)
        ]
        return found[:limit]

    async def returns(self, *, status: str | None, before: UUID | None, limit: int) -> Sequence[ReturnView]:
        """Read the returns of all orders, newest first, that come after `before` in that order."""
        found = [
            view
            for view in reversed(_returns(self.store()))
            if status in (None, view.return_.status.value)
            and (before is None or view.return_.return_id < before)
        ]
        return found[:limit]


@dataclass(frozen=True)
class DueSagas:
    """The sagas, which fall due until their orders are settled, and at the latest at their deadlines."""

    store: Open
    backoff: Backoff

    async def claim_due(self, now: datetime, limit: int) -> Sequence[Saga]:
        """Take at most `limit` that are due: nobody else takes them before they are due again."""
        store = self.store()
        due = sorted((saga for saga in store.rows.sagas if saga.due <= now), key=lambda saga: saga.due)
        return [self._claim(store, saga, now) for saga in due[:limit]]

    def _claim(self, store: MemoryStore[Rows], saga: Saga, now: datetime) -> Saga:
        due = now + self.backoff.at_most(saga.attempts)
        if saga.deadline is not None and now < saga.deadline < due:
            due = saga.deadline
        claimed = replace(saga, due=due, attempts=saga.attempts + 1)
        _put(store, claimed)
        return claimed

    async def next_due(self) -> datetime | None:
        """Return when the next falls due; None if all orders are settled."""
        return min((saga.due for saga in self.store().rows.sagas), default=None)

    async def put_off(self, saga: Saga, until: datetime) -> None:
        """Let one fall due at another time, unless its order was settled meanwhile."""
        store = self.store()
        for known in store.rows.sagas:
            if known.order_id == saga.order_id:
                _put(store, replace(known, due=until))


def _orders(store: MemoryStore[Rows]) -> list[Order]:
    by_order: dict[UUID, list[Recorded]] = {}
    for key, recorded in store.rows.facts:
        by_order.setdefault(key, []).append(recorded)
    return [Order.replay(key, recorded) for key, recorded in by_order.items()]


def _returns(store: MemoryStore[Rows]) -> list[ReturnView]:
    """Return the returns of all orders, oldest first."""
    views = [ReturnView(order.order_id, made) for order in _orders(store) for made in order.returns]
    return sorted(views, key=lambda view: view.return_.return_id)


def _without_person(recorded: Recorded) -> Recorded:
    name = facts.name_of(recorded.fact)
    return replace(recorded, fact=facts.load(name, facts.without_person(facts.dump(recorded.fact))))


def _with(sagas: tuple[Saga, ...], order_id: UUID, saga: Saga | None) -> tuple[Saga, ...]:
    """Store a saga unless the one that is there is at the same step: that one keeps its times."""
    others = tuple(known for known in sagas if known.order_id != order_id)
    if saga is None:
        return others
    known = next((known for known in sagas if known.order_id == order_id), None)
    return sagas if known is not None and known.step == saga.step else (*others, saga)


def _put(store: MemoryStore[Rows], saga: Saga) -> None:
    sagas = tuple(saga if known.order_id == saga.order_id else known for known in store.rows.sagas)
    store.rows = replace(store.rows, sagas=sagas)


NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
ADDRESS = Address("Ada Lovelace", "1 Engine Row", "Attic", "London", "Marylebone", "N1 9GU", "GB")
TARIFF = Tariff(
    {"standard": Money(Decimal("4.90"), "USD"), "express": Money(Decimal("14.90"), "USD")}, Decimal("0.08")
)
LINKS = GuestLinks("the key of the shop", timedelta(days=365))
WINDOW = timedelta(days=30)
GUEST = Contact("Ann@Example.com", "de")


@dataclass
class FakePeers:
    """The cart, catalog, user, shipping and payment services, as far as an order needs them.

    `asked_for` has the correlation id and the deadline under which payment or shipping was asked each time;
    while payment is `down` it answers nothing, and nor does shipping while it is `shipping_down`. All have
    the same `cart`, which stays as full as it is; `claims` has the order for which each request of a user has
    claimed it. Shipping quotes nothing unless it has a `quoted` amount; parcels `under_way` can't be stopped.
    """

    cart: Sequence[CartLine] = ()
    claims: dict[tuple[UUID, str], UUID] = field(default_factory=dict)
    lapsed: Sequence[UUID] = ()
    ttl: timedelta = timedelta(minutes=1)
    charged: list[tuple[UUID, str]] = field(default_factory=list)
    refunded: list[UUID] = field(default_factory=list)
    captured: list[UUID] = field(default_factory=list)
    asked_for: list[tuple[str, float | None]] = field(default_factory=list)
    down: bool = False
    quoted: Money | None = None
    stopped: list[UUID] = field(default_factory=list)
    shipping_down: bool = False
    under_way: set[UUID] = field(default_factory=set)
    returns: list[tuple[UUID, Money]] = field(default_factory=list)

    async def checkout(self, user_id: UUID, request_id: str) -> Checkout:
        """Return the cart, whoever's it is."""
        return Checkout(self.cart, "1", self.claims.get((user_id, request_id)), self.lapsed)

    async def claim(self, user_id: UUID, request_id: str, order_id: UUID, version: str) -> CartClaim:
        """Let a request claim the cart for the order that it named first."""
        return CartClaim(self.claims.setdefault((user_id, request_id), order_id), self.ttl)

    async def release(self, user_id: UUID, order_id: UUID) -> None:
        """Let a claim go."""
        self.claims = {request: claimed for request, claimed in self.claims.items() if claimed != order_id}

    async def offers(self, variant_ids: Sequence[UUID]) -> Sequence[Offer]:
        """Return all in the cart at the price that it shows."""
        return [Offer(line.product_id, line.variant_id, "Lamp", line.price) for line in self.cart]

    async def address(self, user_id: UUID, address_id: UUID) -> Address:
        """Return an address, whoever's it is."""
        return ADDRESS

    async def quote(self, lines: Sequence[CartLine], address: Address, shipping_method: str) -> Money | None:
        """Return the quoted amount, whatever is sent where."""
        return self.quoted

    async def stop(self, order: Order) -> ShipmentStopped | ShipmentUnderWay:
        """Take note of a stop. Raises Unavailable while shipping is down."""
        self.stopped.append(order.order_id)
        self.asked_for.append((correlation_id(), deadline()))
        if self.shipping_down:
            raise Unavailable("shipping is down")
        return ShipmentUnderWay() if order.order_id in self.under_way else ShipmentStopped()

    async def refund_return(self, order: Order, return_: Return) -> ReturnRefundMade | None:
        """Take note of a return's refund, which is made at once. Raises Unavailable while payment is down."""
        self.returns.append((return_.return_id, return_.refund))
        self._ask()
        return ReturnRefundMade(return_.return_id, return_.refund)

    async def charge(self, order: Order, payment_token: str) -> None:
        """Take note of a charge. Raises Unavailable while payment is down."""
        self.charged.append((order.order_id, payment_token))
        self._ask()

    async def capture(self, order: Order) -> None:
        """Take note of a capture. Raises Unavailable while payment is down."""
        self.captured.append(order.order_id)
        self._ask()

    async def refund(self, order: Order) -> None:
        """Take note of a refund. Raises Unavailable while payment is down."""
        self.refunded.append(order.order_id)
        self._ask()

    def _ask(self) -> None:
        self.asked_for.append((correlation_id(), deadline()))
        if self.down:
            raise Unavailable("payment is down")


def a_line(price: str = "19.90", quantity: int = 2) -> Line:
    """Return a line of an order."""
    return Line(new_id(), new_id(), new_id(), "Lamp", quantity, Money(Decimal(price), "USD"))


def an_order(
    *lines: Line, user_id: UUID | None = None, request_id: str = "request", contact: Contact = ACCOUNT
) -> Order:
    """Return an order that was just placed."""
    order_id, lines = new_id(), lines or (a_line(),)
    return Order.place(
        order_id=order_id,
        user_id=user_id or new_id(),
        request_id=request_id,
        request=Request.of(order_id, ADDRESS, "express", "tok_visa", contact),
        lines=lines,
        amounts=TARIFF.amounts(lines, "express"),
        shipping_address=ADDRESS,
        shipping_method="express",
        now=NOW,
        contact=contact,
        access_token=LINKS.secret(order_id, NOW) if contact.email else "",
    )


def a_confirmed_order(*lines: Line, contact: Contact = ACCOUNT) -> Order:
    """Return an order whose stock and payment are there."""
    order = an_order(*(lines or (a_line(), a_line("7.00", 3))), contact=contact)
    order.on_inventory_reserved(reserved(order), NOW + timedelta(seconds=1))
    order.on_payment_successful(paid(order), NOW + timedelta(seconds=2))
    return order


def a_delivered_order(*lines: Line) -> Order:
    """Return an order that is with its buyer."""
    order = a_confirmed_order(*lines)
    order.on_shipment_created(parcel(order), NOW + timedelta(seconds=3))
    for second, status in enumerate((ShipmentStatus.IN_TRANSIT, ShipmentStatus.DELIVERED), 4):
        scan = scanned(order, status, NOW + timedelta(seconds=second))
        order.on_shipment_status_updated(scan, NOW + timedelta(seconds=second))
    return order


def a_received_return() -> tuple[Order, Return]:
    """Return an order, and what came back of it and is to be refunded."""
    order = a_delivered_order()
    item = ReturnItem(order.lines[0].variant_id, 1)
    made = order.request_return("r", ReturnRequest((item,), "too dark"), WINDOW, NOW)
    order.approve_return(made.return_id, "", NOW)
    return order, order.receive_return(made.return_id, "", NOW)


def reserved(order: Order | OrderView) -> InventoryReserved:
    """Inventory promises all items."""
    return InventoryReserved(order_id=order.order_id, items=())


def out_of_stock(order: Order | OrderView) -> InventoryOutOfStock:
    """Inventory has none of the first item."""
    line = order.lines[0]
    item = InventoryOutOfStockItem(
        product_id=line.product_id, variant_id=line.variant_id, requested=line.quantity, available=0
    )
    return InventoryOutOfStock(order_id=order.order_id, items=(item,))


def paid(order: Order | OrderView, *, captured: bool = True) -> PaymentSuccessful:
    """The card was charged, or the amount is held."""
    return PaymentSuccessful(
        payment_id=new_id(),
        order_id=order.order_id,
        user_id=order.user_id,
        amount=order.amounts.total,
        brand="visa",
        last4="4242",
        captured=captured,
    )


def taken(order: Order | OrderView, payment_id: UUID) -> PaymentCaptured:
    """What was held is taken."""
    return PaymentCaptured(
        payment_id=payment_id, order_id=order.order_id, user_id=order.user_id, amount=order.amounts.total
    )


def declined(order: Order | OrderView) -> PaymentFailed:
    """The card was not charged."""
    return PaymentFailed(
        payment_id=new_id(),
        order_id=order.order_id,
        user_id=order.user_id,
        amount=order.amounts.total,
        reason="card_declined",
        brand="visa",
        last4="0002",
    )


def refunded(order: Order | OrderView, payment_id: UUID, *, fully: bool = True) -> PaymentRefunded:
    """Money was given back, all of it or only a part."""
    return PaymentRefunded(
        payment_id=payment_id,
        refund_id=new_id(),
        order_id=order.order_id,
        user_id=order.user_id,
        amount=order.amounts.total,
        total_refunded=order.amounts.total,
        fully_refunded=fully,
    )


def parcel(order: Order | OrderView, tracking_id: str = "1Z999AA10123456784") -> ShipmentCreated:
    """A carrier has booked the parcel."""
    return ShipmentCreated(
        shipment_id=new_id(),
        order_id=order.order_id,
        user_id=order.user_id,
        carrier="ups",
        tracking_id=tracking_id,
        tracking_url=f"https://ups.example/{tracking_id}",
        shipping_method="express",
        estimated_delivery=NOW + timedelta(days=1),
    )


def scanned(
    order: Order | OrderView, status: ShipmentStatus, at: datetime, tracking_id: str = "1Z999AA10123456784"
) -> ShipmentStatusUpdated:
    """The carrier has scanned the parcel, or shipping has stopped it."""
    return ShipmentStatusUpdated(
        shipment_id=new_id(),
        order_id=order.order_id,
        user_id=order.user_id,
        carrier="ups",
        tracking_id=tracking_id,
        status=status.value,
        description="",
        location="",
        at=at,
    )
