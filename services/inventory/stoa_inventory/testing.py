"""The stores of inventory in memory, for tests of use cases and for the model check; see
`stoa_chassis.memory`.

They refuse what the constraints of the migrations refuse. One suite, tests/test_repository.py, runs on these
and on PostgreSQL.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

from stoa_chassis.memory import MemoryStore
from stoa_chassis.outbox import Outbox
from stoa_inventory import ports
from stoa_inventory.model import Adjustment, Hold, HoldStatus, Movement, MovementKind, NotReserved, Stock

K = TypeVar("K")
V = TypeVar("V")

StockRow: TypeAlias = tuple[UUID, int, int, int, datetime, bool, bool, int]
"""A product, its variant's stock, how much of it is reserved, the threshold, when it changed, whether it is
on sale, whether it can be bought as it was last published, and in which version."""

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)  # since when a variant is counted that nothing has changed yet
_THRESHOLD = 5


@dataclass(frozen=True)
class Rows:
    """What inventory keeps, each table sorted by its keys: immutable, and can be compared.

    Of the movements only the sums are kept, so that states that differ in nothing but the way to them are the
    same.
    """

    products: tuple[tuple[UUID, int], ...] = ()
    """The version of each product that is known."""
    stocks: tuple[tuple[UUID, StockRow], ...] = ()
    holds: tuple[tuple[UUID, tuple[HoldStatus, datetime]], ...] = ()
    reservations: tuple[tuple[tuple[UUID, UUID], tuple[int, HoldStatus]], ...] = ()
    """By order and variant: how many were promised, and what became of them."""
    moved: tuple[tuple[UUID, tuple[int, int]], ...] = ()
    """The sums of the movements of each variant: of its stock, and of what is reserved."""
    returned: tuple[tuple[tuple[UUID, UUID], int], ...] = ()
    """By order and variant: how many came back."""
    adjustments: tuple[tuple[tuple[UUID, str], Adjustment], ...] = ()
    """By variant and request."""

    def counts(self, variant_id: UUID) -> tuple[int, int]:
        """Return the stock of a variant, and how much of it is reserved."""
        _, stock, reserved, *_ = dict(self.stocks)[variant_id]
        return stock, reserved


def stocked(counts: Mapping[UUID, int], at: datetime = _EPOCH) -> Rows:
    """Return a store with so many of some variants, each its own product."""
    return Rows(
        stocks=_sorted(
            {key: (key, count, 0, _THRESHOLD, at, True, count > 0, 1) for key, count in counts.items()}
        ),
        moved=_sorted({key: (count, 0) for key, count in counts.items()}),
    )


# Where a repository finds its rows: the view of a transaction, or the store for a statement outside of one.
Open = Callable[[], MemoryStore[Rows]]


@dataclass
class Stocks:
    """The stock of each variant that was ever sold."""

    store: MemoryStore[Rows]
    outbox: Outbox

    async def add(self, product_id: UUID, variant_ids: Iterable[UUID]) -> None:
        """Begin to count variants, from zero; those that are counted already stay as they are."""
        rows = self.store.rows
        new = dict.fromkeys(variant_ids, (product_id, 0, 0, _THRESHOLD, _EPOCH, True, False, 0))
        self.store.rows = replace(rows, stocks=_sorted({**new, **dict(rows.stocks)}))

    async def note_version(self, product_id: UUID, version: int) -> bool:
        """Note the version of a product; tell whether it is a later one than was noted."""
        rows = self.store.rows
        products = dict(rows.products)
        if products.get(product_id, version - 1) >= version:
            return False
        self.store.rows = replace(rows, products=_sorted({**products, product_id: version}))
        return True

    async def lock_product(self, product_id: UUID) -> dict[UUID, Stock]:
        """Read the stock of the variants that a product has or had, locked as by `lock`."""
        rows = self.store.rows
        return _read(rows, (key for key, row in rows.stocks if row[0] == product_id))

    async def lock(self, variant_ids: Iterable[UUID]) -> dict[UUID, Stock]:
        """Read the stock of variants, which nobody else changes until the transaction ends."""
        return _read(self.store.rows, variant_ids)

    async def adjustment(self, variant_id: UUID, request_id: str) -> Adjustment | None:
        """Read the adjustment that a request led to, if it did."""
        return dict(self.store.rows.adjustments).get((variant_id, request_id))

    async def save(self, stock: Stock) -> None:
        """Store a locked stock with its movements, and publish its events."""
        _write(self.store, stock)
        self.outbox.collect(stock)


@dataclass
class Holds:
    """What orders hold of the stock; one for an order."""

    store: MemoryStore[Rows]
    outbox: Outbox

    async def add(self, hold: Hold) -> bool:
        """Store the hold of an order, still on nothing, unless the order has one; tell whether it was."""
        holds = dict(self.store.rows.holds)
        if hold.order_id in holds:
            return False
        holds[hold.order_id] = hold.status, hold.updated_at
        self.store.rows = replace(self.store.rows, holds=_sorted(holds))
        return True

    async def lock(self, order_id: UUID) -> Hold:
        """Read the hold of an order, which nobody else changes until the transaction ends.

        Raises NotReserved if the order has none.
        """
        rows = self.store.rows
        for known, (status, updated_at) in rows.holds:
            if known == order_id:
                quantities = {key[1]: quantity for key, (quantity, _) in rows.reservations if key[0] == known}
                return Hold(order_id, status, updated_at, quantities)
        raise NotReserved(f"order {order_id} has no stock here: it is not known")

    async def returned(self, order_id: UUID) -> Mapping[UUID, int]:
        """Read how many of each variant came back from an order whose hold is locked."""
        return {key[1]: quantity for key, quantity in self.store.rows.returned if key[0] == order_id}

    async def save(self, hold: Hold, stocks: Iterable[Stock]) -> None:
        """Store a changed hold with the locked stocks that it changed, and publish the events of all."""
        moved = [stock for stock in stocks if stock.movements]
        for stock in moved:
            _write(self.store, stock)
        self._write(hold)
        self.outbox.collect(hold, *moved)

    def _write(self, hold: Hold) -> None:
        rows = self.store.rows
        holds, reservations, counted = dict(rows.holds), dict(rows.reservations), dict(rows.stocks)
        for variant_id, quantity in hold.quantities.items():
            self.store.check(hold.order_id in holds, "reservations_order_id_fkey")
            self.store.check(variant_id in counted, "reservations_variant_id_fkey")
            self.store.check(quantity > 0, "reservations_quantity_check")
            self.store.check(hold.status is not HoldStatus.REFUSED, "reservations_status_check")
            reservations[hold.order_id, variant_id] = quantity, hold.status
        if hold.order_id in holds:
            holds[hold.order_id] = hold.status, hold.updated_at
        self.store.rows = replace(rows, holds=_sorted(holds), reservations=_sorted(reservations))


def open_tx(view: MemoryStore[Rows], outbox: Outbox) -> ports.Tx:
    """Put the repositories on the view of a transaction."""
    return ports.Tx(Stocks(view, outbox), Holds(view, outbox))


@dataclass
class StockReader:
    """Reads stock outside of a transaction."""

    store: Open

    async def get(self, variant_ids: Iterable[UUID]) -> dict[UUID, Stock]:
        """Read the stock of variants; those that are not counted are left out."""
        return _read(self.store().rows, variant_ids)

    async def unannounced(self, limit: int) -> Sequence[UUID]:
        """Return variants that can or can't be bought otherwise than was last published."""
        rows = self.store().rows
        stocks = _read(rows, (key for key, _ in rows.stocks))
        return sorted(key for key, stock in stocks.items() if stock.announced != stock.in_stock)[:limit]

    async def list(self, *, low_only: bool, after: tuple[int, UUID] | None, limit: int) -> Sequence[Stock]:
        """Read stock, the scarcest first, that comes after (available, variant id) in that order."""
        rows = self.store().rows
        stocks = _read(rows, (key for key, _ in rows.stocks)).values()
        found = [
            stock
            for stock in stocks
            if (stock.is_low or not low_only) and (after is None or _place(stock) > after)
        ]
        return sorted(found, key=_place)[:limit]


