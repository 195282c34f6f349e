"""`stoa chaos`, as one types it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stoa_stack.terminal import console

app = typer.Typer()


def add_to(stoa: typer.Typer) -> None:
    """Add the command to the command line."""
    stoa.add_typer(app)


@app.command()
def chaos(
    seed: Annotated[
        int | None, typer.Option(help="the same seed gives the same run; without, a new one")
    ] = None,
    checkouts: Annotated[int, typer.Option(min=1)] = 2500,
    faults: Annotated[
        int | None, typer.Option(min=0, help="how many; without, each strikes each of its targets once")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="how long the load lasts")] = 20,
    here: Annotated[
        bool, typer.Option("--here", help="break the shop that runs, not one made for it")
    ] = False,
    only: Annotated[str, typer.Option(help="only faults at these parts, separated by commas")] = "",
    report: Annotated[Path | None, typer.Option(help="where the report goes, instead of chaos.json")] = None,
) -> None:
    """Break everything by a seeded schedule while shoppers buy, and audit what is left."""
    import random

    from stoa_chaos import command
    from stoa_chaos.faults import striking, targets

    seed = random.randrange(10_000) if seed is None else seed
    parts = tuple(filter(None, only.split(",")))
    faults = len(targets(striking(parts))) if faults is None else faults
    plan = command.Plan(seed, checkouts, faults, minutes, parts)
    raise typer.Exit(command.command(console(), plan, here=here, report_file=report))
