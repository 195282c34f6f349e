"""What developers type: `stoa gen`, `lint`, `test`, `model`, `lock`."""

from __future__ import annotations

from typing import Annotated

import typer

from stoa_stack.terminal import console

app = typer.Typer()


def add_to(stoa: typer.Typer) -> None:
    """Add these commands to the command line."""
    stoa.add_typer(app)


@app.command()
def gen(
    check: Annotated[bool, typer.Option("--check", help="only say what is stale")] = False,
    compatible: Annotated[
        bool, typer.Option("--compatible", help="check the contracts' style and compatibility instead")
    ] = False,
) -> None:
    """Regenerate gen/ from proto/, events/ and services/*/service.toml."""
    from stoa_tools.gen import command

    raise typer.Exit(command.gen(console(), check=check, compatible=compatible))


@app.command()
def lock(upgrade: Annotated[bool, typer.Option(help="take the newest versions")] = False) -> None:
    """Resolve the Python packages into requirements.lock."""
    from stoa_tools import lock

    raise typer.Exit(lock.lock(upgrade=upgrade))


@app.command()
def lint() -> None:
    """Check style, types, imports and contracts."""
    from stoa_tools import quality

    quality.lint(console())


@app.command()
def test() -> None:
    """Run every check and every test, on a stack of their own."""
    from stoa_tools import quality

    quality.test(console())


@app.command()
def model(
    states: Annotated[int, typer.Option(min=1, help="explore each scenario up to so many")] = 400_000,
) -> None:
    """Explore the states of the order saga, deeper than the tests do."""
    from stoa_tools import quality

    quality.model(console(), states)
