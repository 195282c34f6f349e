"""The stores of carts and the other services in memory, for tests of use cases; see `stoa_chassis.memory`.

One suite, tests/test_repository.py, runs on these stores and on Redis. That carts are forgotten when nobody
has used them for long is Redis' own: here they live for ever.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from uuid import UUID

from stoa_cart import ports
from stoa_cart.model import Cart, Offer
from stoa_chassis.ids import new_id
from stoa_chassis.memory import MemoryStore
from stoa_chassis.outbox import Outbox
from stoa_contracts.money import Money


@dataclass(frozen=True)
class Rows:
    """What the cart service keeps: carts by user, and by product its version and what its variants cost.

    Carts in here are copies that nobody changes, and so are the mappings: each change makes new ones.
    """

    carts: Mapping[UUID, Cart] = field(default_factory=dict)
    prices: Mapping[UUID, tuple[int, Mapping[UUID, Money] | None]] = field(default_factory=dict)


# Where a repository finds its rows: the view of a transaction, or the store for a statement outside of one.
Open = Callable[[], MemoryStore[Rows]]


class Carts:
    """The carts of all users, in a unit of work that changes one of them."""

    def __init__(self, view: MemoryStore[Rows], outbox: Outbox, currency: str) -> None:
        self._view = view
        self._outbox = outbox
        self._currency = currency
        self._changed: UUID | None = None

    async def get(self, user_id: UUID) -> Cart:
        """Return a user's cart, an empty one if there is none."""
        return _cart(self._view.rows, user_id, self._currency)

    async def save(self, cart: Cart) -> None:
        """Store a changed cart, and publish its events. Nothing is written if nothing changed."""
        self._takes(cart.user_id)
        if cart != _cart(self._view.rows, cart.user_id, self._currency):
            carts = {**self._view.rows.carts, cart.user_id: _copy(cart)}
            self._view.rows = replace(self._view.rows, carts=carts)
        self._outbox.collect(cart)

    def _takes(self, user_id: UUID) -> None:
        """Refuse a second cart, as the units of work on Redis do."""
        if self._changed not in (None, user_id):
            raise RuntimeError(f"a unit of work changes one cart: of {self._changed} or {user_id}")
        self._changed = user_id


@dataclass(frozen=True)
class CartReader:
    """Carts as they are, outside of a unit of work."""

    store: Open
    currency: str

    async def get(self, user_id: UUID) -> Cart:
        """Return a user's cart, an empty one if there is none."""
        return _cart(self.store().rows, user_id, self.currency)


@dataclass(frozen=True)
class PriceBook:
    """What variants of watched products cost now. Time does not pass here: what is watched stays so."""

    store: Open

    async def watch(self, product_id: UUID) -> None:
        """Watch a product that somebody wants."""
        store = self.store()
        if product_id not in store.rows.prices:
            store.rows = replace(store.rows, prices={**store.rows.prices, product_id: (0, None)})

    async def of(self, product_ids: Iterable[UUID]) -> Mapping[UUID, Mapping[UUID, Money]]:
        """Return what these products' variants that are on sale cost, by product and variant."""
        wanted = list(product_ids)
        for product_id in wanted:
            await self.watch(product_id)
        known = ((product_id, self.store().rows.prices[product_id][1]) for product_id in wanted)
        return {product_id: prices for product_id, prices in known if prices is not None}

    async def learn(self, product_id: UUID, version: int, prices: Mapping[UUID, Money]) -> None:
        """Note the prices that a version of a product has, by variant, if the product is watched."""
        store = self.store()
        known = store.rows.prices.get(product_id)
        if known is not None and known[0] < version:
            changed = {**store.rows.prices, product_id: (version, dict(prices))}
            store.rows = replace(store.rows, prices=changed)


def open_tx(currency: str) -> Callable[[MemoryStore[Rows], Outbox], ports.Tx]:
    """Return what puts the repository on the view of a transaction; `currency` is the shop's."""
    return lambda view, outbox: ports.Tx(Carts(view, outbox, currency))


def _cart(rows: Rows, user_id: UUID, currency: str) -> Cart:
    cart = rows.carts.get(user_id)
    return _copy(cart) if cart is not None else Cart(user_id, currency)


def _copy(cart: Cart) -> Cart:
    return replace(
        cart,
        items=list(cart.items),
        claims=list(cart.claims),
        moved=dict(cart.moved),
        taken=list(cart.taken),
        events=[],
    )


# --------------------------------------------------------------------------------------- the other services


@dataclass
class Shelf:
    """The catalogue and the inventory in one: what is on sale, and how many there are of it.

    Both raise `down`, if it is set.
    """

    currency: str
    offers: dict[UUID, Offer] = field(default_factory=dict)
    stock: dict[UUID, int] = field(default_factory=dict)
    down: Exception | None = None

    def sell(self, price: str = "19.90", stock: int = 1000) -> Offer:
        """Put a new variant of a new product on sale."""
        offer = Offer(new_id(), new_id(), Money(Decimal(price), self.currency))
        self.offers[offer.variant_id], self.stock[offer.variant_id] = offer, stock
        return offer

    async def offer(self, variant_id: UUID) -> Offer | None:
        """Return today's offer of a variant, None if it is not on sale."""
        if self.down:
            raise self.down
        return self.offers.get(variant_id)

    async def available(self, variant_id: UUID) -> int:
        """Return how many of a variant can still be promised."""
        if self.down:
            raise self.down
        return self.stock.get(variant_id, 0)
