"""A shopper's request can be followed through all that it led to, however late that happened."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pytest

from stoa_chassis.kafka import CORRELATION_ID_HEADER
from stoa_ops.events import EventReader
from stoa_ops.topics import TopicReader
from stoa_stack.instance import Instance
from stoa_stack.shopping import new_product, open_account, put_on_sale
from tests.e2e.shop import Customer, Shop, eventually
from tests.shell import stoa

# Each kind of outbox publishes some: PostgreSQL's table, MongoDB's documents, the stream in Redis.
LED_TO = {
    "user.registered",
    "product.created",
    "cart.item_added",
    "order.placed",
    "inventory.reserved",
    "inventory.low_stock",
    "order.cancelled",
    "payment.successful",
    "payment.refunded",
}


class Published(NamedTuple):
    """An event in its topic, and the correlation ids of its headers and its envelope."""

    topic: str
    key: str
    header: str
    envelope: str


class Events:
    """What lies in the topics of events."""

    def __init__(self, at: Instance) -> None:
        self._kafka = at.address("kafka")
        self._events = EventReader(at.registry_url)

    def of(self, *keys: str) -> list[Published]:
        """Read the events that have one of these keys."""
        with closing(TopicReader(self._kafka)) as reader:
            return sorted(self._read(reader, keys))

    def _read(self, reader: TopicReader, keys: tuple[str, ...]) -> Iterator[Published]:
        topics = [topic for topic in reader.topics() if topic in LED_TO | {"order.confirmed"}]
        for message in reader.read(topics):
            key = (message.key() or b"").decode()
            if key in keys:
                header = dict(message.headers() or ())[CORRELATION_ID_HEADER]
                envelope = self._events.read(message.value())
                yield Published(
                    message.topic() or "",
                    key,
                    header.decode() if isinstance(header, bytes) else str(header),
                    envelope["correlation_id"],
                )


@pytest.mark.slow
@pytest.mark.local("reads the topics themselves: a broker in a cluster is found by its name there alone")
@pytest.mark.timeout(300)
async def test_all_that_a_request_leads_to_carries_its_id_whatever_times_out_on_the_way(
    shop: Shop, state: Path
) -> None:
    events = Events(Instance.current({"STOA_STATE": str(state)}))
    request = str(uuid4())
    asking = {"x-request-id": request}
    access = json.loads((state / "access.json").read_text())
    clerk = await Customer(shop.http, **asking).sign_in(**access["staff"])
    (item,) = await put_on_sale(clerk, new_product(), 5)
    ada = await open_account(Customer(shop.http, **asking))
    await ada.add(item)

    order = await ada.settled(await ada.order("tok_timeout"), within=60)
    assert "timed out" in order["status_history"][-1]["reason"]
    keys = (ada.user_id, item.product_id, item.variant_id, order["order_id"])

    async def all_of_it() -> list[Published] | None:
        found = events.of(*keys)
        return found if {event.topic for event in found} >= LED_TO else None

    found = await eventually(all_of_it, within=90)
    assert {(event.header, event.envelope) for event in found} == {(request, request)}, found

    # A replay rebuilds what is read of orders, and tells nobody anything.
    code, output = await stoa("replay", "order")
    assert code == 0, output
    bob = await shop.shopper()
    await bob.add(item)
    later = await bob.order()

    async def published_since() -> bool:
        return "order.placed" in {event.topic for event in events.of(later["order_id"])}

    assert await eventually(published_since)
    assert len(events.of(order["order_id"])) == len(
        [event for event in found if event.key == order["order_id"]]
    )
