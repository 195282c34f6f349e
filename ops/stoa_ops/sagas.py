"""`stoa sagas`: which orders and payments wait for what, since when, and what happens next."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime

import orjson
from rich.console import Console
from rich.table import Table

from stoa_chassis.audit import Waiting
from stoa_ops.services import ServiceAudit, audits
from stoa_ops.settings import OperatorSettings
from stoa_ops.stores import opened
from stoa_ops.texts import duration, unreadable

_SHOWN = 50


def command(settings: OperatorSettings, console: Console, *, as_json: bool) -> int:
    """Show what waits, the longest first; 2 if a store can't be read."""
    try:
        waiting = asyncio.run(read(settings))
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


async def read(settings: OperatorSettings) -> list[Waiting]:
    """Ask every service what waits; the longest first. Raises OSError or an error of a client."""
    found = await asyncio.gather(
        *(_of_service(settings, audit) for audit in audits() if audit.waiting is not None)
    )
    return sorted((each for waiting in found for each in waiting), key=lambda each: each.since)


async def _of_service(settings: OperatorSettings, audit: ServiceAudit) -> Iterable[Waiting]:
    assert audit.waiting is not None
    async with opened(settings, audit.service) as store:
        return await audit.waiting(store)


def _until(at: datetime, now: datetime) -> str:
    seconds = (at - now).total_seconds()
    return f"in {duration(seconds)}" if seconds >= 0 else f"{duration(-seconds)} overdue"
