"""The use cases of orders and the engine of their sagas, on stores in memory."""

import asyncio
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from stoa_chassis.auth import Principal
from stoa_chassis.avro import Event, EventCodec
from stoa_chassis.context import bound
from stoa_chassis.due import Backoff, DueStore
from stoa_chassis.errors import Code, RequestIdReused
from stoa_chassis.ids import new_id
from stoa_chassis.inbox import AlreadyProcessed
from stoa_chassis.memory import MemoryStore, memory_unit_of_work
from stoa_chassis.postgres import Database
from stoa_chassis.postgres_uow import postgres_unit_of_work
from stoa_chassis.uow import UnitOfWork
from stoa_contracts.events import Payload
from stoa_contracts.money import Money
from stoa_events import OrderCancelled, OrderPlaced, UserEmailVerified, UserErased, UserGuestMerged
from stoa_order import repository, testing
from stoa_order.engine import SagaEngine
from stoa_order.events import handlers
from stoa_order.model import (
    Address,
    CartChanged,
    CartClaim,
    CartEmpty,
    CartLine,
    ClaimTooOld,
    Contact,
    ForeignCurrency,
    Line,
    NotCancellable,
    OrderNotFound,
    OrderView,
    Placed,
    Recorded,
    RequestIdUsed,
    RequestInProgress,
    Saga,
    ShipmentStatus,
    Status,
)
from stoa_order.ports import OrderViews, Peers, Tx
from stoa_order.returns import ReturnItem, ReturnRequest, ReturnStatus
from stoa_order.saga import Timeouts
from stoa_order.service import Orders, PlaceOrder
from stoa_order.testing import (
    ADDRESS,
    GUEST,
    LINKS,
    NOW,
    TARIFF,
    WINDOW,
    FakePeers,
    out_of_stock,
    paid,
    parcel,
    refunded,
    reserved,
    scanned,
)

MINUTE = timedelta(minutes=1)
TIMEOUTS = Timeouts(stock=MINUTE, payment=MINUTE, retry=Backoff(timedelta(seconds=5), MINUTE))


def a_command(
    request_id: str = "r", user_id: UUID | None = None, destination: Address | UUID = ADDRESS
) -> PlaceOrder:
    return PlaceOrder(
        user_id=user_id or new_id(),
        request_id=request_id,
        destination=destination,
        shipping_method="standard",
        payment_token="tok_visa",
    )


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.time = NOW

    def now(self) -> datetime:
        return self.time


class Shop:
    """An order service whose neighbours the test plays."""

    def __init__(self, uow: UnitOfWork[Tx], views: OrderViews, sagas: DueStore[Saga], clock: Clock) -> None:
        self.peers = FakePeers([CartLine(new_id(), new_id(), 2, Money(Decimal("19.90"), "USD"))])
        self.views = views
        self.clock = clock
        self._uow, self._sagas = uow, sagas
        self.engine = self.another_engine()
        self.orders = Orders(
            uow,
            views,
            self.engine,
            clock,
            TARIFF,
            TIMEOUTS,
            LINKS,
            WINDOW,
            self.peers,
            self.peers,
            self.peers,
            self.peers,
        )

    def another_engine(self) -> SagaEngine:
        """Return the engine of another process."""
        return SagaEngine(self._uow, self._sagas, Peers(self.peers, self.peers), self.clock, TIMEOUTS)

    async def place(self, request_id: str = "r", user_id: UUID | None = None) -> OrderView:
        return await self.orders.place(a_command(request_id, user_id))

    async def receive(self, payload: Payload, event_id: UUID | None = None) -> None:
        """An event comes."""
        event = Event(event_id or new_id(), payload.TOPIC, 1, self.clock.now(), "c", payload)
        await handlers(self.orders)[type(payload)](event)
        await self.engine.asked()

    async def pass_time(self, **ahead: float) -> None:
        """Let time pass, and what is due be taken up."""
        self.clock.time += timedelta(**ahead)
        await self.engine.due.work_off()
        await self.engine.asked()

    async def now(self, order: OrderView) -> OrderView:
        found = await self.views.get(order.order_id)
        assert found
        return found

    async def step(self, order: OrderView) -> str | None:
        found = await self._uow.run(lambda tx: tx.orders.get(order.order_id))
        return found.saga.step if found.saga else None


