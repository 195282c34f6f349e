"""What operators type: `stoa audit`, `top`, `outbox`, `sagas`, `dlq`, and what Jobs run: `deploy` …"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from stoa_ops.settings import OperatorSettings

app = typer.Typer()
dlq = typer.Typer(no_args_is_help=True, help="Dead letters: messages that a consumer group gave up on.")
app.add_typer(dlq, name="dlq")

Json = Annotated[bool, typer.Option("--json", help="for programs")]
Group = Annotated[str, typer.Option(help="only of this consumer group")]
LetterIds = Annotated[list[str] | None, typer.Argument(metavar="ID", help="as `stoa dlq list` shows them")]


def add_to(stoa: typer.Typer) -> None:
    """Add these commands to the command line."""
    stoa.add_typer(app)


def _settings() -> OperatorSettings:
    from stoa_ops.settings import OperatorSettings, SettingsMissing

    try:
        return OperatorSettings.load()
    except SettingsMissing as missing:
        _console().print(str(missing), soft_wrap=True, markup=False)
        raise typer.Exit(2) from None


def _console() -> Console:
    from stoa_ops.texts import terminal

    return terminal()


@app.command()
def audit(
    wait: Annotated[float, typer.Option(help="seconds that the shop may take to settle")] = 10,
) -> None:
    """Check that the books of all services and of the payment gateway balance."""
    from stoa_ops.audit import command

    raise typer.Exit(command.command(_settings(), _console(), wait))


@app.command()
def outbox(json: Json = False) -> None:
    """Show which events wait to be published, and who publishes."""
    from stoa_ops import outbox

    raise typer.Exit(outbox.command(_settings(), _console(), as_json=json))


@app.command()
def sagas(json: Json = False) -> None:
    """Show which orders wait for what, and since when."""
    from stoa_ops import sagas

    raise typer.Exit(sagas.command(_settings(), _console(), as_json=json))


@app.command()
def top(
    interval: Annotated[float, typer.Option(min=0.2, help="seconds between two looks")] = 2,
    once: Annotated[bool, typer.Option("--once", help="show one interval and end")] = False,
    json: Json = False,
) -> None:
    """Show what the shop does at this moment: throughput, lag, errors, CPU and memory."""
    from stoa_ops import top

    raise typer.Exit(top.command(_settings(), _console(), interval=interval, once=once, as_json=json))


@app.command()
def deploy(
    replication: Annotated[int, typer.Option(min=1, help="copies of each new topic's events")] = 1,
) -> None:
    """Create the topics and register the event schemas that are missing."""
    from stoa_ops import deploy

    raise typer.Exit(deploy.command(_settings(), _console(), replication=replication))


@app.command()
def migrate(
    services: Annotated[list[str] | None, typer.Argument(metavar="SERVICE", help="all if none")] = None,
) -> None:
    """Bring the schemas of the services' databases up to date."""
    from stoa_ops import migrate

    raise typer.Exit(migrate.command(services or [], _console()))


@app.command()
def accounts() -> None:
    """Make the shop's accounts at servers that somebody else runs, or give them new passwords."""
    from stoa_ops import accounts

    raise typer.Exit(accounts.command(_console()))


@app.command()
def replay(service: Annotated[str, typer.Argument(help="a service with projections, such as order")]) -> None:
    """Rebuild what a service's reads come from, while the shop runs."""
    from stoa_ops import replay

    raise typer.Exit(replay.command(service, _console()))


@app.command()
def reindex() -> None:
    """Make the search index anew from the catalogue, while the shop runs and searches go on."""
    from stoa_ops import replay

    raise typer.Exit(replay.command("search", _console()))


@dlq.command("list")
def dlq_list(
    group: Group = "",
    decided: Annotated[bool, typer.Option("--decided", help="those replayed or dropped instead")] = False,
    json: Json = False,
) -> None:
    """List the dead letters that are open."""
    from stoa_ops import dlq

    raise typer.Exit(dlq.show_list(_settings(), _console(), group, decided=decided, as_json=json))


@dlq.command("show")
def dlq_show(letter: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Print a dead letter: its reason, headers, event and traceback."""
    from stoa_ops import dlq

    raise typer.Exit(dlq.show(_settings(), _console(), letter))


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
        dlq.settle(_settings(), _console(), Fate.REPLAYED, letters or [], group=group, all_=every)
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

    raise typer.Exit(
        dlq.settle(_settings(), _console(), Fate.DROPPED, letters or [], group=group, all_=every)
    )
