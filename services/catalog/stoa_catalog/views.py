"""Events of products that were looked at, published without making the reader wait.

They may be lost: while Kafka is down for long, those that were on their way, and those that don't fit in the
queue.
"""

import asyncio
import contextlib
from collections import deque
from uuid import UUID

from stoa_chassis.avro import EventCodec, new_event
from stoa_chassis.clock import Clock
from stoa_chassis.context import correlation_id
from stoa_chassis.ids import new_id
from stoa_chassis.kafka import CORRELATION_ID_HEADER, Producer, PublishFailed, Record
from stoa_chassis.telemetry import get_logger, trace_headers
from stoa_events import ProductViewed

_log = get_logger(__name__)
_MAX_WAITING = 10_000
_LINGER_SECONDS = 0.5  # so that many share a request to the broker, which costs more than the read itself
_LAST_SECONDS = 2.0  # to publish what waits when the service stops


class Views:
    """Publishes `product.viewed`, at most once each."""

    def __init__(self, codec: EventCodec, producer: Producer, clock: Clock) -> None:
        self._codec = codec
        self._producer = producer
        self._clock = clock
        self._waiting: deque[Record] = deque(maxlen=_MAX_WAITING)
        self._wake = asyncio.Event()

    def record(self, product_id: UUID, user_id: UUID | None) -> None:
        """Publish soon that someone (None: nobody known) looked at a product."""
        event = new_event(
            ProductViewed(product_id=product_id, user_id=user_id),
            self._clock,
            correlation_id() or str(new_id()),
        )
        headers = {**trace_headers(), CORRELATION_ID_HEADER: event.correlation_id}
        self._waiting.append(Record(event.topic, event.payload.key, self._codec.encode(event), headers))
        self._wake.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        try:
            while True:
                await self._wake.wait()
                await asyncio.sleep(_LINGER_SECONDS)
                self._wake.clear()
                await self._publish()
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_SECONDS):
                    await self._publish()
            raise

    async def _publish(self) -> None:
        records = list(self._waiting)
        self._waiting.clear()
        try:
            await self._producer.send_batch(records)
        except PublishFailed as failure:
            _log.warning("views may not be published", count=len(records), error=str(failure))
