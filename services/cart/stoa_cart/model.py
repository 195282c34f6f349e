"""Carts: what may be put into one, and what it costs.

A cart shows prices, and its owner orders at the prices shown: a line's price is the one that its owner last
saw. `Cart.refresh` brings the lines up to date, and is called whenever the cart goes to its owner. The order
service compares the prices seen with today's, so that a price that changed since is an error at checkout, and
another look at the cart resolves it.

An order claims the cart before it is placed, so that no other can be of the same lines: they leave the cart
and are held by a `Claim` until the order's events say what became of it. The topics of these are not ordered
among each other, and each may come late or twice (see the ADR on the cart's claim).

A guest who signs in takes her cart with her. There is no transaction over two carts: what is in hers is set
aside for the account, with an id (`hand_over`); the account's cart takes it over, once (`take_over`); then it
is dropped (`handed_over`). Whoever dies in between, or comes twice, finds where it stands.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from hashlib import blake2b
from uuid import UUID

from stoa_chassis.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound
from stoa_chassis.ids import new_id
from stoa_contracts.money import Money
from stoa_events import CartItemAdded, OrderCancelled, OrderConfirmed, OrderItem, OrderPlaced

MAX_QUANTITY = 999
MAX_LINES = 100
# In the currency of the shop. Leaves room for tax and shipping below what the stores hold.
MAX_SUBTOTAL = Decimal(1_000_000_000)
# How many orders a cart remembers, the latest: those under way, and those that are over, whose events may
# still come and whose requests may be sent again.
MAX_CLAIMS = 50
MAX_OVER = 10
# How many takeovers a cart remembers, so that each counts once.
MAX_TAKEN = 20


class ItemNotFound(NotFound):
    """There is no such line in the cart."""

    reason = "CART_ITEM_NOT_FOUND"


class CartFull(FailedPrecondition):
    """The cart has as many lines as it may have."""

    reason = "CART_FULL"


class ItemUnavailable(FailedPrecondition):
    """The line is of something that is not on sale any more; the metadata says of which variant."""

    reason = "ITEM_UNAVAILABLE"


class OutOfStock(FailedPrecondition):
    """There are fewer in stock than the cart would hold; the metadata says how many."""

    reason = "OUT_OF_STOCK"


class CartEmpty(Aborted):
    """There is nothing in the cart to order, or another order has just claimed it."""

    reason = "CART_EMPTY"


class CartChanged(Aborted):
    """The cart is not what it was when it was read; read it again."""

    reason = "CART_CHANGED"


class CartBusy(Aborted):
    """Others kept changing the cart at the same moment; ask again."""

    reason = "CART_BUSY"


@dataclass(frozen=True, slots=True)
class Offer:
    """What a variant is sold for today."""

    product_id: UUID
    variant_id: UUID
    price: Money


@dataclass(frozen=True, slots=True)
class Item:
    """One line: a variant, how many of it, and what one costs as its owner last saw it.

    What is not `available`, as its owner last saw it, is not on sale any more: it can only be removed.
    """

    item_id: UUID
    product_id: UUID
    variant_id: UUID
    quantity: int
    price: Money
    available: bool = True


class ClaimState(StrEnum):
    """What a cart knows of an order."""

    OPEN = "open"
    """It has claimed the cart and is about to be placed."""
    LAPSED = "lapsed"
    """It was not placed in time, as far as is known: what it claimed is in the cart again."""
    PLACED = "placed"
    """It was placed, and waits for stock and payment."""
    CONFIRMED = "confirmed"
    """It was confirmed, and what it is of is to leave the cart when it is known that it was placed."""
    OVER = "over"
    """It was confirmed or cancelled, and nothing more follows."""


_ENDED = (ClaimState.CONFIRMED, ClaimState.OVER)  # the order holds nothing of the cart


@dataclass(frozen=True, slots=True)
class Claim:
    """An order's hold on what was in the cart.

    `items` are what it holds while it is open or placed; only an open one lapses, at `lapses_at`. `version`
    is the cart's when it was claimed, and `request_id` the request that claimed it; both are "" of an order
    that placed itself without a claim.
    """

    order_id: UUID
    state: ClaimState
    request_id: str = ""
    version: str = ""
    items: tuple[Item, ...] = ()
    lapses_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Handover:
    """What a guest's cart held when she signed in, set aside for the cart of her account."""

    handover_id: UUID
    user_id: UUID
    items: tuple[Item, ...]
    claims: tuple[Claim, ...]


