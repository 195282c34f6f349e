"""`stoa outbox`: which services have events that are not published, for how long, and who publishes them."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace

import orjson
from rich.console import Console
from rich.table import Table

from stoa_ops import local
from stoa_ops.outboxes import OutboxState, states
from stoa_ops.settings import OperatorSettings
from stoa_ops.texts import duration, unreadable


def command(settings: OperatorSettings, console: Console, *, as_json: bool) -> int:
    """Show every outbox; 1 if nobody publishes one that has events, 2 if a store can't be read."""
    try:
        found = [_with_process(each) for each in asyncio.run(states(settings))]
    except Exception as error:  # whatever client: a store that can't be read
        return unreadable(console, error)
    if as_json:
        rows = [
            {
                "service": each.service,
                "store": each.store,
                "unpublished": each.events,
                "oldest_seconds": round(each.oldest.total_seconds(), 3),
                "relay": each.relay,
                "standby": each.standby,
            }
            for each in found
        ]
        sys.stdout.write(orjson.dumps(rows).decode() + "\n")
    else:
        table = Table(box=None, pad_edge=False)
        for heading in ("service", "store", "unpublished", "oldest", "active relay", "standby"):
            table.add_column(heading, justify="right" if heading in ("unpublished", "oldest") else "left")
        for each in found:
            table.add_row(
                each.service,
                each.store,
                str(each.events),
                duration(each.oldest.total_seconds()) if each.events else "",
                each.relay or "[red]none[/]",
                str(each.standby or ""),
            )
        console.print(table)
    return 1 if any(each.events and not each.relay for each in found) else 0


def _with_process(state: OutboxState) -> OutboxState:
    """Name the relay by its process, if that runs on this machine."""
    pid = local.pids().get(state.relay_port or 0)
    return replace(state, relay=f"pid {pid}") if pid else state
