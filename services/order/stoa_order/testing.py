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
    PaymentFailed,
    PaymentRefunded,
    PaymentSuccessful,
)
from stoa_order import ports
from stoa_order.model import (
    Address,
    CartClaim,
    CartLine,
    Checkout,
    Line,
    Offer,
    Order,
    OrderNotFound,
    OrderView,
    Recorded,
    Request,
    Saga,
    Tariff,
)


@dataclass(frozen=True)
class Rows:
    """What the order service keeps: the facts of each order, and the sagas. Views are made of the facts."""

    facts: tuple[tuple[UUID, Recorded], ...] = ()
    sagas: tuple[Saga, ...] = ()


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
        it was read, and RequestTaken.
        """
        if not order.changes:
            return
        store = self._store()
        self._check(store, order)
        new = tuple((order.order_id, recorded) for recorded in order.changes)
        store.rows = Rows((*store.rows.facts, *new), _with(store.rows.sagas, order.order_id, saga))
        order.changes.clear()
        order.saga = saga
        self._outbox.collect(order)

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


def open_tx(view: MemoryStore[Rows], outbox: Outbox) -> ports.Tx:
    """Put the repositories on the view of a transaction."""
    return ports.Tx(Orders(lambda: view, outbox))


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
        pause: timedelta = min(self.backoff.first * 2 ** min(saga.attempts, 20), self.backoff.longest)
        due = now + pause
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


@dataclass
class FakePeers:
    """The cart, catalog, user and payment services, as far as an order needs them.

    `asked_for` has the correlation id and the deadline under which payment was asked each time; while payment
    is `down` it answers nothing. Everybody has the same `cart`, which stays as full as it is; `claims` has
    the order for which each request of a user has claimed it.
    """

    cart: Sequence[CartLine] = ()
    claims: dict[tuple[UUID, str], UUID] = field(default_factory=dict)
    lapsed: Sequence[UUID] = ()
    ttl: timedelta = timedelta(minutes=1)
    charged: list[tuple[UUID, str]] = field(default_factory=list)
    refunded: list[UUID] = field(default_factory=list)
    asked_for: list[tuple[str, float | None]] = field(default_factory=list)
    down: bool = False

    async def checkout(self, user_id: UUID, request_id: str) -> Checkout:
        """Return the cart, whoever's it is."""
        return Checkout(self.cart, "1", self.claims.get((user_id, request_id)), self.lapsed)

    async def claim(self, user_id: UUID, request_id: str, order_id: UUID, version: str) -> CartClaim:
        """Let a request claim the cart for the order that it named first."""
        return CartClaim(self.claims.setdefault((user_id, request_id), order_id), self.ttl)

    async def offers(self, variant_ids: Sequence[UUID]) -> Sequence[Offer]:
        """Return all in the cart at the price that it shows."""
        return [Offer(line.product_id, line.variant_id, "Lamp", line.price) for line in self.cart]

    async def address(self, user_id: UUID, address_id: UUID) -> Address:
        """Return an address, whoever's it is."""
        return ADDRESS

    async def charge(self, order: Order, payment_token: str) -> None:
        """Take note of a charge. Raises Unavailable while payment is down."""
        self.charged.append((order.order_id, payment_token))
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


def an_order(*lines: Line, user_id: UUID | None = None, request_id: str = "request") -> Order:
    """Return an order that was just placed."""
    order_id, lines = new_id(), lines or (a_line(),)
    return Order.place(
        order_id=order_id,
        user_id=user_id or new_id(),
        request_id=request_id,
        request=Request.of(order_id, ADDRESS, "express", "tok_visa"),
        lines=lines,
        amounts=TARIFF.amounts(lines, "express"),
        shipping_address=ADDRESS,
        shipping_method="express",
        now=NOW,
    )


def a_confirmed_order() -> Order:
    """Return an order whose stock and payment are there: each of its fields has a value."""
    order = an_order(a_line(), a_line("7.00", 3))
    order.on_inventory_reserved(reserved(order), NOW + timedelta(seconds=1))
    order.on_payment_successful(paid(order), NOW + timedelta(seconds=2))
    return order


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


def paid(order: Order | OrderView) -> PaymentSuccessful:
    """The card was charged."""
    return PaymentSuccessful(
        payment_id=new_id(),
        order_id=order.order_id,
        user_id=order.user_id,
        amount=order.amounts.total,
        brand="visa",
        last4="4242",
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
