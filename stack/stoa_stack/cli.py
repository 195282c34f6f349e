"""The `stoa` command: what there is to type. What a command does is elsewhere, imported when it is called."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from stoa_stack.instance import Instance

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Runs Stoa on this machine: real servers and services as native processes.",
)  # fmt: skip
certs = typer.Typer(no_args_is_help=True, help="The certificates of the local mesh.")
app.add_typer(certs, name="certs")

Part = Annotated[str, typer.Argument(metavar="PART", help="a part, as `stoa status` lists them")]


def _console() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # a file or a pipe has no edge to break a table at
    return console


def _instance() -> Instance:
    from stoa_stack.instance import Instance

    return Instance.current()


@app.command()
def up(
    only: Annotated[str, typer.Option(help="only these parts, separated by commas, and what they need")] = "",
) -> None:
    """Start everything and wait until it is ready."""
    from stoa_stack import up

    raise typer.Exit(up.up([name for name in only.split(",") if name], _console()))


@app.command()
def down() -> None:
    """Stop everything; the data stays."""
    from stoa_stack import up

    raise typer.Exit(up.down(_instance(), _console()))


@app.command()
def status(json: Annotated[bool, typer.Option("--json", help="for programs")] = False) -> None:
    """Show every part, with its memory and CPU time."""
    from stoa_stack import operate

    raise typer.Exit(operate.status(_instance(), _console(), as_json=json))


@app.command()
def logs(
    part: Part,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="go on as it grows")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines")] = 100,
) -> None:
    """Show the end of a part's log."""
    from stoa_stack import operate

    raise typer.Exit(operate.logs(_instance(), part, _console(), follow=follow, lines=lines))


@app.command()
def restart(part: Part) -> None:
    """Stop a part; it is started again at once."""
    from stoa_stack import operate

    raise typer.Exit(operate.send(_instance(), part, None, _console()))


@app.command()
def kill(part: Part) -> None:
    """Kill a part as a crash would (SIGKILL); it is started again at once."""
    from stoa_stack import operate

    raise typer.Exit(operate.send(_instance(), part, signal.SIGKILL, _console()))


@app.command()
def reset() -> None:
    """Stop everything and delete its data; what was downloaded stays."""
    from stoa_stack import operate

    raise typer.Exit(operate.reset(_instance(), _console()))


@app.command()
def env(service: Annotated[str, typer.Argument(help="a service, such as order")]) -> None:
    """Print the environment a service gets, to start it by hand."""
    from stoa_stack import operate

    raise typer.Exit(operate.env(_instance(), service, _console()))


@app.command()
def fetch(
    update: Annotated[bool, typer.Option(help="pin the newest files that the versions resolve to")] = False,
) -> None:
    """Download the servers that do not come as Python packages."""
    from stoa_stack import fetch

    raise typer.Exit(fetch.command(_console(), update=update))


@app.command()
def deploy() -> None:
    """Create the topics and register the event schemas at a running Kafka and registry."""
    from stoa_stack import deploy

    at = _instance()
    deploy.deploy(at.address("kafka"), at.registry_url)


@app.command()
def gen(
    check: Annotated[bool, typer.Option("--check", help="only say what is stale")] = False,
    compatible: Annotated[
        bool, typer.Option("--compatible", help="check the contracts' style and compatibility instead")
    ] = False,
) -> None:
    """Regenerate gen/ from proto/ and events/."""
    from stoa_stack.gen import command

    raise typer.Exit(command.gen(_console(), check=check, compatible=compatible))


@app.command()
def lock(upgrade: Annotated[bool, typer.Option(help="take the newest versions")] = False) -> None:
    """Resolve the Python packages into requirements.lock."""
    from stoa_stack import lock

    raise typer.Exit(lock.lock(upgrade=upgrade))


@app.command()
def lint() -> None:
    """Check style, types, imports and contracts."""
    from stoa_stack import quality

    quality.lint(_console())


@app.command()
def test() -> None:
    """Run every check and every test, on a stack of their own."""
    from stoa_stack import quality

    quality.test(_console())


@app.command()
def audit(
    wait: Annotated[float, typer.Option(help="seconds that the shop may take to settle")] = 10,
) -> None:
    """Check that the books of all services and of the payment gateway balance."""
    from stoa_stack.audit import command

    raise typer.Exit(command.command(_instance(), _console(), wait))


@app.command()
def chaos(
    seed: Annotated[
        int | None, typer.Option(help="the same seed gives the same run; without, a new one")
    ] = None,
    checkouts: Annotated[int, typer.Option(min=1)] = 2000,
    faults: Annotated[int, typer.Option(min=0)] = 60,
    minutes: Annotated[float, typer.Option(min=0.1, help="how long the load lasts")] = 16,
    here: Annotated[
        bool, typer.Option("--here", help="break the shop that runs, not one made for it")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="where the report goes, instead of chaos.json")] = None,
) -> None:
    """Break everything by a seeded schedule while shoppers buy, and audit what is left."""
    import random

    from stoa_stack.chaos import command

    plan = command.Plan(random.randrange(10_000) if seed is None else seed, checkouts, faults, minutes)
    raise typer.Exit(command.command(_console(), plan, here=here, report_file=report))


@app.command()
def replay(service: Annotated[str, typer.Argument(help="order")]) -> None:
    """Rebuild a service's projections from its events, while the shop runs."""
    from stoa_stack import replay

    raise typer.Exit(replay.command(_instance(), service, _console()))


@app.command()
def demo() -> None:
    """Play a shopper: buy, be declined, cancel."""
    from stoa_stack import demo

    raise typer.Exit(demo.command(_instance(), _console()))


@certs.command()
def rotate() -> None:
    """Issue new certificates; what runs picks them up."""
    from stoa_stack import operate

    raise typer.Exit(operate.rotate_certificates(_instance(), _console()))


if __name__ == "__main__":
    app()
