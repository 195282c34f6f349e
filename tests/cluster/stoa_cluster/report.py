"""What the stages have shown: a file for programs, and the same as Markdown for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stoa_stack.files import write_atomically

_MARKS = {"proven": "proven", "failed": "**not proven**", "skipped": "skipped"}


def read(path: Path) -> dict[str, Any]:
    """The report so far, to which stages that are run alone add theirs."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {"cluster": {}, "stages": {}}
    return found


def write(path: Path, report: Mapping[str, Any]) -> None:
    """Write the report, as JSON and beside it as Markdown."""
    write_atomically(path, json.dumps(report, indent=1) + "\n")
    write_atomically(path.with_suffix(".md"), markdown(report))


def markdown(report: Mapping[str, Any]) -> str:
    """The report as a table of the stages, and a list of figures for each."""
    lines = ["# What was proven on the cluster", ""]
    lines += [f"- {name}: {value}" for name, value in report["cluster"].items()]
    lines += ["", "| stage | what it proves | | seconds |", "|---|---|---|---|"]
    for name, stage in report["stages"].items():
        lines.append(f"| {name} | {stage['what']} | {_MARKS[stage['verdict']]} | {stage['seconds']:.0f} |")
    for name, stage in report["stages"].items():
        lines += ["", f"## {name}", ""]
        lines += [f"{stage['why']}", ""] if stage["why"] else []
        lines += [f"- {figure}: {_text(value)}" for figure, value in stage["figures"].items()]
    return "\n".join(lines) + "\n"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(each)}" for name, each in value.items()) or "none"
    if isinstance(value, list):
        return "".join(f"\n  - {_text(each)}" for each in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