class ShopInMemory(Shop):
    """The same on stores in memory."""

    def __init__(self) -> None:
        self.store, clock = MemoryStore(testing.Rows()), Clock()
        super().__init__(
            memory_unit_of_work(lambda: self.store, testing.open_tx, clock),
            testing.OrderViews(lambda: self.store),
            testing.DueSagas(lambda: self.store, TIMEOUTS.retry),
            clock,
        )

    def published(self, order: OrderView) -> list[str]:
        return [event.topic for event in self.store.published if event.payload.key == str(order.order_id)]


@pytest.fixture
def shop() -> ShopInMemory:
    return ShopInMemory()


@pytest.fixture
def database_shop(database: Database, codec: EventCodec) -> Shop:
    clock = Clock()
    return Shop(
        postgres_unit_of_work(database, codec, repository.open_tx, clock),
        repository.OrderViews(database, database),
        repository.DueSagas(database, TIMEOUTS.retry),
        clock,
    )


def as_buyer(order: OrderView) -> Principal:
    return Principal(str(order.user_id), frozenset({"customer"}))


async def test_a_placed_order_is_what_is_read(shop: ShopInMemory) -> None:
    order = await shop.place()
    assert await shop.orders.get(order.order_id, as_buyer(order)) == order
    assert order.amounts.total == Money(Decimal("47.88"), "USD")


async def test_every_field_of_a_request_is_kept_in_its_place(shop: ShopInMemory) -> None:
    token = "tok_mastercard"
    command = PlaceOrder(
        user_id=new_id(),
        request_id="a-request",
        destination=ADDRESS,
        shipping_method="express",
        payment_token=token,
    )
    with bound("a-correlation-id"):
        order = await shop.orders.place(command)
    (cart_line,), (line,) = shop.peers.cart, order.lines
    fact = Placed(
        user_id=command.user_id,
        request_id="a-request",
        lines=(
            Line(
                item_id=line.item_id,
                product_id=cart_line.product_id,
                variant_id=cart_line.variant_id,
                name="Lamp",
                quantity=cart_line.quantity,
                price=cart_line.price,
            ),
        ),
        amounts=TARIFF.amounts(order.lines, "express"),
        shipping_address=ADDRESS,
        shipping_method="express",
        request=command.request_for(order.order_id),
    )
    assert shop.peers.claims == {(command.user_id, "a-request"): order.order_id}
    assert shop.store.rows.facts == ((order.order_id, Recorded(1, fact, NOW)),)
    (saga,) = shop.store.rows.sagas
    assert (saga.token, saga.correlation_id) == (token, "a-correlation-id")
    # The token is kept in that column alone; asdict, because the saga's repr leaves the token out.
    elsewhere = (asdict(replace(saga, token=None)), shop.store.rows.facts, shop.store.published, order)
    assert token not in repr(elsewhere)
    await shop.receive(reserved(order))
    assert shop.peers.charged == [(order.order_id, token)]


async def test_stock_and_payment_confirm(shop: ShopInMemory) -> None:
    order = await shop.place()
    await shop.receive(reserved(order))
    await shop.receive(paid(order))
    assert (await shop.now(order)).status is Status.CONFIRMED
    assert shop.published(order) == ["order.placed", "order.confirmed"]


async def test_an_address_of_the_address_book_is_looked_up(shop: ShopInMemory) -> None:
    order = await shop.orders.place(a_command(destination=new_id()))
    assert order.shipping_address == ADDRESS


async def test_the_same_request_gives_the_same_order_even_with_an_empty_cart(shop: ShopInMemory) -> None:
    buyer = new_id()
    first = await shop.place("again", buyer)
    shop.peers.cart = []
    assert await shop.place("again", buyer) == first
    shop.peers.claims.clear()  # a cart remembers its latest orders
    assert await shop.place("again", buyer) == first
    with pytest.raises(CartEmpty) as refused:
        await shop.place("another", buyer)
    assert refused.value.code is Code.ABORTED


