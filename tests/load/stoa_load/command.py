"""`stoa bench`: plays the scenarios on a running stack, or on one of its own, and reports."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop
from rich.console import Console

from stoa_load import report
from stoa_load.cost import Idle, Meter
from stoa_load.instance import measured_instance
from stoa_load.scenarios import SCENARIOS, Bench, Scenario
from stoa_load.shop import shop
from stoa_stack.instance import Instance

_QUIET = 6.0  # seconds in which the idle consumption is measured
_SETTLE = 3.0  # seconds between setting something up and measuring


def command(console: Console, names: Sequence[str], seconds: float, file: Path | None) -> int:
    """Play the named scenarios, or all. Returns 1 if a request failed, 2 if a name is unknown."""
    to_play = chosen(console, names, SCENARIOS)
    if not to_play:
        return 2
    with measured_instance(console) as at:
        path = file or at.folder("bench") / "bench.jsonl"
        return uvloop.run(play(at, console, to_play, seconds, path))


def chosen(console: Console, names: Sequence[str], scenarios: Sequence[Scenario]) -> Sequence[Scenario]:
    """Return the named scenarios, all if none is named; none, and say so, if a name is unknown."""
    known = {scenario.name: scenario for scenario in scenarios}
    if unknown := set(names) - known.keys():
        console.print(f"There is no scenario {', '.join(sorted(unknown))}. Scenarios: {', '.join(known)}")
        return ()
    return [known[name] for name in names or known]


async def play(
    at: Instance, console: Console, scenarios: Sequence[Scenario], seconds: float, file: Path
) -> int:
    """Play scenarios, show what they cost, and add it to a file. Returns 1 if a request failed."""
    meter = Meter(at)
    console.print(f"The stack is quiet for {_QUIET:.0f} s, to learn what it takes when nobody comes.")
    before = await meter.read()
    await asyncio.sleep(_QUIET)
    idle = Idle.between(before, await meter.read())
    run = {"run": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "load_average": os.getloadavg()[0]}
    table, remarks, failed = report.table(), [f"idle: {idle.cores:.1%} of a core"], False
    async with shop(at) as place:
        for scenario in scenarios:
            console.print(f"{scenario.what} …")
            result = await scenario.play(Bench(place, meter, idle, seconds))
            report.add_row(table, scenario, result)
            report.append(file, run | report.line(scenario, result, idle))
            remarks += report.remarks(scenario, result)
            failed |= bool(result.outcome.errors) or not result.facts.get("exact", True)
            await asyncio.sleep(_SETTLE)
    console.print(table)
    for remark in remarks:
        console.print(remark, soft_wrap=True)
    console.print(f"Added to {file}", soft_wrap=True)
    return 1 if failed else 0
