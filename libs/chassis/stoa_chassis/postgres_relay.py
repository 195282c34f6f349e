"""The relay of the outbox table.

Takes events to Kafka after their commit, at least once and in order per key.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Sequence

import asyncpg

from stoa_chassis.errors import Unavailable
from stoa_chassis.kafka import Producer, PublishFailed, Record
from stoa_chassis.postgres import CONNECTION_ERRORS, Database
from stoa_chassis.telemetry import (
    OUTBOX_AGE_SECONDS,
    OUTBOX_BACKLOG,
    OUTBOX_PUBLISHED,
    get_logger,
)

log = get_logger(__name__)

CHANNEL = "outbox"
_BATCH = 500
_STATEMENT_SECONDS = 30.0
_CLOSING_SECONDS = 2.0
_ACKNOWLEDGE_SECONDS = 15.0
_PRUNE_SECONDS = 3600.0
_PRUNE_BATCH = 5000
_FIRST_PAUSE_SECONDS = 0.1
_MARK_SECONDS = 0.5
_PACE_SECONDS = 0.025  # between two reads at least, so that what comes close together is published together
RELAY_LOCK = 0x6F757462
"""The advisory lock that the active relay of a database holds; any number, the same for all relays."""
_LOCK_WAIT_SECONDS = 60
_MAX_PAUSE_SECONDS = 5.0

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
                    maintenance = asyncio.create_task(self._maintain())
                    try:
                        await self._relay(connection)
                    finally:
                        maintenance.cancel()
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
            while not (await asyncio.wait([sending], timeout=_ACKNOWLEDGE_SECONDS))[0]:
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

    async def _maintain(self) -> None:
        """Report the backlog, also while the broker is down, and prune what is old."""
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
