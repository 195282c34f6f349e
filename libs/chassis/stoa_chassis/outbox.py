"""The transactional outbox: events commit with the change that caused them, and are published after it.

A unit of work writes them to a table (`Outbox`); a relay takes them from there to Kafka (`OutboxRelay`), at
least once and in order per key. Pattern: https://microservices.io/patterns/data/transactional-outbox.html
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Sequence

import asyncpg

from stoa_chassis.avro import Event, EventCodec, new_event
from stoa_chassis.clock import Clock
from stoa_chassis.context import correlation_id
from stoa_chassis.errors import Unavailable
from stoa_chassis.ids import new_id
from stoa_chassis.kafka import CORRELATION_ID_HEADER, Producer, PublishFailed, Record
from stoa_chassis.postgres import CONNECTION_ERRORS, Database
from stoa_chassis.telemetry import (
    OUTBOX_AGE_SECONDS,
    OUTBOX_BACKLOG,
    OUTBOX_PUBLISHED,
    get_logger,
    trace_headers,
)
from stoa_contracts.events import Payload

log = get_logger(__name__)

CHANNEL = "outbox"
_MAX_VALUE_BYTES = 900_000  # what a broker takes with its default of 1 MB, headers included
_BATCH = 500
_STATEMENT_SECONDS = 30.0
_CLOSING_SECONDS = 2.0
_PATIENCE_SECONDS = 15.0
_PRUNE_SECONDS = 3600.0
_PRUNE_BATCH = 5000
_FIRST_PAUSE_SECONDS = 0.1
_MARK_SECONDS = 0.5
_PACE_SECONDS = 0.025  # between two reads at least, so that what comes close together is published together
RELAY_LOCK = 0x6F757462
"""The advisory lock that the active relay of a database holds; any number, the same for all relays."""
_LOCK_WAIT_SECONDS = 60
_MAX_PAUSE_SECONDS = 5.0

# Ids are given in the order of the array, and the notification is sent when the transaction commits.
_ADD = """
WITH added AS (
    INSERT INTO outbox (event_id, topic, key, value, headers)
    SELECT event_id, topic, key, value, $5
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[])
        WITH ORDINALITY AS added (event_id, topic, key, value, position)
    ORDER BY position
)
SELECT pg_notify('outbox', '')
"""

_MARK = "UPDATE outbox SET published_at = now() WHERE id = ANY ($1::bigint[])"

# Marks one batch and reads the next in one round trip. The read sees the table as it was before the update,
# so the marked ones are left out by id.
_MARK_AND_READ = f"""
WITH marked AS ({_MARK})
SELECT id, topic, key, value, headers FROM outbox
WHERE published_at IS NULL AND id <> ALL ($1::bigint[])
ORDER BY id LIMIT $2
"""

_BACKLOG = """
SELECT count(*) AS backlog, coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 AS age
FROM outbox WHERE published_at IS NULL
"""

_PRUNE = (
    f"""
    DELETE FROM outbox WHERE id IN (
        SELECT id FROM outbox WHERE published_at < now() - interval '7 days' LIMIT {_PRUNE_BATCH}
    )""",
    f"""
    DELETE FROM inbox WHERE event_id IN (
        SELECT event_id FROM inbox WHERE received_at < now() - interval '30 days' LIMIT {_PRUNE_BATCH}
    )""",
)


class Outbox:
    """The events of one unit of work."""

    def __init__(self, connection: asyncpg.Connection, codec: EventCodec, clock: Clock) -> None:
        self._connection = connection
        self._codec = codec
        self._clock = clock
        self._correlation_id = correlation_id() or str(new_id())
        self._events: list[tuple[Event[Payload], bytes]] = []

    def add(self, *payloads: Payload) -> None:
        """Publish these, in this order, if and when the transaction commits.

        Raises LookupError if the codec did not load a payload's type, ValueError if one is too big for Kafka.
        """
        for payload in payloads:
            event = new_event(payload, self._clock, self._correlation_id)
            value = self._codec.encode(event)
            if len(value) > _MAX_VALUE_BYTES:
                raise ValueError(f"an event of {len(value)} bytes on {event.topic} is too big to publish")
            self._events.append((event, value))

    async def flush(self) -> None:
        """Write the events to the table, in one statement. The unit of work calls this."""
        if not self._events:
            return
        events, self._events = self._events, []
        headers = {**trace_headers(), CORRELATION_ID_HEADER: self._correlation_id}
        await self._connection.execute(
            _ADD,
            [event.event_id for event, _ in events],
            [event.topic for event, _ in events],
            [event.payload.key for event, _ in events],
            [value for _, value in events],
            headers,
        )


class OutboxRelay:
    """Publishes what is in the outbox.

    One relay per database works at a time, the one that holds an advisory lock on its own connection; the
    others wait for the lock. Rows are read in id order and published by an idempotent producer, which keeps
    the order. As transactions that change the same aggregate wait for each other on its row, the order of
    ids is, per key, the order of commits. Rows are marked after the broker has acknowledged them, together
    with the next read or, when there is nothing to read, half a second later: a relay that dies in between
    publishes them again, none is lost.
    """

    def __init__(self, database: Database, producer: Producer, sweep_seconds: float = 30.0) -> None:
        self._database = database
        self._producer = producer
        self._sweep_seconds = sweep_seconds

    async def run(self) -> None:
        """Relay until cancelled, whatever happens to the database and the broker."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                async with self._database.dedicated() as connection:
                    await _wait_for_turn(connection)
                    log.info("the outbox relay is active")
                    pause = _FIRST_PAUSE_SECONDS
                    housekeeping = asyncio.create_task(self._keep_house())
                    try:
                        await self._relay(connection)
                    finally:
                        housekeeping.cancel()
            except CONNECTION_ERRORS as error:
                log.warning("the outbox relay lost the database", error=repr(error))
            except Exception:
                log.exception("the outbox relay failed")
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(pause * 2, _MAX_PAUSE_SECONDS)

    async def _relay(self, connection: asyncpg.Connection) -> None:
        """Publish now and whenever a transaction has notified; a slow sweep is the safety net."""
        # Its one statement costs thrice as much to plan as to run, and the plan is always the same. A mark
        # that is lost with the server only means that an event is published again.
        await connection.execute("SET plan_cache_mode = force_generic_plan; SET synchronous_commit = off")
        wake = asyncio.Event()
        connection.add_termination_listener(lambda _: wake.set())
        await connection.add_listener(CHANNEL, lambda *_: wake.set())
        published: list[int] = []
        try:
            while True:
                wake.clear()
                published = await self._drain(connection, published)
                await asyncio.sleep(_PACE_SECONDS)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_MARK_SECONDS if published else self._sweep_seconds):
                        await wake.wait()
        finally:
            with contextlib.suppress(*CONNECTION_ERRORS, TimeoutError):
                await connection.execute(_MARK, published, timeout=_CLOSING_SECONDS)

    async def _drain(self, connection: asyncpg.Connection, published: list[int]) -> list[int]:
        """Mark what was published, publish until nothing is left, and return what is yet to be marked."""
        pause = _FIRST_PAUSE_SECONDS
        while rows := await connection.fetch(_MARK_AND_READ, published, _BATCH, timeout=_STATEMENT_SECONDS):
            published = await self._publish(rows)
            if len(published) < len(rows):
                await asyncio.sleep(pause * random.uniform(0.5, 1))
                pause = min(pause * 2, _MAX_PAUSE_SECONDS)
            elif len(rows) < _BATCH:
                return published
            else:
                pause = _FIRST_PAUSE_SECONDS
        return []

    async def _publish(self, rows: Sequence[asyncpg.Record]) -> list[int]:
        """Publish a batch, in order, and return the ids of those that the broker acknowledged."""
        records = [Record(row["topic"], row["key"], row["value"], row["headers"]) for row in rows]
        sending = asyncio.ensure_future(self._producer.send_batch(records))
        try:
            while not (await asyncio.wait([sending], timeout=_PATIENCE_SECONDS))[0]:
                log.warning("the broker does not acknowledge", events=len(records))
        except asyncio.CancelledError:
            sending.cancel()
            raise
        try:
            await sending
            acknowledged: Sequence[int] = range(len(rows))
        except PublishFailed as failure:
            log.error("events can't be published yet", events=len(rows), error=str(failure))
            acknowledged = failure.acknowledged
        for position in acknowledged:
            OUTBOX_PUBLISHED.labels(records[position].topic).inc()
        return [rows[position]["id"] for position in acknowledged]

    async def _keep_house(self) -> None:
        """Report the backlog, also while the broker is down, and forget what was done long ago."""
        prune_at = 0.0
        while True:
            try:
                row = await self._database.fetchrow(_BACKLOG)
                if row is not None:
                    OUTBOX_BACKLOG.set(row["backlog"])
                    OUTBOX_AGE_SECONDS.set(row["age"])
                if time.monotonic() >= prune_at:
                    await self._prune()
                    prune_at = time.monotonic() + _PRUNE_SECONDS
            except Unavailable:
                log.info("the outbox can't be inspected now")
            await asyncio.sleep(self._sweep_seconds)

    async def _prune(self) -> None:
        for statement in _PRUNE:
            tag = full = f"DELETE {_PRUNE_BATCH}"
            while tag == full:
                tag = await self._database.execute(statement)


async def _wait_for_turn(connection: asyncpg.Connection) -> None:
    """Wait until this is the active relay, blocked in the server.

    A statement that waits holds back the vacuum of the whole database, so the wait is renewed each minute.
    """
    await connection.execute(f"SET lock_timeout = '{_LOCK_WAIT_SECONDS}s'")
    while True:
        with contextlib.suppress(asyncpg.LockNotAvailableError):
            await connection.execute(
                "SELECT pg_advisory_lock($1)", RELAY_LOCK, timeout=_LOCK_WAIT_SECONDS + _STATEMENT_SECONDS
            )
            return
