"""What `stoa charts` does, and how it says it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from stoa_tools.charts import helm, policy, schemas
from stoa_tools.charts.releases import SUITES, Release, packed, releases
from stoa_tools.programs import BuildFailed

Check = Callable[[Path, Console], Iterator[str]]


def charts(console: Console, only: Sequence[str] = ()) -> int:
    """Check the charts: all, or the checks that are named; returns the exit code.

    Every check runs, whatever another has found.
    """
    if unknown := set(only) - CHECKS.keys():
        console.print(f"There is no check {', '.join(sorted(unknown))}. Checks: {', '.join(CHECKS)}")
        return 2
    failed = []
    try:
        with packed() as checkout:
            for name, check in CHECKS.items():
                if only and name not in only:
                    continue
                console.rule(name, align="left")
                problems = list(check(checkout, console))
                for problem in problems:
                    console.print(problem, markup=False, soft_wrap=True)
                if problems:
                    failed.append(name)
    except (BuildFailed, helm.HelmFailed) as error:
        console.print(error, markup=False, soft_wrap=True)
        return 1
    console.print(f"[red]failed:[/] {', '.join(failed)}" if failed else "[green]all passed[/]")
    return 1 if failed else 0


def _lint(checkout: Path, console: Console) -> Iterator[str]:
    for release in releases():
        try:
            helm.lint(checkout / release.chart, _files(checkout, release), release.namespace, release.values)
        except helm.HelmFailed as failure:
            yield f"{release.name}: {failure}"
        else:
            console.print(release.name)


def _units(checkout: Path, console: Console) -> Iterator[str]:
    for chart, suites in SUITES.items():
        try:
            console.print(helm.unit_tests(checkout / chart, suites), markup=False)
        except helm.HelmFailed as failure:
            yield f"{chart}: {failure}"


def _rendered(checkout: Path, console: Console) -> Iterator[str]:
    """Every object of every release against its schema and what objects and pods must be."""
    known = schemas.Schemas.published()
    for release in releases():
        try:
            things = helm.render(
                "stoa", checkout / release.chart, _files(checkout, release), release.namespace, release.values
            )
        except helm.HelmFailed as failure:
            yield f"{release.name}: {failure}"
            continue
        for thing in things:
            for problem in (*known.violations(thing), *policy.violations(thing)):
                yield f"{release.name}: {problem}"
        for problem in policy.named_twice(things):
            yield f"{release.name}: {problem}"
        console.print(f"{release.name}: {len(things)} objects{_unknown(things)}", soft_wrap=True)


def _unknown(things: Sequence[policy.Object]) -> str:
    """Which objects were checked against no schema, in words."""
    kinds = Counter(thing["kind"] for thing in things if schemas.unpublished(thing))
    named = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return f"; without a schema: {named}" if named else ""


def _files(checkout: Path, release: Release) -> list[Path]:
    return [checkout / file for file in release.files]


CHECKS: Mapping[str, Check] = {"lint": _lint, "units": _units, "rendered": _rendered}
"""In the order in which they run."""
