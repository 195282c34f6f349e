"""Units of work on Redis: a key is read, decided on, and written if nobody has written it meanwhile.

The commit is one Lua script, which is Redis' transaction: it writes the key, appends the events to the outbox
and notes the event that was handled, or does nothing. A unit of work changes at most one key. Its keys lie in
different hash slots, so the store is one primary and its replicas, not a Redis Cluster.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

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
local whatever, expected, changed, lifetime, noted = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if inbox and redis.call('EXISTS', inbox) == 1 then return 'processed' end
local current = redis.call('GET', document) or ''
if whatever == '' and current ~= expected then return current == changed and 'committed' or 'conflict' end
if changed ~= '' then
    redis.call('SET', document, changed, 'EX', lifetime)
elseif current ~= '' then
    redis.call('DEL', document)
end
if inbox then redis.call('SET', inbox, '', 'EX', noted) end
publish(outbox, 6)
return 'committed'
"""
)


LUA_READ = """
local function read(key, lifetime)
    local stored = redis.call('GET', key)
    if stored and redis.call('TTL', key) < lifetime * 29 / 30 then redis.call('EXPIRE', key, lifetime) end
    return stored
end
"""
"""`read(key, lifetime)`, for scripts: what a key holds that lives for so many seconds after its last use.

To renew a life is to write, which may wait for the disk: it is done when a thirtieth of it is over.
"""
_READ = LUA_READ + "return read(KEYS[1], ARGV[1]) or ''"


class Reader:
    """Reads keys that live for a while after their last use."""

    def __init__(self, redis: Redis) -> None:
        self._read = redis.register_script(_READ)

    async def get(self, key: str, lifetime: timedelta) -> bytes:
        """Return what a key holds, b"" if it is not there, and renew its life if much of it is over."""
        return cast(bytes, await self._read(keys=[key], args=[int(lifetime.total_seconds())]))


@dataclass(frozen=True, slots=True)
class _Change:
    """What a key is to hold, b"" for nothing.

    `expected` is what it must hold until then; None: whatever it holds.
    """

    key: str
    expected: bytes | None
    changed: bytes
    lifetime: timedelta


class RedisTransaction:
    """What the repositories of one unit of work read and write."""

    def __init__(self, reader: Reader) -> None:
        self.outbox = Outbox()
        self._reader = reader
        self._read: dict[str, bytes] = {}
        self._change: _Change | None = None

    async def get(self, key: str, lifetime: timedelta) -> bytes:
        """Return what a key holds as `Reader.get` does."""
        self._read[key] = await self._reader.get(key, lifetime)
        return self._read[key]

    def put(self, key: str, value: bytes, lifetime: timedelta) -> None:
        """Write a key that was read when the unit of work commits; b"" deletes it.

        Raises RuntimeError for a second key: there is no transaction over several.
        """
        self._takes(_Change(key, self._read[key], value, lifetime))

    def delete(self, key: str) -> None:
        """Delete a key when the unit of work commits, whatever it holds by then. Raises as `put`.

        No events go with that: the script could not tell that it is sent again.
        """
        self._takes(_Change(key, None, b"", _INBOX_LIFETIME))

    def change(self, inbox: str | None) -> _Change | None:
        """Return what is to be written; None if there is nothing.

        Raises RuntimeError for events without a change that they could go with.
        """
        change = self._change
        if self.outbox.payloads and (change is None or change.expected is None):
            raise RuntimeError(f"events of a unit of work that writes no key: {self.outbox.payloads}")
        if change is None:
            return _Change(inbox, b"", b"", _INBOX_LIFETIME) if inbox else None
        same = change.changed == change.expected
        return None if same and not self.outbox.payloads and not inbox else change

    def _takes(self, change: _Change) -> None:
        if self._change is not None and self._change.key != change.key:
            raise RuntimeError(f"a unit of work changes one key: {self._change.key} or {change.key}")
        self._change = change


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
    commit, reader = redis.register_script(_COMMIT), Reader(redis)

    @asynccontextmanager
    async def begin(consuming: Event[Payload] | None) -> AsyncIterator[T]:
        transaction = RedisTransaction(reader)
        yield open_tx(transaction)
        noted = f"{inbox}:{consuming.event_id}" if consuming is not None else None
        change = transaction.change(noted)
        if change is None:
            return
        outcome = await commit(
            keys=[change.key, outbox.stream, *([noted] if noted else ())],
            args=[
                "yes" if change.expected is None else "",
                change.expected or b"",
                change.changed,
                int(change.lifetime.total_seconds()),
                int(_INBOX_LIFETIME.total_seconds()),
                *outbox.arguments(transaction.outbox.take()),
            ],
        )
        if outcome == b"processed":
            raise AlreadyProcessed
        if outcome == b"conflict":
            raise LostRace

    return UnitOfWork(begin, busy)
