"""Views are published, and never in the way of those who look."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

import pytest

from stoa_catalog.views import Views
from stoa_chassis.avro import Event, EventCodec
from stoa_chassis.clock import SystemClock
from stoa_chassis.context import bound
from stoa_chassis.ids import new_id
from stoa_chassis.kafka import Consumer, Producer, Record
from stoa_events import ProductViewed

from .conftest import Catalog, details, draft

pytestmark = pytest.mark.stack


class DeadBroker:
    """A producer whose broker does not answer, as real ones wait for it: without end."""

    async def send_batch(self, records: Sequence[Record]) -> None:
        await asyncio.Event().wait()


async def test_a_look_is_published_with_who_it_was(catalog: Catalog, kafka_bootstrap: str) -> None:
    product = await catalog.assortment.create(details(), [draft()])
    viewer, heard = new_id(), asyncio.Queue[Event[ProductViewed]]()

    async def hear(event: Event[ProductViewed]) -> None:
        if event.payload.product_id == product.product_id:
            heard.put_nowait(event)

    consumer = Consumer(
        f"test-{new_id()}", kafka_bootstrap, {ProductViewed: hear}, catalog.codec, catalog.producer
    )
    jobs = [asyncio.create_task(work()) for work in (catalog.views.run, consumer.run)]
    try:
        with bound("looking"):
            await catalog.browsing.get(product.product_id, viewer)
        async with asyncio.timeout(30):
            event = await heard.get()
            await catalog.browsing.get(product.product_id, None)
            anonymous = await heard.get()
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
    assert (event.payload.user_id, event.correlation_id) == (viewer, "looking")
    assert anonymous.payload.user_id is None


async def test_nobody_waits_for_a_broker_that_is_down(codec: EventCodec) -> None:
    views = Views(codec, cast(Producer, DeadBroker()), SystemClock())
    job = asyncio.create_task(views.run())
    began = datetime.now(UTC)
    for _ in range(50):
        views.tell(UUID(int=1), None)
        await asyncio.sleep(0)
    assert (datetime.now(UTC) - began).total_seconds() < 1
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)
