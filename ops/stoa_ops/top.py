"""`stoa top`: what the shop does at this moment, live or once."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from dataclasses import asdict

import orjson
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from stoa_ops import local
from stoa_ops.samples import Activity, between, take
from stoa_ops.settings import OperatorSettings
from stoa_ops.texts import duration
from stoa_ops.topics import OffsetReader

_RPCS = 15  # the busiest


def command(
    settings: OperatorSettings, console: Console, *, interval: float, once: bool, as_json: bool
) -> int:
    """Show it until interrupted, or once; each figure is of the last `interval` seconds. 3: not running."""
    if local.is_down():
        console.print("It is not running.")
        return 3
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(
            _once(settings, console, interval, as_json)
            if once or as_json
            else _live(settings, console, interval)
        )
    return 0


async def _once(settings: OperatorSettings, console: Console, interval: float, as_json: bool) -> None:
    with contextlib.closing(OffsetReader(settings.kafka_bootstrap)) as reader:
        before = await take(settings, reader)
        await asyncio.sleep(interval)
        activity = between(before, await take(settings, reader, before))
    if as_json:
        sys.stdout.write(orjson.dumps(_plain(activity)).decode() + "\n")
    else:
        console.print(_view(activity))


async def _live(settings: OperatorSettings, console: Console, interval: float) -> None:
    with (
        contextlib.closing(OffsetReader(settings.kafka_bootstrap)) as reader,
        Live(console=console, screen=console.is_terminal, auto_refresh=False) as live,
    ):
        before = await take(settings, reader)
        while True:
            await asyncio.sleep(interval)
            after = await take(settings, reader, before)
            live.update(_view(between(before, after)), refresh=True)
            before = after


def _plain(activity: Activity) -> dict[str, object]:
    return asdict(activity) | {
        "outboxes": [
            asdict(each) | {"oldest": round(each.oldest.total_seconds(), 3)} for each in activity.outboxes
        ],
        "breakers": [
            {"service": service, "target": target, "state": state}
            for (service, target), state in activity.breakers.items()
        ],
    }


def _view(activity: Activity) -> Group:
    totals = (
        f"{sum(rpc.per_second for rpc in activity.rpcs):.1f} RPCs/s, "
        f"{sum(rpc.errors_per_second for rpc in activity.rpcs):.1f} errors/s, "
        f"{sum(each.per_second for each in activity.consumers):.1f} events handled/s, "
        f"{sum(each.events for each in activity.outboxes)} events to be published, "
        f"{sum(activity.lag.values())} to be consumed, "
        f"{sum(part.cpu_percent for part in activity.parts):.0f} % CPU, "
        f"{sum(part.memory_mb for part in activity.parts):.0f} MB"
    )
    views: list[str | Table] = [totals]
    if activity.silent:
        views.append(f"[red]no answer from: {escape(', '.join(activity.silent))}[/]")
    if not_closed := {key: state for key, state in activity.breakers.items() if state != "closed"}:
        calls = ", ".join(f"{caller} → {target} {state}" for (caller, target), state in not_closed.items())
        views.append(f"[red]circuit breakers: {escape(calls)}[/]")
    views += [
        f"[red]{escape(each.group)}: {escape(each.problem)}[/]\n  {escape(each.cure)}"
        for each in activity.standing
    ]
    views += ["", _rpcs(activity), "", _groups(activity), "", _parts(activity)]
    return Group(*views)


def _rpcs(activity: Activity) -> Table:
    table = _table("RPC", "calls/s", "mean ms", "errors/s", "refused/s")
    for rpc in activity.rpcs[:_RPCS]:
        method = rpc.method.strip("/").split(".")[-1]
        table.add_row(
            method,
            f"{rpc.per_second:.1f}",
            f"{rpc.mean_ms:.1f}",
            _unless_zero(rpc.errors_per_second),
            _unless_zero(rpc.refused_per_second),
        )
    return table


def _groups(activity: Activity) -> Table:
    table = _table("service", "events handled/s", "failed tries/s", "lag", "to publish", "oldest")
    outboxes = {each.service: each for each in activity.outboxes}
    for name in sorted(outboxes.keys() | activity.lag.keys()):
        outbox = outboxes.get(name)
        own = [each for each in activity.consumers if each.group == name]
        table.add_row(
            name,
            _unless_zero(sum(each.per_second for each in own)),
            _unless_zero(sum(each.failed_per_second for each in own)),
            str(activity.lag.get(name, "")),
            str(outbox.events) if outbox else "",
            duration(outbox.oldest.total_seconds()) if outbox and outbox.events else "",
        )
    return table


def _parts(activity: Activity) -> Table:
    table = _table("part", "CPU %", "memory MB")
    for part in sorted(activity.parts, key=lambda each: -each.cpu_percent):
        table.add_row(part.part, f"{part.cpu_percent:.0f}", f"{part.memory_mb:.0f}")
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first, no_wrap=True, min_width=12)
    for heading in others:
        table.add_column(heading, justify="right")
    return table


def _unless_zero(rate: float) -> str:
    return f"{rate:.1f}" if rate else ""
