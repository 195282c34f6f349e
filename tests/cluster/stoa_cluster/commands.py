"""`stoa test-cluster`, as one types it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stoa_stack.terminal import console

app = typer.Typer()


def add_to(stoa: typer.Typer) -> None:
    """Add the command to the command line."""
    stoa.add_typer(app)


@app.command("test-cluster")
def prove(
    stages: Annotated[list[str] | None, typer.Argument(help="only these, in their order; none: all")] = None,
    show: Annotated[bool, typer.Option("--list", help="only list the stages")] = False,
    load: Annotated[
        str,
        typer.Option(envvar="STOA_CLUSTER_LOAD", help="a command that hands {image} to the nodes"),
    ] = "",
    registry: Annotated[str, typer.Option(envvar="STOA_IMAGE_REGISTRY")] = "localhost/stoa",
    tag: Annotated[str, typer.Option(envvar="STOA_IMAGE_TAG")] = "dev",
    report: Annotated[
        Path | None, typer.Option(help="where the report goes, instead of .stoa-cluster/report.json")
    ] = None,
) -> None:
    """Install the shop on the cluster that KUBECONFIG names, and prove there what charts and mesh promise."""
    from stoa_cluster import command

    if show:
        raise typer.Exit(command.show(console()))
    raise typer.Exit(
        command.command(console(), stages or (), load=load, registry=registry, tag=tag, report_file=report)
    )
