"""Units of work on Redis: a key is read, decided on, and written if nobody has written it meanwhile.

The commit is one Lua script, which is Redis' transaction: it writes the key, appends the events to the outbox
and notes the event that was handled, or does nothing. A unit of work changes at most one key. Its keys lie in
different hash slots, so the store is one primary and its replicas, not a Redis Cluster.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

from redis.asyncio import Redis

from stoa_chassis.avro import Event
from stoa_chassis.errors import Aborted
from stoa_chassis.inbox import AlreadyProcessed
from stoa_chassis.outbox import Outbox
from stoa_chassis.redis_outbox import LUA_PUBLISH, RedisOutbox
from stoa_chassis.uow import Busy, LostRace, UnitOfWork
from stoa_contracts.events import Payload

T = TypeVar("T")

_INBOX_LIFETIME = timedelta(days=30)  # longer than a topic keeps an event

# The client sends a script again if the connection broke before the answer came: it then finds what it wrote,
# and must not add the events a second time.
_COMMIT = (
    LUA_PUBLISH
    + """
local document, outbox, inbox = KEYS[1], KEYS[2], KEYS[3]
local expected, changed, lifetime, noted = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if inbox and redis.call('EXISTS', inbox) == 1 then return 'processed' end
local current = redis.call('GET', document) or ''
if current ~= expected then return current == changed and 'committed' or 'conflict' end
if changed ~= '' then
    redis.call('SET', document, changed, 'EX', lifetime)
elseif current ~= '' then
    redis.call('DEL', document)
end
if inbox then redis.call('SET', inbox, '', 'EX', noted) end
publish(outbox, 5)
return 'committed'
"""
)


class RedisTransaction:
    """What the repositories of one unit of work read and write."""

    def __init__(self, redis: Redis) -> None:
        self.outbox = Outbox()
        self._redis = redis
        self._read: dict[str, bytes] = {}
        self._written: tuple[str, bytes, timedelta] | None = None

    async def get(self, key: str, lifetime: timedelta) -> bytes:
        """Return what a key holds, b"" if it is not there, and renew its life."""
        stored: Any = await self._redis.getex(key, ex=lifetime)
        self._read[key] = cast(bytes, stored or b"")
        return self._read[key]

    def put(self, key: str, value: bytes, lifetime: timedelta) -> None:
        """Write a key that was read when the unit of work commits; b"" deletes it.

        Raises RuntimeError for a second key: there is no transaction over several.
        """
        if self._written is not None and self._written[0] != key:
            raise RuntimeError(f"a unit of work changes one key: {self._written[0]} or {key}")
        self._written = (key, value, lifetime)

    def change(self, inbox: str | None) -> tuple[str, bytes, bytes, timedelta] | None:
        """Return what is to be written: key, expected, changed, lifetime; None if there is nothing.

        Raises RuntimeError for events without a change that they could go with.
        """
        if self._written is None and self.outbox.payloads:
            raise RuntimeError(f"events of a unit of work that writes no key: {self.outbox.payloads}")
        if self._written is not None:
            key, value, lifetime = self._written
            if value != self._read[key] or self.outbox.payloads or inbox:
                return key, self._read[key], value, lifetime
        return (inbox, b"", b"", _INBOX_LIFETIME) if inbox else None


def redis_unit_of_work(
    redis: Redis,
    outbox: RedisOutbox,
    inbox: str,
    open_tx: Callable[[RedisTransaction], T],
    busy: type[Aborted] = Busy,
) -> UnitOfWork[T]:
    """Return what runs use cases as changes of one key; handled events are noted at `<inbox>:<event id>`.

    Using what it returns raises LookupError if an event is published whose type the codec did not load.
    """
    commit = redis.register_script(_COMMIT)

    @asynccontextmanager
    async def begin(consuming: Event[Payload] | None) -> AsyncIterator[T]:
        transaction = RedisTransaction(redis)
        yield open_tx(transaction)
        noted = f"{inbox}:{consuming.event_id}" if consuming is not None else None
        change = transaction.change(noted)
        if change is None:
            return
        key, expected, changed, lifetime = change
        seconds = [int(each.total_seconds()) for each in (lifetime, _INBOX_LIFETIME)]
        outcome = await commit(
            keys=[key, outbox.stream, *([noted] if noted else ())],
            args=[expected, changed, *seconds, *outbox.arguments(transaction.outbox.take())],
        )
        if outcome == b"processed":
            raise AlreadyProcessed(f"{consuming}")
        if outcome == b"conflict":
            raise LostRace

    return UnitOfWork(begin, busy)