async def test_the_same_request_for_something_else_is_refused_naming_it(shop: ShopInMemory) -> None:
    buyer = new_id()
    await shop.place("again", buyer)
    for cart in (shop.peers.cart, []):
        shop.peers.cart = cart
        with pytest.raises(RequestIdReused) as refused:
            await shop.orders.place(replace(a_command("again", buyer), payment_token="tok_other"))
        assert [violation.field for violation in refused.value.violations] == ["payment_token"]


async def test_the_request_of_a_cancelled_order_is_used_up_and_a_new_one_orders_again(
    shop: ShopInMemory,
) -> None:
    buyer = new_id()
    first = await shop.place("declined", buyer)
    await shop.receive(out_of_stock(first))
    for remembered in (True, False):
        if not remembered:
            shop.peers.claims.clear()
        with pytest.raises(RequestIdUsed) as refused:
            await shop.place("declined", buyer)
        assert refused.value.metadata == {"order_id": str(first.order_id)}
    second = await shop.place("another card", buyer)
    assert second.order_id != first.order_id
    assert shop.published(second) == ["order.placed"]


async def test_a_request_that_the_cart_has_forgotten_does_not_keep_what_it_claims(shop: ShopInMemory) -> None:
    buyer = new_id()
    first = await shop.place("old", buyer)
    shop.peers.claims.clear()
    assert await shop.place("old", buyer) == first
    assert not shop.peers.claims


async def test_an_order_is_the_one_that_its_request_has_claimed_the_cart_for(shop: ShopInMemory) -> None:
    buyer, claimed_for = new_id(), new_id()
    shop.peers.claims[buyer, "its answer was lost"] = claimed_for
    order = await shop.place("its answer was lost", buyer)
    assert order.order_id == claimed_for
    assert await shop.place("its answer was lost", buyer) == order


async def test_nothing_is_claimed_for_an_order_that_is_refused(shop: ShopInMemory) -> None:
    shop.peers.cart = [CartLine(new_id(), new_id(), 1, Money(Decimal(10), "EUR"))]
    with pytest.raises(ForeignCurrency):
        await shop.place()
    shop.peers.cart = []
    with pytest.raises(CartEmpty):
        await shop.place()
    assert not shop.peers.claims


async def test_what_another_order_has_taken_whose_claim_lapsed_is_not_ordered_again(
    shop: ShopInMemory,
) -> None:
    first = await shop.place("first")
    shop.peers.lapsed = [new_id(), first.order_id]
    with pytest.raises(CartChanged) as refused:
        await shop.place("second", first.user_id)
    assert refused.value.metadata == {"order_id": str(first.order_id)}
    assert (first.user_id, "second") not in shop.peers.claims
    await shop.receive(out_of_stock(first))
    with pytest.raises(CartChanged):
        await shop.place("second", first.user_id)
    shop.peers.lapsed = []  # the cart has heard of the cancellation
    await shop.place("second", first.user_id)


