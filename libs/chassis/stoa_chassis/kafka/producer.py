"""The Kafka producer, for asyncio.

The library's own asyncio producer takes no headers and holds messages back for up to a second. Here a
thread waits for acknowledgements inside the library, and only while there are some to wait for.
"""

import asyncio
import functools
import threading
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException

from stoa_chassis.kafka.connection import connection
from stoa_chassis.telemetry import get_logger

log = get_logger(__name__)

CORRELATION_ID_HEADER = "correlation_id"
_FLUSH_SECONDS = 5.0
_WAIT_SECONDS = 0.1  # acknowledgements mostly take some milliseconds
_LOOK_SECONDS = 0.25  # between two looks for brokers, and for the answer
_LOOK_SECONDS_WHEN_FROZEN = 2.0
_SILENT_SECONDS = 20.0  # longer than a broker takes to start again


class Record(NamedTuple):
    """A message to publish."""

    topic: str
    key: str | bytes | None
    value: bytes | None
    headers: Mapping[str, str | bytes]


class PublishFailed(Exception):
    """Some records may not be published; `acknowledged` are the positions of those that are."""

    def __init__(self, reason: str, acknowledged: Sequence[int]) -> None:
        super().__init__(reason)
        self.acknowledged = acknowledged


class Producer:
    """Publishes in order, each record once per call, and waits for the acknowledgement of all replicas.

    Being idempotent it keeps the order through retries, and as these have no end a broker that is down delays
    records and never reorders them: a caller that can't wait cancels. But a client that waits and hears
    nothing for 20 s is replaced, since it may have lost its brokers for good (see OutOfGroup): publishing
    what it had fails then, though some of it may be in its topic.
    """

    def __init__(self, bootstrap: str) -> None:
        self._config: dict[str, str | int | bool] = {
            **connection(bootstrap),
            "enable.idempotence": True,
            "acks": "all",
            # A message that timed out would be overtaken by the next one of its key.
            "message.timeout.ms": 0,
            "linger.ms": 1,
            # As Java's producers do it, so that a key has the same partition whoever publishes.
            "partitioner": "murmur2_random",
        }
        self._client: confluent_kafka.Producer | None = None
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._lock = threading.Lock()  # around the client
        self._generation = 0  # of the client
        self._broken, self._cause = -1, ""  # the generation that has met a fatal error, and which
        # Only the thread uses these.
        self._look_at = 0.0  # when brokers may be looked for again
        self._heard_at = 0.0  # when something was acknowledged or refused

    async def __aenter__(self) -> Self:
        """Begin to connect, so that the first record need not wait half a second for it."""
        with self._lock:
            self._connected()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Wait a few seconds for what was sent and not acknowledged, then give up on it."""
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    async def send(
        self,
        topic: str,
        key: str | bytes | None,
        value: bytes | None,
        headers: Mapping[str, str | bytes] | None = None,
    ) -> None:
        """Publish one record and wait until it is acknowledged. Raises PublishFailed."""
        await self.send_batch([Record(topic, key, value, headers or {})])

    async def send_batch(self, records: Sequence[Record]) -> None:
        """Publish records in their order and wait until all are acknowledged. Raises PublishFailed."""
        if not records:
            return
        batch = self._produce(records)
        try:
            failures = await batch.done
        finally:
            if batch.fatal is not None:
                self._broken, self._cause = batch.generation, str(batch.fatal)
                self._wake.set()
        if failures:
            acknowledged = [position for position in range(len(records)) if position not in failures]
            raise PublishFailed(str(next(iter(failures.values()))), acknowledged)

    def _produce(self, records: Sequence[Record]) -> "_Batch":
        with self._lock:  # a client that is given up gets nothing more
            client = self._connected()
            batch = _Batch(len(records), asyncio.get_running_loop(), self._generation)
            for position, record in enumerate(records):
                delivered = functools.partial(self._delivered, batch, position)
                try:
                    client.produce(
                        record.topic,
                        record.value,
                        record.key,
                        on_delivery=delivered,
                        headers=dict(record.headers),
                    )
                except (KafkaException, BufferError) as error:
                    # What follows may have the same key: it must not go first.
                    batch.refused(range(position, len(records)), error)
                    break
        self._wake.set()
        return batch

    def _connected(self) -> confluent_kafka.Producer:
        if self._closed:
            raise PublishFailed("the producer is closed", ())
        if self._client is None:
            self._client = confluent_kafka.Producer(self._config)
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="kafka-producer", daemon=True)
            self._thread.start()
        return self._client

    def _delivered(self, batch: "_Batch", position: int, error: KafkaError | None, _: object) -> None:
        self._heard_at = time.monotonic()
        batch.delivered(position, error)

    def _serve(self) -> None:
        """Run callbacks while anything waits for an acknowledgement; sleep otherwise. (Own thread.)"""
        while not self._closed:
            self._wake.wait()
            self._wake.clear()
            self._heard_at = time.monotonic()
            while self._is_awaited() and not self._closed:
                pass
        if self._client is not None:
            self._client.flush(_FLUSH_SECONDS)

    def _is_awaited(self) -> bool:
        """Wait for acknowledgements, unless the client is of no use; tell whether there are more to come."""
        client = self._client
        if client is None:
            return False
        if self._broken == self._generation:  # by a fatal error, such as a broker that lost its log
            log.error("the Kafka producer broke and is replaced", error=self._cause)
            self._give_up(client)
        elif len(client) == 0:
            return False
        else:
            client.poll(_WAIT_SECONDS)
            silent = time.monotonic() - self._heard_at
            if silent > _SILENT_SECONDS:
                log.warning("no broker acknowledges, the Kafka producer is replaced")
                self._give_up(client)
            elif silent > _WAIT_SECONDS and time.monotonic() > self._look_at:
                self._look_for_brokers(client)
        return True

    def _look_for_brokers(self, client: confluent_kafka.Producer) -> None:
        """Ask who leads. By itself the library looks once a second: for a broker, and then who leads."""
        pause = _LOOK_SECONDS
        try:
            client.list_topics(timeout=_LOOK_SECONDS)
        except KafkaException as error:
            # One that is connected and does not answer has the question, and would answer each.
            if error.args[0].code() == KafkaError._TIMED_OUT:
                pause = _LOOK_SECONDS_WHEN_FROZEN
        self._look_at = time.monotonic() + pause

    def _give_up(self, client: confluent_kafka.Producer) -> None:
        """Let a new client begin, and tell all who still wait for this one."""
        with self._lock:
            self._client = None
            self._generation += 1
        while len(client) and not self._closed:
            client.purge()
            client.flush(_WAIT_SECONDS)
        self._heard_at = time.monotonic()


class _Batch:
    """Collects the acknowledgements of records; `done` gives the failures by position."""

    def __init__(self, size: int, loop: asyncio.AbstractEventLoop, generation: int) -> None:
        self.generation = generation
        self.done: asyncio.Future[dict[int, object]] = loop.create_future()
        self.fatal: KafkaError | None = None
        self._loop = loop
        self._lock = threading.Lock()
        self._waiting = size
        self._failures: dict[int, object] = {}

    def delivered(self, position: int, error: KafkaError | None) -> None:
        """Take note of one acknowledgement. (Called in the producer's thread.)"""
        if error is not None and error.fatal():
            self.fatal = error
        self._settle([position], error)

    def refused(self, positions: Sequence[int], error: Exception) -> None:
        """Take note of records that the client did not accept. (Called in the event loop's thread.)"""
        cause = error.args[0] if error.args else None
        if isinstance(cause, KafkaError) and cause.fatal():
            self.fatal = cause
        self._settle(positions, error)

    def _settle(self, positions: Sequence[int], error: object) -> None:
        with self._lock:
            if error is not None:
                self._failures.update(dict.fromkeys(positions, error))
            self._waiting -= len(positions)
            finished = self._waiting == 0
        if finished and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(self._failures)
