"""Reads that may lag: from a replica of the database while it is close behind, else from the primary.

A replica takes load off the primary and is never needed. While it is down, does not answer or is too far
behind, the primary answers; a reader notices at most a short wait, once. Who must see what was written a
moment ago is not to be given one of these: he reads the primary.

How far behind a replica is, is asked of the log that it follows: every so often the primary says how far it
has written its own, and the replica how far it has applied it. What has applied all that there was at a
moment shows whatever was committed by then. (The time of the last transaction that it applied grows old while
nobody writes, and that of the connection to the primary says nothing while there is none.)
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Self, TypeAlias, TypeVar

import asyncpg

from stoa_chassis.breaker import State
from stoa_chassis.errors import Unavailable
from stoa_chassis.postgres import Database, Queries
from stoa_chassis.telemetry import BREAKER_STATE, DATABASE_READS, REPLICA_LAG_SECONDS, get_logger

_log = get_logger(__name__)

T = TypeVar("T")

# Each is null where it is asked of the wrong one of the two.
_WRITTEN = """
SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint END
"""
_APPLIED = """
SELECT CASE WHEN pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint END
"""
_LONGEST_BETWEEN_LOOKS = 1.0  # seconds
_LOOKS_PER_LAG = 4  # at least, within the lag that readers may see
_ON_THE_WAY_SECONDS = 0.05  # what was written has arrived by then at a replica that is well
_PATIENCE_SECONDS = 0.5
_PRIMARY_SECONDS = 5.0  # in which the primary has to say how far it is
_PAUSES = (1.0, 30.0)  # seconds without the replica after a failed read: the first time, and at most
_REMEMBERED = 3600  # looks
_FROM_REPLICA, _FROM_PRIMARY = DATABASE_READS.labels("replica"), DATABASE_READS.labels("primary")


class Replica:
    """A replica that reads are sent to, and the primary that answers in its place."""

    def __init__(
        self, primary: Database, replica: Database, max_lag: float, patience: float = _PATIENCE_SECONDS
    ) -> None:
        """What is read shows all that was committed `max_lag` seconds before, or is read from the primary.

        So is what the replica has not answered after `patience` seconds.
        """
        self._primary = primary
        self._replica = replica
        self._max_lag = max_lag
        self._patience = patience
        self._between_looks = min(_LONGEST_BETWEEN_LOOKS, max_lag / _LOOKS_PER_LAG)
        # How far the primary was at moments that the replica has not reached yet, the oldest first.
        self._written: deque[tuple[float, int]] = deque(maxlen=_REMEMBERED)
        self._shows = -math.inf  # the replica has all that was committed by then
        self._has_failed = False  # since the last look that found it well
        self._not_before = -math.inf  # after a failed read it is left alone until then
        self._pause, self._longest_pause = _PAUSES
        self._given_up: set[asyncio.Future[Any]] = set()
        self._is_used: bool | None = None
        REPLICA_LAG_SECONDS.set(math.inf)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, primary: Database, url: str, pool_size: int, max_lag: float
    ) -> AsyncIterator[Self]:
        """Open a pool of at most `pool_size` connections to a replica, which need not be up.

        Until `watch` has found it close behind, the primary answers.
        """
        async with Database.open_read_only(url, pool_size) as replica:
            yield cls(primary, replica, max_lag)

    async def fetch(self, query: str, *args: Any) -> list[asyncpg.Record]:
        """Run a statement that only reads, and return its rows."""
        if self._may_answer():
            try:
                return await self._read(self._replica.fetch(query, *args))
            except (Unavailable, asyncpg.PostgresError) as error:
                self._failed(error)
        _FROM_PRIMARY.inc()
        return await self._primary.fetch(query, *args)

    async def fetchrow(self, query: str, *args: Any) -> asyncpg.Record | None:
        """Run a statement that only reads, and return its first row."""
        rows = await self.fetch(query, *args)
        return rows[0] if rows else None

    async def watch(self) -> None:
        """Look again and again how far behind the replica is, until cancelled.

        Raises Unavailable, or an outage of its own, when the primary can't be asked; to be started again.
        """
        # A connection of its own: readers that wait for the primary's pool must not turn more away from here.
        async with self._primary.dedicated() as primary:
            while True:
                await self._look(primary)
                await asyncio.sleep(self._between_looks)

    async def _look(self, primary: asyncpg.Connection) -> None:
        began = time.monotonic()
        written = await primary.fetchval(_WRITTEN, timeout=_PRIMARY_SECONDS)
        if written is None:
            raise Unavailable("the primary is none at the moment")
        if self._written and written < self._written[-1][1]:
            self._written.clear()  # another server has taken over, without the end of the old one's log
        self._written.append((began, written))
        await asyncio.sleep(_ON_THE_WAY_SECONDS)
        try:
            applied = await self._in_time(self._replica.fetchval(_APPLIED))
        except (Unavailable, asyncpg.PostgresError) as error:
            cause, self._has_failed = str(error), True
        else:
            cause = self._note(began, applied)
        lag = time.monotonic() - self._shows
        REPLICA_LAG_SECONDS.set(lag)
        self._report(cause or f"it is {lag:.1f} s behind")

    def _note(self, began: float, applied: int | None) -> str:
        """Take over what the replica said of itself; return what is wrong with it, or ""."""
        if applied is None:
            self._has_failed = True
            return "it is no replica"
        while self._written and self._written[0][1] <= applied:
            self._shows = self._written.popleft()[0]
        if began >= self._not_before:
            self._has_failed = False
        return "reads have failed" if self._has_failed else ""

    def _may_answer(self) -> bool:
        return not self._has_failed and time.monotonic() - self._shows <= self._max_lag

    async def _read(self, reading: Coroutine[Any, Any, T]) -> T:
        found = await self._in_time(reading)
        self._pause = _PAUSES[0]
        _FROM_REPLICA.inc()
        return found

    async def _in_time(self, asking: Coroutine[Any, Any, T]) -> T:
        """Wait for an answer of the replica, but not for long. Raises Unavailable.

        What is given up ends beside us: to take back a statement from a server that is silent takes time.
        """
        task = asyncio.ensure_future(asking)
        try:
            await asyncio.wait((task,), timeout=self._patience)
        finally:
            if not task.done():
                self._given_up.add(task)
                task.add_done_callback(self._forget)
                task.cancel()
        if not task.done():
            raise Unavailable("the replica does not answer")
        return task.result()

    def _forget(self, task: "asyncio.Future[Any]") -> None:
        self._given_up.discard(task)
        if not task.cancelled():
            task.exception()  # nobody else asks, which would be logged

    def _failed(self, error: Exception) -> None:
        """Leave the replica alone for a while, unless it has only refused this one statement.

        It may have taken it back for what it had to apply, or not know of a column yet.
        """
        if self._has_failed or not isinstance(error, Unavailable):
            return
        self._has_failed = True
        self._not_before = time.monotonic() + self._pause
        self._pause = min(self._pause * 2, self._longest_pause)
        self._report(str(error))

    def _report(self, cause: str) -> None:
        if (used := self._may_answer()) is self._is_used:
            return
        self._is_used = used
        BREAKER_STATE.labels("database replica").set(State.CLOSED if used else State.OPEN)
        if used:
            _log.info("the replica answers reads that may lag")
        else:
            _log.warning("the primary answers reads that may lag", cause=cause)


Reads: TypeAlias = Queries | Replica
"""What statements that only read are sent to: of a replica by who may see what was true a moment ago."""
