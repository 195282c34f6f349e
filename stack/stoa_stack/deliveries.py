"""Says that orders were delivered, as the order service says it, for those who can't wait for a carrier.

The event goes through the outbox of the order service, so that it is published like its own. Its order is in
no other book: it is for what comes after a delivery, such as reviews.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID, uuid4

from stoa_chassis.avro import EventCodec
from stoa_chassis.clock import SystemClock
from stoa_chassis.outbox import Outbox
from stoa_chassis.postgres import Database
from stoa_chassis.postgres_uow import postgres_unit_of_work
from stoa_contracts.money import Money
from stoa_events import OrderDelivered
from stoa_events.types import OrderItem
from stoa_stack.instance import Instance
from stoa_stack.servers import postgres
from stoa_stack.shopping import Item


async def deliver_to(at: Instance, user_ids: Iterable[str], item: Item) -> None:
    """Say that each of these users has received an item, with an order of her own.

    Raises Unavailable if the order service's database can't be reached.
    """
    codec = EventCodec(at.registry_url)
    await codec.load(OrderDelivered)
    deliveries = [_delivered(user_id, item, at.currency) for user_id in user_ids]

    async def write(outbox: Outbox) -> None:
        outbox.payloads.extend(deliveries)

    async with Database.connect(postgres.superuser_url(at, "order"), pool_size=1) as database:
        await postgres_unit_of_work(database, codec, lambda _, outbox: outbox, SystemClock()).run(write)


def _delivered(user_id: str, item: Item, currency: str) -> OrderDelivered:
    bought = OrderItem(
        product_id=UUID(item.product_id),
        variant_id=UUID(item.variant_id),
        quantity=1,
        price=Money(Decimal("20.00"), currency),
    )
    return OrderDelivered(
        order_id=uuid4(), user_id=UUID(user_id), items=(bought,), delivered_at=datetime.now(UTC)
    )