@dataclass(frozen=True, slots=True)
class Checkout:
    """A cart as an order is made of it.

    `order_id` is the order for which the request has claimed it before. `lapsed` are the other orders whose
    claims lapsed: should one of them have been placed all the same, it has ordered what is in the cart.
    """

    cart: "Cart"
    version: str
    order_id: UUID | None = None
    lapsed: tuple[UUID, ...] = ()


@dataclass(slots=True)
class Cart:
    """What a user means to buy: each variant on one line, in the order they were put in.

    `currency` is the shop's, in which the catalogue prices everything. `claims` are what is known of the
    orders that were made of it, oldest first. `handover` is what waits to be taken over by an account's cart,
    `moved` to which account's the claims of which orders went, and `taken` what this one has taken over.
    """

    user_id: UUID
    currency: str
    items: list[Item] = field(default_factory=list)
    updated_at: datetime | None = None
    claims: list[Claim] = field(default_factory=list)
    handover: Handover | None = None
    moved: dict[UUID, UUID] = field(default_factory=dict)
    taken: list[UUID] = field(default_factory=list)
    events: list[CartItemAdded] = field(default_factory=list, compare=False)

    @property
    def subtotal(self) -> Money:
        """The sum of price times quantity of what is available."""
        return Money(_cost(item for item in self.items if item.available), self.currency)

    @property
    def version(self) -> str:
        """Is another for other lines, quantities or prices, and whenever a claim has lapsed.

        Who has read the cart before one lapsed has not seen to it that its order was not placed. One that
        lapses again, since its request came again, makes another version of the one that it claimed.
        """
        lines = blake2b(digest_size=12)
        for item in self.items:
            lines.update(b"%b %d %b;" % (item.item_id.bytes, item.quantity, str(item.price).encode()))
        for claim in self.claims:
            if claim.state is ClaimState.LAPSED:
                lines.update(b"%b %b;" % (claim.order_id.bytes, claim.version.encode()))
        return lines.hexdigest()

    def item(self, item_id: UUID) -> Item:
        """Return a line. Raises ItemNotFound."""
        for item in self.items:
            if item.item_id == item_id:
                return item
        raise ItemNotFound(f"item {item_id} is not in the cart")

    def refresh(self, on_sale: Mapping[UUID, Mapping[UUID, Money]]) -> None:
        """Take over what is on sale now, and for how much: by product, the prices of its variants.

        A line whose product is not among them stays as it was seen; one whose variant is not is unavailable.
        A price that would make the cart too expensive to be summed up is left unseen, so that it stops the
        checkout.
        """
        for position, item in enumerate(self.items):
            if (prices := on_sale.get(item.product_id)) is None:
                continue
            price = prices.get(item.variant_id)
            if price is None:
                line = replace(item, available=False)
            else:
                line = replace(item, price=price, available=True)
            if line != item:
                seen = [*self.items]
                seen[position] = line
                if _cost(seen) <= MAX_SUBTOTAL:
                    self.items = seen

    def add(self, offer: Offer, quantity: int, available: int, at: datetime) -> None:
        """Put a variant in; one that is there already gets the sum, at the price of now.

        Raises:
            InvalidArgument: that would be too many, or too expensive.
            CartFull: there is no line left for another variant.
            OutOfStock: fewer than that are `available`.
        """
        there = next((item for item in self.items if item.variant_id == offer.variant_id), None)
        if there is None:
            if len(self.items) >= MAX_LINES:
                raise CartFull(f"a cart holds at most {MAX_LINES} different items")
            line = Item(new_id(), offer.product_id, offer.variant_id, quantity, offer.price)
            items = [*self.items, line]
        else:
            line = replace(there, quantity=there.quantity + quantity, price=offer.price, available=True)
            items = [line if item is there else item for item in self.items]
        self._put(items, line, available, at)
        self.events.append(
            CartItemAdded(
                user_id=self.user_id,
                product_id=offer.product_id,
                variant_id=offer.variant_id,
                quantity=quantity,
                price=offer.price,
            )
        )

    def set_quantity(self, item_id: UUID, quantity: int, available: int, at: datetime) -> None:
        """Change how many of a line there shall be.

        Raises:
            ItemNotFound: there is no such line.
            ItemUnavailable: it is not on sale any more.
            InvalidArgument: that would be too many, or too expensive.
            OutOfStock: fewer than that are `available`.
        """
        there = self.item(item_id)
        if not there.available:
            raise ItemUnavailable(
                "this is not on sale any more and can only be removed",
                metadata={"variant_id": str(there.variant_id)},
            )
        line = replace(there, quantity=quantity)
        self._put([line if item is there else item for item in self.items], line, available, at)

    def remove(self, item_id: UUID, at: datetime) -> None:
        """Take a line out, if it is there."""
        self._keep((item for item in self.items if item.item_id != item_id), at)

    def clear(self, at: datetime) -> None:
        """Take everything out."""
        self._keep((), at)

    # A guest signs in.

    def hand_over(self, user_id: UUID, at: datetime) -> Handover | None:
        """Set aside what is in the cart, and what orders hold of it, for the cart of an account.

        What is set aside already goes first. Returns what is to be taken over; None if there is nothing.
        """
        if self.handover is None and user_id != self.user_id and (self.items or self.claims):
            self.handover = Handover(new_id(), user_id, tuple(self.items), tuple(self.claims))
            self.moved.update(dict.fromkeys((claim.order_id for claim in self.claims), user_id))
            for order_id in list(self.moved)[:-MAX_CLAIMS]:
                del self.moved[order_id]
            self.claims = []
            self._keep((), at)
        return self.handover

    def take_over(self, handover: Handover, at: datetime) -> None:
        """Put in what another cart held, once: of what is there as well the sum, as far as there is room.

        What orders held of the other is held of this.
        """
        if handover.handover_id in self.taken:
            return
        self.taken = [*self.taken, handover.handover_id][-MAX_TAKEN:]
        for claim in handover.claims:
            self._take_over_claim(replace(claim, request_id=""), at)  # the account may have sent the same
        cart = list(self.items)
        for item in handover.items:
            there = next((line for line in cart if line.variant_id == item.variant_id), None)
            if there is None:
                changed = [*cart, item]
            else:
                quantity = min(there.quantity + item.quantity, MAX_QUANTITY)
                line = replace(item, item_id=there.item_id, quantity=quantity)
                changed = [line if each is there else each for each in cart]
            if len(changed) <= MAX_LINES and _cost(changed) <= MAX_SUBTOTAL:
                cart = changed
        self._keep(cart, at)

    def _take_over_claim(self, claim: Claim, at: datetime) -> None:
        """Hold what an order holds, unless the account was told already how that order ended."""
        known = self._claim_for(claim.order_id)
        if known is None:
            self._remember(claim)
        elif known.state is ClaimState.OVER:  # it was cancelled
            self._give_back(claim.items, at)
        elif known.state is ClaimState.CONFIRMED and claim.state is not ClaimState.LAPSED:
            self._end(claim)

    def handed_over(self, handover_id: UUID) -> None:
        """Drop what was set aside: it was taken over."""
        if self.handover is not None and self.handover.handover_id == handover_id:
            self.handover = None

    # An order claims the cart, and its events say what becomes of the claim.

    def lapse(self, at: datetime) -> None:
        """Give back what orders claimed that were not placed in time. To be called before any other use."""
        for claim in self.claims:
            if claim.lapses_at is not None and claim.lapses_at <= at:
                self._lapse(claim, at)

    def release(self, order_id: UUID, at: datetime) -> None:
        """Give back what an order claimed that will not be placed: its claim lapses at once."""
        claim = self._claim_for(order_id)
        if claim is not None and claim.state is ClaimState.OPEN:
            self._lapse(claim, at)

    def checkout(self, request_id: str) -> Checkout:
        """Return the cart as a request to place an order finds it: if it has claimed it, as it was then."""
        known = self._claim_of(request_id)
        lapsed = tuple(
            claim.order_id for claim in self.claims if claim.state is ClaimState.LAPSED and claim is not known
        )
        if known is not None and known.state is ClaimState.OPEN:
            claimed = Cart(self.user_id, self.currency, list(known.items), self.updated_at)
            return Checkout(claimed, known.version, known.order_id, lapsed)
        return Checkout(self, self.version, known.order_id if known is not None else None, lapsed)

    def claim(
        self, request_id: str, order_id: UUID, version: str, at: datetime, lapses_at: datetime
    ) -> Claim:
        """Take everything out for an order that is about to be placed; it comes back if it is not.

        A request that has claimed it before gets the claim that it has, which then lapses later. Who claims
        has seen to it that no order whose claim lapsed was placed: they are forgotten.

        Raises:
            CartEmpty: there is nothing to claim.
            CartChanged: the cart is not of that version.
        """
        known = self._claim_of(request_id)
        if known is not None and known.state is ClaimState.OPEN:
            if version != known.version:
                raise CartChanged("the cart is not what it was when it was read")
            self._remember(claim := replace(known, lapses_at=lapses_at))
            return claim
        if known is not None and known.state is not ClaimState.LAPSED:
            return known
        if not self.items:
            raise CartEmpty("the cart is empty")
        if version != self.version:
            raise CartChanged("the cart is not what it was when it was read")
        order_id = known.order_id if known is not None else order_id
        claim = Claim(order_id, ClaimState.OPEN, request_id, version, tuple(self.items), lapses_at)
        self.claims = [each for each in self.claims if each.state is not ClaimState.LAPSED]
        self._remember(claim)
        self._keep((), at)
        return claim

    def on_order_placed(self, order: OrderPlaced, at: datetime) -> None:
        """Hold what was claimed until the order is over; take out what it ordered without a claim.

        What was added since stays.
        """
        claim = self._claim_for(order.order_id) or Claim(order.order_id, ClaimState.LAPSED)
        if claim.state is ClaimState.OPEN:
            self._remember(replace(claim, state=ClaimState.PLACED, lapses_at=None))
        elif claim.state is ClaimState.LAPSED:
            self._remember(replace(claim, state=ClaimState.PLACED, items=self._take(order.items, at)))
        elif claim.state is ClaimState.CONFIRMED:
            self._take(order.items, at)
            self._end(claim)

    def on_order_confirmed(self, order: OrderConfirmed, at: datetime) -> None:
        """Let go of what was claimed: it is bought."""
        claim = self._claim_for(order.order_id)
        if claim is None:
            # Nothing is taken out before it is known that it was not before: the order may be an old one.
            self._remember(Claim(order.order_id, ClaimState.CONFIRMED))
        elif claim.state is ClaimState.LAPSED:
            self._take(order.items, at)
            self._end(claim)
        elif claim.state is not ClaimState.CONFIRMED:
            self._end(claim)

    def on_order_cancelled(self, order: OrderCancelled, at: datetime) -> None:
        """Put back what the order still holds; what was added meanwhile stays."""
        claim = self._claim_for(order.order_id) or Claim(order.order_id, ClaimState.OVER)
        self._give_back(claim.items, at)
        self._end(claim)

    def _claim_of(self, request_id: str) -> Claim | None:
        # None for a request that has no id: orders that claimed nothing are noted without one.
        return next((claim for claim in self.claims if request_id and claim.request_id == request_id), None)

    def _claim_for(self, order_id: UUID) -> Claim | None:
        return next((claim for claim in self.claims if claim.order_id == order_id), None)

    def _lapse(self, claim: Claim, at: datetime) -> None:
        self._give_back(claim.items, at)
        self._remember(replace(claim, state=ClaimState.LAPSED, items=(), lapses_at=None))

    def _end(self, claim: Claim) -> None:
        self._remember(replace(claim, state=ClaimState.OVER, items=(), version="", lapses_at=None))

    def _remember(self, claim: Claim) -> None:
        """Note what is known of an order now, and forget the oldest that are too many, ended ones first.

        Whoever begins to read the topic of confirmed orders is told of all old ones: what an order under way
        holds must not go for their sake.
        """
        claims = [claim if each.order_id == claim.order_id else each for each in self.claims]
        if claim not in claims:
            claims.append(claim)
        over = [each for each in claims if each.state is ClaimState.OVER]
        for each in over[:-MAX_OVER]:
            claims.remove(each)
        while len(claims) > MAX_CLAIMS:
            claims.remove(next((each for each in claims if each.state in _ENDED), claims[0]))
        self.claims = claims

    def _take(self, ordered: Iterable[OrderItem], at: datetime) -> tuple[Item, ...]:
        """Take out what was ordered, as far as it is there, and return that."""
        wanted = Counter[UUID]()
        for line in ordered:
            wanted[line.variant_id] += line.quantity
        taken: list[Item] = []
        rest: list[Item] = []
        for item in self.items:
            if quantity := min(item.quantity, wanted[item.variant_id]):
                taken.append(replace(item, quantity=quantity))
            if quantity < item.quantity:
                rest.append(replace(item, quantity=item.quantity - quantity) if quantity else item)
        self._keep(rest, at)
        return tuple(taken)

    def _give_back(self, items: Iterable[Item], at: datetime) -> None:
        """Put lines back where they were; of what is there as well, as many as the line that has more.

        What is there goes first, should there be no room for all of it.
        """
        cart, before = list(self.items), 0
        for item in items:
            there = next((line for line in cart if line.variant_id == item.variant_id), None)
            if there is None:
                changed = [*cart[:before], item, *cart[before:]]
            else:
                line = replace(there, quantity=max(there.quantity, item.quantity))
                changed = [line if each is there else each for each in cart]
            if len(changed) <= MAX_LINES and _cost(changed) <= MAX_SUBTOTAL:
                before += len(changed) - len(cart)
                cart = changed
        self._keep(cart, at)

    def _put(self, items: list[Item], line: Item, available: int, at: datetime) -> None:
        if not 0 < line.quantity <= MAX_QUANTITY:
            raise InvalidArgument(
                "item.quantity", f"would make {line.quantity} of this in the cart; 1 to {MAX_QUANTITY} can be"
            )
        if line.quantity > available:
            raise OutOfStock(
                f"only {available} in stock",
                metadata={
                    "variant_id": str(line.variant_id),
                    "requested": str(line.quantity),
                    "available": str(available),
                },
            )
        if _cost(items) > MAX_SUBTOTAL:
            most = Money(MAX_SUBTOTAL, self.currency)
            raise InvalidArgument("item.quantity", f"would make the cart cost more than {most}")
        self._keep(items, at)

    def _keep(self, items: Iterable[Item], at: datetime) -> None:
        kept = list(items)
        if kept != self.items:
            self.items, self.updated_at = kept, at


def _cost(items: Iterable[Item]) -> Decimal:
    return sum((item.price.amount * item.quantity for item in items), Decimal(0))
