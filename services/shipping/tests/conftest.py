"""The shipping service on a store and carriers in memory; tests marked `stack` put it on a real database."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TypeVar
from uuid import UUID, uuid4

import pytest

from stoa_chassis.avro import Event, new_event
from stoa_chassis.due import Backoff
from stoa_chassis.memory import MemoryStore, memory_unit_of_work
from stoa_chassis.testing import SettableClock
from stoa_contracts.events import Payload
from stoa_contracts.money import Money
from stoa_events import (
    OrderCancelled,
    OrderConfirmed,
    PaymentSuccessful,
    ShipmentCreated,
    ShipmentStatusUpdated,
)
from stoa_events import types as event_types
from stoa_shipping import testing
from stoa_shipping.model import (
    Address,
    Method,
    Parcel,
    RetryPolicy,
    Shipment,
    Status,
    TrackingEvent,
)
from stoa_shipping.service import Quotes, Scale, Shipments
from stoa_shipping.tariff import RATES, Origin, Tariff
from stoa_shipping.testing import FakeCarrier

P = TypeVar("P", bound=Payload)
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
RETRY = RetryPolicy(timedelta(seconds=16), timedelta(seconds=60), timedelta(hours=1))
BACKOFF = Backoff(timedelta(seconds=1), timedelta(seconds=30))
POLLING = Backoff(timedelta(seconds=60), timedelta(minutes=15))
TARIFF = Tariff(Origin("US", "NY"), "USD", RATES, 1_000_000)
SCALE = Scale(500)
ADDRESS = Address("Ada Lovelace", "12 Main St", "Floor 2", "Austin", "TX", "78701", "US")
# By a domestic standard parcel, in this order.
FIRST, SECOND, THIRD = "ups", "fedex", "dhl"
CARRIERS = (FIRST, SECOND, THIRD)


def a_parcel(destination: Address = ADDRESS, method: Method = Method.STANDARD) -> Parcel:
    return Parcel(method, destination, 1500, Money(Decimal("40.00"), "USD"))


def scan(status: Status, minutes: int = 0, description: str = "Scanned") -> TrackingEvent:
    return TrackingEvent(status, description, "Austin", NOW + timedelta(minutes=minutes))


@dataclass
class AnOrder:
    """An order, and the events that are told of it."""

    order_id: UUID = field(default_factory=uuid4)
    user_id: UUID = field(default_factory=uuid4)
    method: str = "standard"
    line2: str = ""
    variant_id: UUID = field(default_factory=uuid4)
    quantity: int = 2

    @property
    def confirmed(self) -> Event[OrderConfirmed]:
        return _event(
            OrderConfirmed(
                order_id=self.order_id,
                user_id=self.user_id,
                items=self._items,
                total_amount=Money(Decimal("40.00"), "USD"),
                shipping_address=event_types.Address(
                    recipient="Ada Lovelace",
                    line1="12 Main St",
                    line2=self.line2,
                    city="Austin",
                    region="TX",
                    postal_code="78701",
                    country="US",
                ),
                shipping_method=self.method,
            )
        )

    @property
    def paid(self) -> Event[PaymentSuccessful]:
        return _event(
            PaymentSuccessful(
                payment_id=uuid4(),
                order_id=self.order_id,
                user_id=self.user_id,
                amount=Money(Decimal("40.00"), "USD"),
                brand="visa",
                last4="4242",
            )
        )

    @property
    def cancelled(self) -> Event[OrderCancelled]:
        return _event(
            OrderCancelled(
                order_id=self.order_id,
                user_id=self.user_id,
                items=self._items,
                total_amount=Money(Decimal("40.00"), "USD"),
                reason="changed her mind",
            )
        )

    @property
    def _items(self) -> tuple[event_types.OrderItem, ...]:
        price = Money(Decimal("20.00"), "USD")
        return (
            event_types.OrderItem(
                product_id=uuid4(), variant_id=self.variant_id, quantity=self.quantity, price=price
            ),
        )


def _event(payload: P) -> Event[P]:
    return new_event(payload, SettableClock(), "the request")


@dataclass
class Shop:
    """The use cases, and all that they work on."""

    store: MemoryStore[testing.Rows]
    clock: SettableClock
    carriers: dict[str, FakeCarrier]
    shipments: Shipments
    quotes: Quotes

    async def ready(self, order: AnOrder | None = None) -> AnOrder:
        """Have an order confirmed and paid."""
        order = order or AnOrder()
        await self.shipments.on_payment_successful(order.paid)
        await self.shipments.on_order_confirmed(order.confirmed)
        return order

    async def created(self, order: AnOrder | None = None) -> AnOrder:
        """Have its parcel booked as well."""
        order = await self.ready(order)
        await self.work()
        assert self.of(order).status is Status.CREATED
        return order

    async def work(self, **later: float) -> int:
        """Work off what is due after a while."""
        self.clock.advance(**later)
        return await self.shipments.unfinished.work_off()

    async def finish(self) -> None:
        """Work off what is due until nothing is to be done at once."""
        for _ in range(50):
            if not any(each.to_void or each.asking or each.to_confirm for each in self.all()):
                return
            await self.work(seconds=30)
        raise AssertionError("something is still to be done")

    async def tell(self, carrier: str, order: AnOrder, *scans: TrackingEvent) -> None:
        """Have a carrier tell of scans, which it has in its books."""
        fake, shipment_id = self.carriers[carrier], self.of(order).shipment_id
        for each in scans:
            fake.books = fake.books.scan(shipment_id, each)
        body, headers = fake.notice(shipment_id, *scans)
        await self.shipments.receive_notice(carrier, body, headers)

    def all(self) -> Sequence[Shipment]:
        return [testing.shipment_of(row) for row in self.store.rows.shipments]

    def of(self, order: AnOrder) -> Shipment:
        return next(each for each in self.all() if each.order_id == order.order_id)

    def parcels(self, order: AnOrder) -> list[str]:
        """Return the carriers that send something of an order."""
        held = {name: fake.books.of(self.of(order).shipment_id) for name, fake in self.carriers.items()}
        return [name for name, each in held.items() if each is not None and each.is_parcel]

    def told(self, order: AnOrder) -> list[str]:
        """Return what was published of an order's parcel, oldest first."""
        told = []
        for event in self.store.published:
            if event.payload.key == str(order.order_id):
                match event.payload:
                    case ShipmentCreated():
                        told.append("created")
                    case ShipmentStatusUpdated() as changed:
                        told.append(changed.status)
        return told


def make_shop(change: Callable[[Tariff], Tariff] = lambda tariff: tariff) -> Shop:
    """Make the use cases, with another tariff if need be."""
    store, clock = MemoryStore(testing.Rows()), SettableClock()
    clock.at = NOW
    carriers = {name: FakeCarrier(name) for name in CARRIERS}
    tariff = change(TARIFF)
    shipments = Shipments(
        memory_unit_of_work(lambda: store, testing.open_tx, clock),
        testing.ShipmentReader(lambda: store),
        testing.Unfinished(lambda: store, BACKOFF, RETRY.lease),
        carriers,
        tariff,
        SCALE,
        clock,
        RETRY,
        BACKOFF,
        POLLING,
    )
    quotes = Quotes(testing.Weights(lambda: store), SCALE, tariff, clock)
    return Shop(store, clock, carriers, shipments, quotes)


@pytest.fixture
def shop() -> Shop:
    """A shop in which nothing has happened."""
    return make_shop()
