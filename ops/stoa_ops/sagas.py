"""`stoa sagas`: which orders and payments wait for what, since when, and what happens next."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import orjson
from rich.console import Console
from rich.table import Table

from stoa_ops.texts import duration, unreadable
from stoa_stack.instance import Instance
from stoa_stack.servers.postgres import superuser_url

_SHOWN = 50

_SAGAS = """
SELECT order_id, step AS waits_for, started_at AS since, attempts, due_at AS next_ask, deadline_at AS deadline
FROM sagas ORDER BY started_at
"""
_PAYMENTS = """
SELECT order_id, 'the gateway: charge' AS waits_for, created_at AS since, attempts, next_check_at AS next_ask
FROM payments WHERE next_check_at IS NOT NULL
UNION ALL
SELECT order_id, 'the gateway: refund', r.created_at, r.attempts, r.next_check_at
FROM refunds r JOIN payments USING (payment_id) WHERE r.next_check_at IS NOT NULL
ORDER BY since
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An order that waits: for a step of its saga, or its payment for the gateway."""

    order_id: UUID
    waits_for: str
    since: datetime
    attempts: int
    next_ask: datetime
    deadline: datetime | None = None


def command(at: Instance, console: Console, *, as_json: bool) -> int:
    """Show what waits, the longest first; 2 if a store can't be read."""
    try:
        waiting = asyncio.run(read(at))
    except Exception as error:  # whatever client: a store that can't be read
        return unreadable(console, error)
    if as_json:
        sys.stdout.write(orjson.dumps([asdict(each) for each in waiting], default=str).decode() + "\n")
        return 0
    if not waiting:
        console.print("No order waits for anything.")
        return 0
    now = datetime.now(UTC)
    table = Table(box=None, pad_edge=False)
    for heading in ("order", "waits for", "since", "asked", "next ask", "gives up"):
        table.add_column(heading, no_wrap=True)
    for each in waiting[:_SHOWN]:
        table.add_row(
            str(each.order_id),
            each.waits_for,
            duration((now - each.since).total_seconds()),
            f"{each.attempts} times again" if each.attempts else "once",
            _until(each.next_ask, now),
            _until(each.deadline, now) if each.deadline else "never",
        )
    console.print(table)
    if len(waiting) > _SHOWN:
        console.print(f"… and {len(waiting) - _SHOWN} more")
    return 0


async def read(at: Instance) -> list[Waiting]:
    """Return what waits, the longest first. Raises OSError or an error of asyncpg."""
    found: list[Waiting] = []
    for database, query in (("order", _SAGAS), ("payment", _PAYMENTS)):
        connection = await asyncpg.connect(superuser_url(at, database), timeout=5)
        try:
            found += [Waiting(**row) for row in await connection.fetch(query)]
        finally:
            await connection.close()
    return sorted(found, key=lambda each: each.since)


def _until(at: datetime, now: datetime) -> str:
    seconds = (at - now).total_seconds()
    return f"in {duration(seconds)}" if seconds >= 0 else f"{duration(-seconds)} overdue"
