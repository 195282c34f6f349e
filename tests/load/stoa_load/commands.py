"""`stoa bench`, `profile` and `soak`, as one types them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stoa_stack.terminal import console

app = typer.Typer()
Part = Annotated[str, typer.Argument(metavar="PART", help="a part, as `stoa status` lists them")]


def add_to(stoa: typer.Typer) -> None:
    """Add these commands to the command line."""
    stoa.add_typer(app)


@app.command()
def bench(
    scenario: Annotated[str, typer.Option(help="only these, separated by commas")] = "",
    seconds: Annotated[
        float, typer.Option(min=1, help="how long a scenario, or one of its steps, lasts")
    ] = 10,
    json: Annotated[Path | None, typer.Option(help="the file to which results are added")] = None,
    million: Annotated[bool, typer.Option("--million", help="in a shop of a million products")] = False,
    products: Annotated[int, typer.Option(min=1, help="with --million: so many instead")] = 1_000_000,
) -> None:
    """Measure requests and what they cost, on the shop that runs without rate limits or on one of its own."""
    from stoa_load import command

    names = [name for name in scenario.split(",") if name]
    if million:
        from stoa_load import million as big

        raise typer.Exit(big.command(console(), names, seconds, json, products))
    raise typer.Exit(command.command(console(), names, seconds, json))


@app.command()
def profile(
    service: Part,
    scenario: Annotated[str, typer.Option(help="the load: a scenario of `stoa bench`")] = "order",
    seconds: Annotated[float, typer.Option(min=1)] = 20,
    form: Annotated[str, typer.Option("--format", help="flamegraph, speedscope or raw")] = "flamegraph",
) -> None:
    """Record where a Python process spends its time under load (py-spy)."""
    from stoa_load import profile

    raise typer.Exit(profile.command(console(), service, scenario, seconds, form))


@app.command()
def soak(
    minutes: Annotated[float, typer.Option(min=0.5)] = 20,
    json: Annotated[Path | None, typer.Option(help="the file to which samples are added")] = None,
) -> None:
    """Hold a moderate load, and see what grows: memory, connections, files, tables, topics, lag."""
    from stoa_load import soak

    raise typer.Exit(soak.command(console(), minutes, json))