async def test_no_order_is_stored_when_its_claim_may_lapse_meanwhile(
    shop: ShopInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    buyer, claim = new_id(), shop.peers.claim

    async def slowly(*args: Any) -> CartClaim:
        shop.clock.time += takes
        return await claim(*args)

    monkeypatch.setattr(shop.peers, "claim", slowly)
    takes = shop.peers.ttl - timedelta(seconds=19)
    with pytest.raises(ClaimTooOld):
        await shop.place("slow", buyer)
    assert not shop.store.published
    takes = shop.peers.ttl - timedelta(seconds=20)
    order = await shop.place("slow", buyer)
    assert shop.published(order) == ["order.placed"]


async def test_twenty_of_the_same_request_at_once_give_one_order(shop: ShopInMemory) -> None:
    buyer = new_id()
    orders = await asyncio.gather(*(shop.place("at once", buyer) for _ in range(20)))
    assert len({order.order_id for order in orders}) == 1
    assert shop.published(orders[0]) == ["order.placed"]


async def test_a_request_whose_order_can_not_be_read_yet_is_in_progress(
    shop: ShopInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def not_yet(self: testing.OrderViews, *_: object) -> None:
        return None

    buyer = new_id()
    await shop.place("twice", buyer)
    for read in ("by_request", "get"):
        monkeypatch.setattr(testing.OrderViews, read, not_yet)
    with pytest.raises(RequestInProgress) as refused:
        await shop.place("twice", buyer)
    assert (refused.value.code, refused.value.reason) == (Code.ABORTED, "REQUEST_IN_PROGRESS")


async def test_a_price_in_another_currency_than_the_shops_is_refused_by_name(shop: ShopInMemory) -> None:
    shop.peers.cart = [CartLine(new_id(), new_id(), 1, Money(Decimal(10), "EUR"))]
    with pytest.raises(ForeignCurrency, match="EUR"):
        await shop.place()


async def test_a_reserved_order_is_charged_with_its_token_which_is_then_forgotten(shop: ShopInMemory) -> None:
    order = await shop.place()
    await shop.receive(reserved(order))
    assert shop.peers.charged == [(order.order_id, "tok_visa")]
    await shop.receive(paid(order))
    assert not shop.store.rows.sagas


async def test_an_event_that_is_delivered_again_takes_effect_once(shop: ShopInMemory) -> None:
    order = await shop.place()
    event_id = new_id()
    await shop.receive(reserved(order), event_id)
    with pytest.raises(AlreadyProcessed):
        await shop.receive(reserved(order), event_id)
    assert len(shop.peers.charged) == 1


async def test_an_event_that_changes_nothing_asks_for_nothing(shop: ShopInMemory) -> None:
    order = await shop.place()
    await shop.receive(reserved(order))
    await shop.receive(reserved(order))
    assert shop.peers.charged == [(order.order_id, "tok_visa")]


async def test_a_charge_that_was_not_answered_is_asked_for_again(shop: ShopInMemory) -> None:
    shop.peers.down = True
    order = await shop.place()
    await shop.receive(reserved(order))
    shop.peers.charged.clear()
    shop.peers.down = False
    await shop.pass_time(seconds=4)
    assert shop.peers.charged == []  # not due yet
    await shop.pass_time(seconds=1)
    assert shop.peers.charged == [(order.order_id, "tok_visa")]


async def test_want_of_stock_cancels(shop: ShopInMemory) -> None:
    order = await shop.place()
    await shop.receive(out_of_stock(order))
    assert (await shop.now(order)).status is Status.CANCELLED
    assert shop.published(order) == ["order.placed", "order.cancelled"]
    assert not shop.store.rows.sagas


async def test_stock_that_is_not_reserved_in_time_cancels(shop: ShopInMemory) -> None:
    order = await shop.place()
    await shop.pass_time(seconds=59)
    assert (await shop.now(order)).status is Status.PENDING
    await shop.pass_time(seconds=1)
    assert (await shop.now(order)).status is Status.CANCELLED
    assert shop.published(order) == ["order.placed", "order.cancelled"]


async def test_what_a_timeout_publishes_carries_the_correlation_id_of_its_order(shop: ShopInMemory) -> None:
    with bound("the buyer's request"):
        order = await shop.place()
    await shop.receive(reserved(order))
    await shop.pass_time(minutes=1)
    cancelled = shop.store.published[-1]
    assert isinstance(cancelled.payload, OrderCancelled)
    assert cancelled.correlation_id == "the buyer's request"


async def test_what_is_asked_carries_the_correlation_id_of_its_order_but_no_deadline_of_a_caller(
    shop: ShopInMemory,
) -> None:
    with bound("the buyer's request"):
        order = await shop.place()
    await shop.receive(reserved(order))
    await shop.pass_time(seconds=5)
    await shop.receive(paid(order))
    with bound("the cancellation", 1.0):
        await shop.orders.cancel(order.order_id, "no", as_buyer(order))
    await shop.engine.asked()
    await shop.pass_time(minutes=1)
    assert shop.peers.asked_for == [("the buyer's request", None)] * 2 + [("the cancellation", None)] * 3


async def test_a_saga_without_a_correlation_id_is_taken_up_under_a_new_one(shop: ShopInMemory) -> None:
    order = await shop.place()  # outside of any request, as before there was one in the store
    assert shop.store.rows.sagas[0].correlation_id == ""
    await shop.pass_time(minutes=1)
    assert shop.published(order) == ["order.placed", "order.cancelled"]
    assert shop.store.published[-1].correlation_id


async def test_a_payment_that_comes_after_its_deadline_is_refunded_until_that_is_known(
    shop: ShopInMemory,
) -> None:
    order = await shop.place()
    await shop.receive(reserved(order))
    await shop.pass_time(minutes=1)
    assert (await shop.now(order)).status is Status.CANCELLED
    late = paid(order)
    await shop.receive(late)
    await shop.pass_time(minutes=5)
    assert shop.peers.refunded == [order.order_id] * 2
    await shop.receive(refunded(order, late.payment_id))
    await shop.pass_time(minutes=5)
    assert shop.peers.refunded == [order.order_id] * 2


async def test_cancelling_a_confirmed_order_refunds_it(shop: ShopInMemory) -> None:
    order = await shop.place()
    await shop.receive(reserved(order))
    await shop.receive(paid(order))
    cancelled = await shop.orders.cancel(order.order_id, "changed my mind", as_buyer(order))
    await shop.engine.asked()
    assert (cancelled.status, cancelled.history[-1].reason) == (Status.CANCELLED, "changed my mind")
    assert shop.peers.refunded == [order.order_id]
    assert await shop.step(order) == "refund"


async def confirmed(shop: Shop, request_id: str = "r", **command: Any) -> OrderView:
    order = await shop.orders.place(replace(a_command(request_id), **command))
    await shop.receive(reserved(order))
    await shop.receive(paid(order))
    return order


async def delivered(shop: Shop, **command: Any) -> OrderView:
    order = await confirmed(shop, **command)
    await shop.receive(parcel(order))
    for status in (ShipmentStatus.IN_TRANSIT, ShipmentStatus.DELIVERED):
        await shop.receive(scanned(order, status, shop.clock.now()))
        await shop.pass_time(seconds=1)
    return order


async def test_an_order_is_carried_to_its_buyer(shop: ShopInMemory) -> None:
    order = await delivered(shop)
    found = await shop.now(order)
    assert found.status is Status.DELIVERED
    assert found.shipment
    assert (found.shipment.carrier, found.shipment.status) == ("ups", ShipmentStatus.DELIVERED)
    assert shop.published(order) == ["order.placed", "order.confirmed", "order.shipped", "order.delivered"]
    assert not shop.store.rows.sagas


async def test_what_waits_for_its_parcel_asks_for_nothing_and_needs_no_saga(shop: ShopInMemory) -> None:
    await confirmed(shop)
    asked = len(shop.peers.asked_for)
    assert not shop.store.rows.sagas
    await shop.pass_time(days=3)
    assert (len(shop.peers.asked_for), shop.peers.stopped) == (asked, [])


async def test_a_cancellation_asks_shipping_until_it_answers(shop: ShopInMemory) -> None:
    order = await confirmed(shop)
    shop.peers.shipping_down = True
    asked = await shop.orders.cancel(order.order_id, "changed my mind", as_buyer(order))
    await shop.engine.asked()
    assert (asked.status, asked.cancellation) == (Status.CONFIRMED, "changed my mind")
    assert await shop.step(order) == "stop shipment"
    await shop.pass_time(minutes=5)
    assert shop.published(order) == ["order.placed", "order.confirmed"]
    shop.peers.shipping_down = False
    await shop.pass_time(minutes=5)
    found = await shop.now(order)
    assert (found.status, found.history[-1].reason) == (Status.CANCELLED, "changed my mind")
    assert shop.peers.refunded == [order.order_id]
    assert shop.published(order) == ["order.placed", "order.confirmed", "order.cancelled"]


async def test_what_the_carrier_has_can_not_be_cancelled(shop: ShopInMemory) -> None:
    order = await confirmed(shop)
    shop.peers.under_way.add(order.order_id)
    for _ in range(2):
        with pytest.raises(NotCancellable) as refused:
            await shop.orders.cancel(order.order_id, "changed my mind", as_buyer(order))
        assert refused.value.code is Code.ABORTED
    found = await shop.now(order)
    assert (found.status, found.cancellation) == (Status.CONFIRMED, None)
    assert (shop.peers.stopped, shop.peers.refunded) == ([order.order_id], [])
    assert not shop.store.rows.sagas
    await shop.receive(scanned(order, ShipmentStatus.IN_TRANSIT, NOW))
    assert (await shop.now(order)).status is Status.SHIPPED


async def test_a_payment_that_is_given_back_whole_stops_the_parcel(shop: ShopInMemory) -> None:
    order = await confirmed(shop)
    payment = (await shop.now(order)).payment
    assert payment
    await shop.receive(refunded(order, payment.payment_id))
    assert (await shop.now(order)).status is Status.CANCELLED
    assert (shop.peers.stopped, shop.peers.refunded) == ([order.order_id], [])


async def test_shipping_costs_what_shipping_quotes_or_else_what_the_tariff_says(shop: ShopInMemory) -> None:
    assert (await shop.place("unquoted")).amounts.shipping == Money(Decimal("4.90"), "USD")
    shop.peers.quoted = Money(Decimal("6.20"), "USD")
    quoted = (await shop.place("quoted")).amounts
    assert (quoted.shipping, quoted.total) == (shop.peers.quoted, Money(Decimal("49.18"), "USD"))
    shop.peers.quoted = Money(Decimal("6.20"), "EUR")
    assert (await shop.place("foreign")).amounts.shipping == Money(Decimal("4.90"), "USD")


def a_return(order: OrderView, quantity: int = 1) -> ReturnRequest:
    return ReturnRequest((ReturnItem(order.lines[0].variant_id, quantity),), "too dark")


async def test_a_return_is_refunded_when_it_is_received_and_asked_for_until_it_is(
    shop: ShopInMemory,
) -> None:
    order = await delivered(shop)
    made = await shop.orders.request_return(order.order_id, "back", a_return(order), as_buyer(order))
    again = await shop.orders.request_return(order.order_id, "back", a_return(order), as_buyer(order))
    assert again == made
    await shop.orders.approve_return(order.order_id, made.return_id, "")
    shop.peers.down = True
    received = await shop.orders.receive_return(order.order_id, made.return_id, "")
    await shop.engine.asked()
    assert received.status is ReturnStatus.RECEIVED
    assert await shop.step(order) == "refund return"
    shop.peers.down = False
    await shop.pass_time(minutes=1)
    assert set(shop.peers.returns) == {(made.return_id, received.refund)}
    (listed,) = await shop.orders.list_returns_of(order.order_id, as_buyer(order), limit=10)
    assert listed.status is ReturnStatus.REFUNDED
    assert shop.published(order)[-3:] == [
        "order.return_requested",
        "order.return_decided",
        "order.returned",
    ]
    assert not shop.store.rows.sagas


async def test_two_returns_at_once_are_both_refunded(shop: ShopInMemory) -> None:
    order = await delivered(shop)
    shop.peers.down = True
    for request_id in ("one", "two"):
        made = await shop.orders.request_return(order.order_id, request_id, a_return(order), as_buyer(order))
        await shop.orders.approve_return(order.order_id, made.return_id, "")
        await shop.orders.receive_return(order.order_id, made.return_id, "")
        await shop.engine.asked()
    assert (await shop.now(order)).status is Status.RETURNED
    shop.peers.down = False
    await shop.pass_time(minutes=1)
    returns = await shop.orders.list_returns(status="refunded", limit=10)
    assert sum((each.return_.refund for each in returns), Money.zero("USD")) == order.amounts.total


async def test_a_rejected_return_gives_nothing_back(shop: ShopInMemory) -> None:
    order = await delivered(shop)
    made = await shop.orders.request_return(order.order_id, "back", a_return(order), as_buyer(order))
    rejected = await shop.orders.reject_return(order.order_id, made.return_id, "it is scratched")
    assert (rejected.status, rejected.decision) == (ReturnStatus.REJECTED, "it is scratched")
    assert not shop.peers.returns


async def test_only_the_buyer_and_staff_see_returns_and_ask_for_them(shop: ShopInMemory) -> None:
    order = await delivered(shop)
    stranger = Principal(str(new_id()))
    for use_case in (
        shop.orders.request_return(order.order_id, "back", a_return(order), stranger),
        shop.orders.list_returns_of(order.order_id, stranger, limit=10),
        shop.orders.approve_return(new_id(), new_id(), ""),
    ):
        with pytest.raises(OrderNotFound):
            await use_case


async def test_a_guest_follows_her_order_by_its_link(shop: ShopInMemory) -> None:
    order = await shop.orders.place(replace(a_command(), contact=GUEST))
    secret = shop.orders.access_token(order)
    assert await shop.orders.get_by_link(secret) == order
    (placed,) = shop.store.payloads(OrderPlaced)
    assert (placed.email, placed.locale, placed.access_token) == (GUEST.email, GUEST.locale, secret)
    assert secret not in repr(placed)
    for wrong in ("made up", LINKS.secret(new_id(), NOW)):
        with pytest.raises(OrderNotFound):
            await shop.orders.get_by_link(wrong)
    await shop.pass_time(days=366)
    with pytest.raises(OrderNotFound):
        await shop.orders.get_by_link(secret)
    assert shop.orders.access_token(await shop.place("with an account")) == ""


@pytest.mark.parametrize("early", [False, True], ids=["after the order", "while it is placed"])
async def test_a_guests_orders_become_those_of_the_account_that_she_signs_in_to(
    shop: ShopInMemory, early: bool
) -> None:
    guest_id, user_id = new_id(), new_id()
    merged = UserGuestMerged(user_id=user_id, guest_id=guest_id)
    if early:
        await shop.receive(merged)
    order = await shop.orders.place(replace(a_command(user_id=guest_id), contact=GUEST))
    await shop.receive(merged)
    await shop.receive(merged)
    found = await shop.now(order)
    assert found.user_id == user_id
    assert [each.order_id for each in await shop.orders.list(user_id=user_id, limit=5)] == [order.order_id]
    assert shop.published(order) == ["order.placed", "order.buyer_changed"]
    own = await shop.place("r", user_id)  # with the request id that the guest sent
    assert own.order_id != order.order_id
    await shop.receive(reserved(order))
    await shop.receive(paid(order))
    assert (await shop.now(order)).status is Status.CONFIRMED


async def test_guests_orders_become_those_of_the_owner_of_their_address(shop: ShopInMemory) -> None:
    hers = [
        await shop.orders.place(replace(a_command(str(number)), contact=Contact(email, "en")))
        for number, email in enumerate(("Ann@Example.com", "ann@EXAMPLE.com"))
    ]
    other = await shop.orders.place(replace(a_command(), contact=Contact("bob@example.com", "en")))
    user_id = new_id()
    await shop.receive(UserEmailVerified(user_id=user_id, email="ann@example.com"))
    assert {(await shop.now(order)).user_id for order in hers} == {user_id}
    assert (await shop.now(other)).user_id == other.user_id
    await shop.receive(UserEmailVerified(user_id=new_id(), email="ann@example.com"))
    assert {(await shop.now(order)).user_id for order in hers} == {user_id}


async def test_nothing_that_is_kept_tells_who_bought_once_an_account_is_erased(shop: ShopInMemory) -> None:
    order = await delivered(shop, contact=GUEST)
    await shop.orders.request_return(order.order_id, "back", a_return(order), as_buyer(order))
    waiting = await shop.place("pending", order.user_id)
    other = await shop.place("another's")
    await shop.receive(UserErased(user_id=order.user_id))
    await shop.receive(UserErased(user_id=order.user_id))
    kept = repr([fact for key, fact in shop.store.rows.facts if key != other.order_id])
    for personal in (ADDRESS.recipient, ADDRESS.line1, ADDRESS.city, GUEST.email, "too dark"):
        assert personal not in kept
    found = await shop.now(order)
    assert (found.status, found.amounts, found.shipping_address.country) == (
        Status.DELIVERED,
        order.amounts,
        "GB",
    )
    assert (await shop.now(waiting)).status is Status.CANCELLED
    assert (await shop.now(other)).shipping_address == ADDRESS
    assert shop.orders.access_token(found) == ""


async def test_two_processes_never_take_up_the_same_saga_at_once(shop: ShopInMemory) -> None:
    orders = [await shop.place(str(number)) for number in range(10)]
    for order in orders:
        await shop.receive(reserved(order))
    shop.peers.charged.clear()
    shop.clock.time += timedelta(seconds=6)
    other = shop.another_engine()
    await asyncio.gather(shop.engine.due.work_off(), other.due.work_off())
    await asyncio.gather(shop.engine.asked(), other.asked())
    assert sorted(order_id for order_id, _ in shop.peers.charged) == [order.order_id for order in orders]


async def test_so_much_is_asked_at_once_and_the_rest_when_it_falls_due(shop: ShopInMemory) -> None:
    orders = [await shop.place(str(number)) for number in range(80)]
    for order in orders:
        await shop.orders.on_answer(Event(new_id(), "inventory.reserved", 1, NOW, "c", reserved(order)))
    await shop.engine.asked()
    first = {order_id for order_id, _ in shop.peers.charged}
    assert first == {order.order_id for order in orders[:64]}
    for order in orders[:64]:
        await shop.receive(paid(order))
    await shop.pass_time(seconds=5)
    assert {order_id for order_id, _ in shop.peers.charged} == {order.order_id for order in orders}


async def test_an_order_is_shown_to_its_buyer_and_staff_and_nobody_else(shop: ShopInMemory) -> None:
    order = await shop.place()
    staff = Principal("s", acts_as_staff=True)
    assert await shop.orders.get(order.order_id, as_buyer(order)) == order
    assert await shop.orders.get(order.order_id, staff) == order
    for use_case in (
        shop.orders.get(order.order_id, Principal("someone")),
        shop.orders.cancel(order.order_id, "", Principal("someone")),
        shop.orders.get(new_id(), staff),
        shop.orders.cancel(new_id(), "", staff),
    ):
        with pytest.raises(OrderNotFound) as refused:
            await use_case
        assert (refused.value.code, refused.value.reason) == (Code.NOT_FOUND, "ORDER_NOT_FOUND")


async def test_a_list_is_read_from_where_the_page_before_ended(shop: ShopInMemory) -> None:
    buyer = new_id()
    placed = [await shop.place(str(number), buyer) for number in range(3)]
    listed = await shop.orders.list(user_id=buyer, limit=2)
    rest = await shop.orders.list(user_id=buyer, before=listed[-1].order_id, limit=2)
    assert [*listed, *rest] == placed[::-1]
    assert not await shop.orders.list(user_id=buyer, status="confirmed", limit=2)


def test_the_token_of_a_request_does_not_show_in_logs() -> None:
    assert "tok_visa" not in repr(a_command())


# What is a matter of real concurrency, or of statements.


@pytest.mark.stack
async def test_at_once_on_a_database_the_same_request_gives_one_order(
    database_shop: Shop, database: Database
) -> None:
    buyer = new_id()
    orders = await asyncio.gather(*(database_shop.place("at once", buyer) for _ in range(20)))
    assert len({order.order_id for order in orders}) == 1
    topics = await database.fetch("SELECT topic FROM outbox WHERE key = $1", str(orders[0].order_id))
    assert [row["topic"] for row in topics] == ["order.placed"]


@pytest.mark.stack
async def test_confirming_and_cancelling_at_the_same_moment_end_in_one_story(database_shop: Shop) -> None:
    shop = database_shop
    for _ in range(10):
        order = await shop.place(str(new_id()))
        await shop.receive(reserved(order))
        await asyncio.gather(
            shop.receive(paid(order)), shop.orders.cancel(order.order_id, "no", as_buyer(order))
        )
        found = await shop.now(order)
        assert found.status is Status.CANCELLED
        assert found.payment
        assert found.payment.holds_money
        assert await shop.step(order) == "refund"


@pytest.mark.stack
async def test_a_whole_order_takes_nine_statements(database_shop: Shop, database: Database) -> None:
    before = database.statements
    order = await database_shop.place()
    await database_shop.receive(reserved(order))
    await database_shop.receive(paid(order))
    # Placing: save, outbox. Each answer: inbox, read, save; the second confirms: outbox.
    assert database.statements - before == 9
    assert (await database_shop.now(order)).status is Status.CONFIRMED
