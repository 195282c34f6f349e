"""Says that orders were delivered, as the order service says it, for those who can't wait for a carrier.

The event goes through the outbox of the order service, so that it is published like its own. Its order is in
no other book: it is for what comes after a delivery, such as reviews.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID, uuid4

import asyncpg

from stoa_chassis.avro import EventCodec, new_event
from stoa_chassis.clock import SystemClock
from stoa_chassis.kafka import CORRELATION_ID_HEADER
from stoa_contracts.money import Money
from stoa_events import OrderDelivered
from stoa_events.types import OrderItem
from stoa_stack.instance import Instance
from stoa_stack.servers import postgres
from stoa_stack.shopping import Item

_WRITE = """
WITH written AS (
    INSERT INTO outbox (event_id, topic, key, value, headers) SELECT * FROM unnest(
        $1::uuid[], $2::text[], $3::text[], $4::bytea[], $5::jsonb[]
    )
)
SELECT pg_notify('outbox', '')
"""


async def deliver_to(at: Instance, user_ids: Iterable[str], item: Item) -> list[str]:
    """Say that each of these users has received an item, with an order of her own; returns the orders' ids.

    Raises OSError or an error of asyncpg if the order service's database can't be reached.
    """
    codec, correlation_id = EventCodec(at.registry_url), str(uuid4())
    await codec.load(OrderDelivered)
    deliveries = [_delivered(user_id, item, at.currency) for user_id in user_ids]
    events = [new_event(delivery, SystemClock(), correlation_id) for delivery in deliveries]
    connection = await asyncpg.connect(postgres.superuser_url(at, "order"))
    try:
        await connection.execute(
            _WRITE,
            [event.event_id for event in events],
            [event.topic for event in events],
            [event.payload.key for event in events],
            [codec.encode(event) for event in events],
            [f'{{"{CORRELATION_ID_HEADER}": "{correlation_id}"}}'] * len(events),
        )
    finally:
        await connection.close()
    return [str(delivery.order_id) for delivery in deliveries]


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
