"""What a bench shows: a table on the screen, and a line of JSON for each scenario in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from stoa_load.cost import Idle
from stoa_load.scenarios import Result, Scenario
from stoa_stack.percentile import percentile

_WORTH_SHOWING = 0.02  # of the whole: what costs less is left out of the table


def table() -> Table:
    """The table, with its headings."""
    table = Table(box=None, pad_edge=False)
    for heading in ("scenario", "req/s", "p50 ms", "p95 ms", "p99 ms", "errors", "CPU ms", "SQL"):
        table.add_column(heading, justify="left" if heading == "scenario" else "right", no_wrap=True)
    table.add_column("CPU ms by process")
    return table


def add_row(table: Table, scenario: Scenario, result: Result) -> None:
    """Add a scenario to the table."""
    outcome, cost = result.outcome, result.cost
    sql = sum(cost.statements.values())
    table.add_row(
        scenario.what,
        f"{len(outcome.times) / outcome.seconds:.1f}",
        *(f"{outcome.percentile(percent):.1f}" for percent in (50, 95, 99)),
        f"{outcome.errors}" + (f" + {outcome.shed} shed" if outcome.shed else ""),
        f"{sum(cost.cpu_ms.values()):.2f}",
        f"{sql:.1f}" if sql > 0.1 else "",
        ", ".join(f"{part} {ms:.2f}" for part, ms in _largest(cost.cpu_ms)),
    )
    if result.settled:
        table.add_row(
            "  placed → settled",
            "",
            *(f"{percentile(result.settled, percent):.0f}" for percent in (50, 95, 99)),
        )


def remarks(scenario: Scenario, result: Result) -> list[str]:
    """What does not fit into the table."""
    facts = result.facts
    lines = [f"{scenario.name}: {result.outcome.first_error}"] if result.outcome.first_error else []
    lines += [
        f"{scenario.name}: {step['per_second']}/s: place p50 {step['place_p50_ms']} ms, settled p50 "
        f"{step['settled_p50_ms']} ms, p99 {step['settled_p99_ms']} ms, {step['pending_at_end']} pending at "
        f"the end{'' if step['sustained'] else ': not sustained'}"
        for step in (*facts.get("steps", ()), *([facts["recovered"]] if "recovered" in facts else ()))
    ]
    told = ("steps", "recovered")
    lines += [f"{scenario.name}: {name}: {fact}" for name, fact in facts.items() if name not in told]
    return lines


def line(scenario: Scenario, result: Result, idle: Idle) -> dict[str, Any]:
    """A scenario's line of the JSON file. Times are milliseconds, the idle consumption is in cores."""
    outcome = result.outcome
    return {
        "scenario": scenario.name,
        "what": scenario.what,
        "baseline": scenario.baseline,
        "seconds": round(outcome.seconds, 2),
        "requests": len(outcome.times),
        "per_second": round(len(outcome.times) / outcome.seconds, 2),
        **{f"p{percent}_ms": round(outcome.percentile(percent), 2) for percent in (50, 95, 99)},
        "errors": outcome.errors,
        "shed": outcome.shed,
        "cpu_ms": round(sum(result.cost.cpu_ms.values()), 3),
        "cpu_ms_by_process": _rounded(result.cost.cpu_ms),
        "sql_by_service": _rounded(result.cost.statements),
        **{
            f"settled_p{percent}_ms": round(percentile(result.settled, percent), 1)
            for percent in ((50, 99) if result.settled else ())
        },
        "idle_cores": round(idle.cores, 4),
        **result.facts,
    }


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Add a line to the JSON file."""
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def _largest(cpu_ms: Mapping[str, float]) -> list[tuple[str, float]]:
    least = sum(cpu_ms.values()) * _WORTH_SHOWING
    return sorted(((p, ms) for p, ms in cpu_ms.items() if ms > least), key=lambda item: -item[1])


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {part: round(value, 3) for part, value in values.items() if abs(value) >= 0.001}
