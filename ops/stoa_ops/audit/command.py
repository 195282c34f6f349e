"""`stoa audit`: read the books until they balance or time is up, and say what was found."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from decimal import Decimal

from rich.console import Console
from rich.table import Table

from stoa_chassis.audit import Finding
from stoa_ops.audit.books import ShopBooks, read
from stoa_ops.audit.event_log import EventLog
from stoa_ops.audit.invariants import findings
from stoa_ops.settings import OperatorSettings

_PAUSE = 1.0  # seconds
_SHOWN = 50


def command(settings: OperatorSettings, console: Console, wait: float) -> int:
    """Audit a shop; 0 if the books balance, 1 if not, 2 if they could not be read.

    A shop that is running always has something under way, so only what stays wrong for `wait` seconds counts.
    """
    try:
        books, found = asyncio.run(audit(settings, wait))
    except Exception as error:  # whatever client: a store that can't be read
        console.print(f"[red]The books could not be read:[/] {error!r}")
        return 2
    console.print(_summary(books))
    if not found:
        console.print(f"[green]The books balance:[/] {len(books.order.orders)} orders, every rule holds.")
        return 0
    console.print(f"[red]The books do not balance: {len(found)} findings.[/]")
    for finding in found[:_SHOWN]:
        console.print(f"- {finding.rule}: {finding.subject}: {finding.detail}\n  look at: {finding.look}")
    if len(found) > _SHOWN:
        console.print(f"… and {len(found) - _SHOWN} more")
    return 1


async def audit(settings: OperatorSettings, wait: float) -> tuple[ShopBooks, list[Finding]]:
    """Read and check again and again for up to `wait` seconds; return what was still wrong in the end.

    What is wrong at one reading and right at another was on its way, not wrong. Raises what the client of a
    store raises that can't be read to the end.
    """
    deadline = time.monotonic() + wait
    while True:
        try:
            with EventLog(settings) as log:
                return await _read_until(deadline, settings, log)
        except Exception:  # whatever client: a store that can't be read may be on its way up
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_PAUSE)


async def _read_until(
    deadline: float, settings: OperatorSettings, log: EventLog
) -> tuple[ShopBooks, list[Finding]]:
    standing: set[tuple[str, str]] | None = None
    while True:
        books = await read(settings, log)
        found = list(findings(books))
        now = {(finding.rule, finding.subject) for finding in found}
        standing = now if standing is None else standing & now
        left = [finding for finding in found if (finding.rule, finding.subject) in standing]
        if not left or time.monotonic() > deadline:
            return books, left
        await asyncio.sleep(_PAUSE)


def _summary(books: ShopBooks) -> Table:
    table = Table("what", "", box=None, show_header=False, pad_edge=False)
    by_status = Counter(order.status for order in books.order.orders.values())
    table.add_row(
        "orders", ", ".join(f"{count} {status}" for status, count in sorted(by_status.items())) or "none"
    )
    if books.charges is None:
        table.add_row("money", "compared with no gateway's ledger: no payment_gateway_url is set")
    else:
        taken = [charge for charge in books.charges if charge.status == "succeeded"]
        table.add_row(
            "money",
            f"{sum((c.amount for c in taken), Decimal(0))} taken in {len(taken)} charges, "
            f"{sum((c.refunded for c in taken), Decimal(0))} given back",
        )
    if books.parcels is None:
        table.add_row("parcels", "compared with no carriers' ledger: no carriers_url is set")
    if books.mails is not None:
        again = sum(mail.deliveries > 1 for mail in books.mails)
        came = f"{len(books.mails)} came" + (f", {again} of them again as the same" if again else "")
        by_status = Counter(each.status for each in books.notification.notifications)
        told = ", ".join(f"{count} {status}" for status, count in sorted(by_status.items()))
        table.add_row("mails", f"{came}; notifications: {told or 'none'}")
    counts = books.inventory.counts
    table.add_row(
        "stock",
        f"{sum(c.stock for c in counts.values())} of {len(counts)} variants, "
        f"{sum(c.reserved for c in counts.values())} promised",
    )
    repeated = sum(books.events.repeated.values())
    table.add_row(
        "events",
        f"{len(books.events.written)} in outboxes, {len(books.events.seen)} in their topics"
        + (f", {repeated} published more than once" if repeated else ""),
    )
    table.add_row(
        "effects",
        ", ".join(f"{len(ids)} at {group}" for group, ids in books.events.inboxes.items() if ids) or "none",
    )
    return table
