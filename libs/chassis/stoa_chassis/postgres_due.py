"""The SQL of work that falls due (`stoa_chassis.due`): rows of a table that say when."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import asyncpg

from stoa_chassis.due import Backoff
from stoa_chassis.postgres import Queries


class DueTable:
    """The due rows of one table, which has columns for its key, the due time, and the number of attempts."""

    def __init__(self, table: str, key: str, *, due: str = "due_at", deadline: str | None = None) -> None:
        """`deadline` is a column with the latest time at which a row falls due, whatever its attempts."""
        latest = f", CASE WHEN {deadline} > $1 THEN {deadline} END" if deadline else ""
        self._claim = f"""
            UPDATE {table} SET attempts = attempts + 1,
                {due} = least($1 + greatest($3::interval,
                    least($4::interval * power(2, least(attempts, 20)), $5::interval)){latest})
            WHERE {key} IN (
                SELECT {key} FROM {table} WHERE {due} <= $1
                ORDER BY {due} LIMIT $2 FOR UPDATE SKIP LOCKED)
            RETURNING *
        """
        self._next = f"SELECT min({due}) FROM {table} WHERE {due} IS NOT NULL"
        self._put_off = f"UPDATE {table} SET {due} = $2 WHERE {key} = $1 AND {due} IS NOT NULL"

    async def claim(
        self, queries: Queries, now: datetime, limit: int, backoff: Backoff, lease: timedelta = timedelta()
    ) -> Sequence[asyncpg.Record]:
        """Take what is due at `now`; it falls due again after the pause of its attempts, at least `lease`
        later.

        Several processes may claim at once; each gets others.
        """
        return await queries.fetch(self._claim, now, limit, lease, backoff.first, backoff.longest)

    async def next_due(self, queries: Queries) -> datetime | None:
        """Return when the next row falls due; None if none does."""
        due: datetime | None = await queries.fetchval(self._next)
        return due

    async def put_off(self, queries: Queries, key: object, until: datetime) -> None:
        """Let a row fall due at another time, unless it was finished meanwhile."""
        await queries.execute(self._put_off, key, until)
