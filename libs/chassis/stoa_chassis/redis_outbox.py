"""An outbox in Redis: a script that changes a key appends the events to a stream; a relay publishes them.

A Lua script is Redis' transaction: the change and its events are stored together or not at all. A service
puts `LUA_PUBLISH` in front of its script, which calls `publish(stream, first)`, and passes the arguments that
`RedisOutbox.arguments` makes as the last ones. Pattern:
https://microservices.io/patterns/data/transactional-outbox.html

Key and stream have to be on the same server: in a cluster, in one hash slot.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.asyncio.lock import Lock
from redis.exceptions import LockNotOwnedError, RedisError

from stoa_chassis.avro import EventCodec, new_event
from stoa_chassis.clock import Clock, SystemClock
from stoa_chassis.context import correlation_id
from stoa_chassis.ids import new_id
from stoa_chassis.kafka import CORRELATION_ID_HEADER, Producer, PublishFailed, Record
from stoa_chassis.redis import COMMAND_SECONDS, OUTAGES
from stoa_chassis.telemetry import (
    OUTBOX_AGE_SECONDS,
    OUTBOX_BACKLOG,
    OUTBOX_PUBLISHED,
    get_logger,
    trace_headers,
)
from stoa_contracts.events import Payload

log = get_logger(__name__)

LUA_PUBLISH = """
-- Append the events whose arguments start at ARGV[first].
local function publish(stream, first)
    for i = first, #ARGV, 4 do
        redis.call('XADD', stream, '*',
            'topic', ARGV[i], 'key', ARGV[i + 1], 'value', ARGV[i + 2], 'headers', ARGV[i + 3])
    end
end
"""

_BATCH = 500
_BLOCK_SECONDS = COMMAND_SECONDS * 0.8
# A lease outlives the longest time between two renewals: not due yet, a read, a wait for the broker.
_RENEW_SECONDS = _BLOCK_SECONDS / 2
_LEASE_SECONDS = _BLOCK_SECONDS * 3
_STANDBY_SECONDS = _BLOCK_SECONDS
# The least time between two reads: what comes meanwhile goes together, for about the price of one event.
_PACE_SECONDS = 0.05
_PAUSES = (0.1, 5.0)  # seconds: the first and the longest

_Entry = tuple[bytes, dict[bytes, bytes]]


class RedisOutbox:
    """The events of one stream, and the relay that publishes them, at least once and in order.

    The relay reads from the head of the stream and deletes what the broker has acknowledged, so the stream
    holds what is not published yet. One relay at a time works, the one that holds a lease; the others stand
    by. The lease only saves work: a relay that was stopped and woke up after another took over can publish
    events again, but never an event before those in front of it, since these were published before they
    disappeared from the stream.
    """

    def __init__(
        self, redis: Redis, stream: str, codec: EventCodec, producer: Producer, clock: Clock | None = None
    ) -> None:
        self.stream = stream
        self._redis = redis
        self._codec = codec
        self._producer = producer
        self._clock = clock or SystemClock()

    def arguments(self, payloads: Iterable[Payload]) -> list[str | bytes]:
        """Return what a script passes to `publish` to append these events, in this order.

        Raises LookupError if the codec did not load a payload's type.
        """
        correlation = correlation_id() or str(new_id())
        headers = orjson.dumps({**trace_headers(), CORRELATION_ID_HEADER: correlation})
        arguments: list[str | bytes] = []
        for payload in payloads:
            event = new_event(payload, self._clock, correlation)
            arguments += [event.topic, payload.key, self._codec.encode(event), headers]
        return arguments

    async def run(self) -> None:
        """Relay until cancelled, whatever happens to Redis and the broker."""
        first_pause, longest_pause = _PAUSES
        pause = first_pause
        while True:
            try:
                async with self._turn() as lease:
                    log.info("the outbox relay is active", stream=self.stream)
                    renewed_at = 0.0
                    while True:
                        began = time.monotonic()
                        if began - renewed_at > _RENEW_SECONDS:
                            await lease.reacquire()
                            renewed_at = began
                        await self._publish(await self._read(), lease)
                        pause = first_pause
                        await asyncio.sleep(began + _PACE_SECONDS - time.monotonic())
            except OUTAGES as error:
                log.warning("the outbox relay lost its stream", stream=self.stream, error=repr(error))
            except PublishFailed as failure:
                log.error("events can't be published yet", stream=self.stream, error=str(failure))
            except LockNotOwnedError:
                log.warning("another outbox relay took over", stream=self.stream)
            except Exception:
                log.exception("the outbox relay failed", stream=self.stream)
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(pause * 2, longest_pause)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[Lock]:
        """Wait until this is the active relay, and let another one in at the end."""
        lease = Lock(self._redis, f"{self.stream}:relay", timeout=_LEASE_SECONDS, sleep=_STANDBY_SECONDS)
        await lease.acquire()
        try:
            yield lease
        finally:
            with contextlib.suppress(RedisError):  # it ends by itself
                await lease.release()

    async def _read(self) -> Sequence[_Entry]:
        """Return the first events of the stream; if there are none, wait for some a while."""
        answer: Any = await self._redis.xread(
            {self.stream: "0-0"}, count=_BATCH, block=int(_BLOCK_SECONDS * 1000)
        )
        entries: Sequence[_Entry] = answer[0][1] if answer else ()
        OUTBOX_BACKLOG.set(await self._redis.xlen(self.stream) if len(entries) == _BATCH else len(entries))
        return entries

    async def _publish(self, entries: Sequence[_Entry], lease: Lock) -> None:
        """Publish events and delete them. Raises PublishFailed if some were refused."""
        if not entries:
            return
        records = [_record(fields) for _, fields in entries]
        sending = asyncio.ensure_future(self._producer.send_batch(records))
        try:
            while not (await asyncio.wait([sending], timeout=_BLOCK_SECONDS))[0]:
                OUTBOX_AGE_SECONDS.set(time.time() - _written_at(entries[0]))
                log.warning("the broker does not acknowledge", stream=self.stream, events=len(records))
                await lease.reacquire()
        except BaseException:
            sending.cancel()
            raise
        try:
            await sending
        except PublishFailed as failure:
            await self._delete([entries[position] for position in failure.acknowledged])
            raise
        await self._delete(entries)

    async def _delete(self, entries: Sequence[_Entry]) -> None:
        if not entries:
            return
        await self._redis.xdel(self.stream, *(entry_id for entry_id, _ in entries))
        OUTBOX_AGE_SECONDS.set(0)
        for _, fields in entries:
            OUTBOX_PUBLISHED.labels(fields[b"topic"].decode()).inc()


def _record(fields: dict[bytes, bytes]) -> Record:
    return Record(
        fields[b"topic"].decode(), fields[b"key"].decode(), fields[b"value"], orjson.loads(fields[b"headers"])
    )


def _written_at(entry: _Entry) -> float:
    """Return when an entry was appended, in seconds since 1970: its id begins with the milliseconds."""
    return int(entry[0].split(b"-")[0]) / 1000
