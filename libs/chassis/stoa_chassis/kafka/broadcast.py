"""Events for every process: for what each keeps in its own memory, such as a read model or a cache.

The members of a consumer group share the events of their topics; here each process receives all of them,
from now on. Nothing is committed and nothing parked, because what a process keeps in memory it can make anew:
`begin` is called whenever listening (re)starts, to look up what was missed.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaException, Message, TopicPartition

from stoa_chassis.avro import EventCodec, UndecodableMessage
from stoa_chassis.kafka.connection import connection
from stoa_chassis.kafka.consumer import Handler
from stoa_chassis.kafka.dead_letters import ADDRESSEE_HEADER
from stoa_chassis.outages import is_outage
from stoa_chassis.telemetry import get_logger

log = get_logger(__name__)

_MESSAGES = 100
_POLL_SECONDS = 1.0  # bounds how long a stop takes; messages end a poll at once
_REQUEST_SECONDS = 3.0
_PAUSE_SECONDS = 1.0


class Broadcast:
    """Calls a handler for each event that is published from now on, in order per partition.

    A handler that meets an outage is called again until it works. Another error is logged and the event
    passed over: it would hold up all that follow.
    """

    def __init__(
        self,
        bootstrap: str,
        handlers: Mapping[type[Any], Handler],
        codec: EventCodec,
        begin: Callable[[], Awaitable[None]],
    ) -> None:
        self._handlers = dict(handlers)
        self._codec = codec
        self._begin = begin
        self._config: dict[str, Any] = {
            **connection(bootstrap),
            "group.id": "broadcast",  # the library wants one; it is never joined
            "enable.auto.commit": False,
            "auto.offset.reset": "latest",
            # As with the consumer: new messages are answered at once, but not those of a partition that
            # was not part of the fetch that is waiting.
            "fetch.min.bytes": 1,
            "fetch.wait.max.ms": 500,
            "fetch.error.backoff.ms": 100,
        }

    async def run(self) -> None:
        """Listen until cancelled, whatever happens to the broker."""
        self._codec.read(*self._handlers)
        client = confluent_kafka.Consumer(self._config)
        try:
            await self._start(client)
            while True:
                for message in await _finished(asyncio.to_thread(_poll, client)):
                    await self._handle(message)
        finally:
            await _finished(asyncio.to_thread(client.close))

    async def _start(self, client: confluent_kafka.Consumer) -> None:
        """Fix where listening starts, and only then look up what was before."""
        topics = [payload.TOPIC for payload in self._handlers]
        while True:
            try:
                client.assign(await _finished(asyncio.to_thread(_ends, client, topics)))
                await self._begin()
                return
            except Exception as error:
                if not (is_outage(error) or isinstance(error, KafkaException)):
                    raise
                log.info("waiting to listen", topics=topics, error=repr(error))
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _handle(self, message: Message) -> None:
        topic, value = message.topic() or "", message.value()
        if (trouble := message.error()) is not None:
            log.warning("the broker reports an error", error=str(trouble))
            return
        if ADDRESSEE_HEADER in dict(message.headers() or ()):
            return  # a dead letter that is replayed to a group: everyone here got it the first time
        while True:
            try:
                event = await self._codec.decode(topic, value or b"")
                await self._handlers[type(event.payload)](event)
                return
            except UndecodableMessage as error:
                log.warning("an event can't be read", topic=topic, offset=message.offset(), error=str(error))
                return
            except Exception as error:
                if not is_outage(error):
                    log.exception("an event can't be handled", topic=topic, offset=message.offset())
                    return
                log.warning("waiting to handle an event", topic=topic, error=repr(error))
            await asyncio.sleep(_PAUSE_SECONDS)


async def _finished(work: Awaitable[Any]) -> Any:
    """Wait for work in a thread to its end also when cancelled: the client must not be closed under it."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            await task
        raise


def _ends(client: confluent_kafka.Consumer, topics: list[str]) -> list[TopicPartition]:
    """Return where each partition ends. Raises KafkaException."""
    found = client.list_topics(timeout=_REQUEST_SECONDS).topics
    partitions = [
        TopicPartition(topic, number)
        for topic in topics
        if topic in found
        for number in found[topic].partitions
    ]
    for partition in partitions:
        _, partition.offset = client.get_watermark_offsets(partition, timeout=_REQUEST_SECONDS)
    return partitions


def _poll(client: confluent_kafka.Consumer) -> list[Message]:
    first = client.poll(_POLL_SECONDS)
    return [] if first is None else [first, *client.consume(_MESSAGES - 1, 0)]