@dataclass
class FakeCatalog:
    """A catalog in memory: the product of each variant that is sold."""

    products: dict[UUID, UUID] = field(default_factory=dict)

    async def product_of(self, variant_id: UUID) -> UUID | None:
        """Return the product of a variant, None if it is not sold."""
        return self.products.get(variant_id)


def _read(rows: Rows, variant_ids: Iterable[UUID]) -> dict[UUID, Stock]:
    wanted = set(variant_ids)
    return {key: Stock(key, *row) for key, row in rows.stocks if key in wanted}


def _write(store: MemoryStore[Rows], stock: Stock) -> None:
    key = stock.variant_id
    stocks = dict(store.rows.stocks)
    if key not in stocks:
        return
    store.check(0 <= stock.reserved_count <= stock.stock_count, "inventory_check")
    store.check(stock.threshold >= 0, "inventory_threshold_check")
    stocks[key] = (
        stocks[key][0],
        stock.stock_count,
        stock.reserved_count,
        stock.threshold,
        stock.updated_at,
        stock.on_sale,
        stock.announced,
        stock.availability_version,
    )
    store.rows = replace(store.rows, stocks=_sorted(stocks))
    for movement in stock.movements:
        _note(store, movement)
    stock.movements.clear()


def _note(store: MemoryStore[Rows], movement: Movement) -> None:
    rows, key = store.rows, movement.variant_id
    moved, returned, adjustments = dict(rows.moved), dict(rows.returned), dict(rows.adjustments)
    stock, reserved = moved.get(key, (0, 0))
    moved[key] = stock + movement.stock_delta, reserved + movement.reserved_delta
    if movement.kind is MovementKind.RETURNED and movement.order_id is not None:
        so_far = returned.get((movement.order_id, key), 0)
        returned[movement.order_id, key] = so_far + movement.stock_delta
    if movement.request_id is not None:
        store.check((key, movement.request_id) not in adjustments, "stock_movements_request")
        adjustments[key, movement.request_id] = Adjustment(movement.stock_delta, movement.reason)
    store.rows = replace(
        rows, moved=_sorted(moved), returned=_sorted(returned), adjustments=_sorted(adjustments)
    )


def _place(stock: Stock) -> tuple[int, UUID]:
    return stock.available, stock.variant_id


def _sorted(rows: Mapping[K, V]) -> tuple[tuple[K, V], ...]:
    def key(row: tuple[K, V]) -> Any:
        return row[0]

    return tuple(sorted(rows.items(), key=key))
