"""What operators type: `stoa audit`, `top`, `outbox`, `sagas`, `dlq`, `replay`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stoa_stack.terminal import console

if TYPE_CHECKING:
    from stoa_stack.instance import Instance

app = typer.Typer()
dlq = typer.Typer(no_args_is_help=True, help="Dead letters: messages that a consumer group gave up on.")
app.add_typer(dlq, name="dlq")

Json = Annotated[bool, typer.Option("--json", help="for programs")]
Group = Annotated[str, typer.Option(help="only of this consumer group")]
LetterIds = Annotated[list[str] | None, typer.Argument(metavar="ID", help="as `stoa dlq list` shows them")]


def add_to(stoa: typer.Typer) -> None:
    """Add these commands to the command line."""
    stoa.add_typer(app)


def _instance() -> Instance:
    from stoa_stack.instance import Instance

    return Instance.current()


@app.command()
def audit(
    wait: Annotated[float, typer.Option(help="seconds that the shop may take to settle")] = 10,
) -> None:
    """Check that the books of all services and of the payment gateway balance."""
    from stoa_ops.audit import command

    raise typer.Exit(command.command(_instance(), console(), wait))


@app.command()
def replay(service: Annotated[str, typer.Argument(help="order or catalog")]) -> None:
    """Rebuild what a service's reads come from, while the shop runs."""
    from stoa_ops import replay

    raise typer.Exit(replay.command(_instance(), service, console()))


@app.command()
def outbox(json: Json = False) -> None:
    """Show which events wait to be published, and who publishes."""
    from stoa_ops import outbox

    raise typer.Exit(outbox.command(_instance(), console(), as_json=json))


@app.command()
def sagas(json: Json = False) -> None:
    """Show which orders wait for what, and since when."""
    from stoa_ops import sagas

    raise typer.Exit(sagas.command(_instance(), console(), as_json=json))


@app.command()
def top(
    interval: Annotated[float, typer.Option(min=0.2, help="seconds between two looks")] = 2,
    once: Annotated[bool, typer.Option("--once", help="show one interval and end")] = False,
    json: Json = False,
) -> None:
    """Show what the shop does at this moment: throughput, lag, errors, CPU and memory."""
    from stoa_ops import top

    raise typer.Exit(top.command(_instance(), console(), interval=interval, once=once, as_json=json))


@dlq.command("list")
def dlq_list(
    group: Group = "",
    decided: Annotated[bool, typer.Option("--decided", help="those replayed or dropped instead")] = False,
    json: Json = False,
) -> None:
    """List the dead letters that are open."""
    from stoa_ops import dlq

    raise typer.Exit(dlq.show_list(_instance(), console(), group, decided=decided, as_json=json))


@dlq.command("show")
def dlq_show(letter: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Print a dead letter: its reason, headers, event and traceback."""
    from stoa_ops import dlq

    raise typer.Exit(dlq.show(_instance(), console(), letter))


@dlq.command("replay")
def dlq_replay(
    letters: LetterIds = None,
    group: Group = "",
    every: Annotated[bool, typer.Option("--all", help="all that are open")] = False,
) -> None:
    """Send dead letters back to the group that gave up on them, and to no other."""
    from stoa_ops import dlq
    from stoa_ops.dead_letters import Fate

    raise typer.Exit(
        dlq.settle(_instance(), console(), Fate.REPLAYED, letters or [], group=group, all_=every)
    )


@dlq.command("drop")
def dlq_drop(
    letters: LetterIds = None,
    group: Group = "",
    every: Annotated[bool, typer.Option("--all", help="all that are open")] = False,
) -> None:
    """Decide that dead letters need no effect any more."""
    from stoa_ops import dlq
    from stoa_ops.dead_letters import Fate

    raise typer.Exit(dlq.settle(_instance(), console(), Fate.DROPPED, letters or [], group=group, all_=every))
