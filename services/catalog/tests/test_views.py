"""Views are published, and never in the way of those who look."""

import asyncio
import time
from collections.abc import Sequence
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

pytestmark = pytest.mark.stack


class DeadBroker:
    """A producer whose broker does not answer, as real ones wait for it: without end."""

    async def send_batch(self, records: Sequence[Record]) -> None:
        await asyncio.Event().wait()


async def test_a_look_is_published_with_who_it_was(
    codec: EventCodec, producer: Producer, kafka_bootstrap: str
) -> None:
    views = Views(codec, producer, SystemClock())
    product_id, viewer, published = new_id(), new_id(), asyncio.Queue[Event[ProductViewed]]()

    async def on_viewed(event: Event[ProductViewed]) -> None:
        if event.payload.product_id == product_id:
            published.put_nowait(event)

    consumer = Consumer(f"test-{new_id()}", kafka_bootstrap, {ProductViewed: on_viewed}, codec, producer)
    jobs = [asyncio.create_task(work()) for work in (views.run, consumer.run)]
    try:
        with bound("looking"):
            views.record(product_id, viewer)
        async with asyncio.timeout(30):
            event = await published.get()
            views.record(product_id, None)
            anonymous = await published.get()
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
    assert (event.payload.user_id, event.correlation_id) == (viewer, "looking")
    assert anonymous.payload.user_id is None


async def test_nobody_waits_for_a_broker_that_is_down(codec: EventCodec) -> None:
    views = Views(codec, cast(Producer, DeadBroker()), SystemClock())
    job = asyncio.create_task(views.run())
    began = time.monotonic()
    for _ in range(50):
        views.record(UUID(int=1), None)
        await asyncio.sleep(0)
    assert time.monotonic() - began < 1
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)
