"""The command `stoa gen`."""

from typing import Annotated

import typer

from stoa_stack.gen import changes, run
from stoa_stack.gen.errors import GenerationFailed


def gen(
    check: Annotated[
        bool, typer.Option("--check", help="Only say what is stale; fail if anything is.")
    ] = False,
    compatible: Annotated[
        bool, typer.Option("--compatible", help="Check the contracts' style and compatibility instead.")
    ] = False,
) -> None:
    """Regenerate gen/ from proto/ and events/."""
    try:
        if compatible:
            typer.echo(changes.check())
            return
        differences = run(check=check)
    except GenerationFailed as failure:
        typer.echo(failure, err=True)
        raise typer.Exit(1) from None
    for difference in differences:
        typer.echo(difference)
    if check and differences:
        typer.echo("gen/ is stale: run `make gen` and commit what it writes", err=True)
        raise typer.Exit(1)
