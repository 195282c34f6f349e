"""The `stoa` command: what there is to type. What a command does is elsewhere, imported when it is called."""

from __future__ import annotations

import os
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
dlq = typer.Typer(no_args_is_help=True, help="Dead letters: messages that a consumer group gave up on.")
app.add_typer(dlq, name="dlq")

Part = Annotated[str, typer.Argument(metavar="PART", help="a part, as `stoa status` lists them")]
Json = Annotated[bool, typer.Option("--json", help="for programs")]
Group = Annotated[str, typer.Option(help="only of this consumer group")]
LetterIds = Annotated[list[str] | None, typer.Argument(metavar="ID", help="as `stoa dlq list` shows them")]


def _console() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # a file or a pipe has no edge to break a table at
    return console


def _instance() -> Instance:
    from stoa_stack.instance import Instance

    return Instance.current()


@app.callback()
def main() -> None:
    """Reach what listens on this machine directly, whatever proxy the environment names for the rest."""
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1")))


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
def model(
    states: Annotated[int, typer.Option(min=1, help="explore each scenario up to so many")] = 400_000,
) -> None:
    """Explore the states of the order saga, deeper than the tests do."""
    from stoa_stack import quality

    quality.model(_console(), states)


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
    only: Annotated[str, typer.Option(help="only faults at these parts, separated by commas")] = "",
    report: Annotated[Path | None, typer.Option(help="where the report goes, instead of chaos.json")] = None,
) -> None:
    """Break everything by a seeded schedule while shoppers buy, and audit what is left."""
    import random

    from stoa_stack.chaos import command

    seed = random.randrange(10_000) if seed is None else seed
    plan = command.Plan(seed, checkouts, faults, minutes, tuple(filter(None, only.split(","))))
    raise typer.Exit(command.command(_console(), plan, here=here, report_file=report))


@app.command()
def bench(
    scenario: Annotated[str, typer.Option(help="only these, separated by commas")] = "",
    seconds: Annotated[
        float, typer.Option(min=1, help="how long a scenario, or one of its steps, lasts")
    ] = 10,
    json: Annotated[Path | None, typer.Option(help="the file to which results are added")] = None,
) -> None:
    """Measure requests and what they cost, on the shop that runs without rate limits or on one of its own."""
    from stoa_stack.bench import command

    raise typer.Exit(
        command.command(_console(), [name for name in scenario.split(",") if name], seconds, json)
    )


@app.command()
def profile(
    service: Part,
    scenario: Annotated[str, typer.Option(help="the load: a scenario of `stoa bench`")] = "order",
    seconds: Annotated[float, typer.Option(min=1)] = 20,
    form: Annotated[str, typer.Option("--format", help="flamegraph, speedscope or raw")] = "flamegraph",
) -> None:
    """Record where a Python process spends its time under load (py-spy)."""
    from stoa_stack.bench import profile

    raise typer.Exit(profile.command(_console(), service, scenario, seconds, form))


@app.command()
def soak(
    minutes: Annotated[float, typer.Option(min=0.5)] = 20,
    json: Annotated[Path | None, typer.Option(help="the file to which samples are added")] = None,
) -> None:
    """Hold a moderate load, and see what grows: memory, connections, files, tables, topics, lag."""
    from stoa_stack.bench import soak

    raise typer.Exit(soak.command(_console(), minutes, json))


@app.command()
def replay(service: Annotated[str, typer.Argument(help="order or catalog")]) -> None:
    """Rebuild what a service's reads come from, while the shop runs."""
    from stoa_stack import replay

    raise typer.Exit(replay.command(_instance(), service, _console()))


@app.command()
def demo() -> None:
    """Play a shopper: buy, be declined, cancel."""
    from stoa_stack import demo

    raise typer.Exit(demo.command(_instance(), _console()))


@app.command()
def outbox(json: Json = False) -> None:
    """Show which events wait to be published, and who publishes."""
    from stoa_stack.operations import outbox

    raise typer.Exit(outbox.command(_instance(), _console(), as_json=json))


@app.command()
def sagas(json: Json = False) -> None:
    """Show which orders wait for what, and since when."""
    from stoa_stack.operations import sagas

    raise typer.Exit(sagas.command(_instance(), _console(), as_json=json))


@app.command()
def top(
    interval: Annotated[float, typer.Option(min=0.2, help="seconds between two looks")] = 2,
    once: Annotated[bool, typer.Option("--once", help="show one interval and end")] = False,
    json: Json = False,
) -> None:
    """Show what the shop does at this moment: throughput, lag, errors, CPU and memory."""
    from stoa_stack.operations import top

    raise typer.Exit(top.command(_instance(), _console(), interval=interval, once=once, as_json=json))


@dlq.command("list")
def dlq_list(
    group: Group = "",
    decided: Annotated[bool, typer.Option("--decided", help="those replayed or dropped instead")] = False,
    json: Json = False,
) -> None:
    """List the dead letters that are open."""
    from stoa_stack.operations import dlq

    raise typer.Exit(dlq.show_list(_instance(), _console(), group, decided=decided, as_json=json))


@dlq.command("show")
def dlq_show(letter: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Print a dead letter: its reason, headers, event and traceback."""
    from stoa_stack.operations import dlq

    raise typer.Exit(dlq.show(_instance(), _console(), letter))


@dlq.command("replay")
def dlq_replay(
    letters: LetterIds = None,
    group: Group = "",
    every: Annotated[bool, typer.Option("--all", help="all that are open")] = False,
) -> None:
    """Send dead letters back to the group that gave up on them, and to no other."""
    from stoa_stack.operations import dlq
    from stoa_stack.operations.dead_letters import Fate

    raise typer.Exit(
        dlq.settle(_instance(), _console(), Fate.REPLAYED, letters or [], group=group, all_=every)
    )


@dlq.command("drop")
def dlq_drop(
    letters: LetterIds = None,
    group: Group = "",
    every: Annotated[bool, typer.Option("--all", help="all that are open")] = False,
) -> None:
    """Decide that dead letters need no effect any more."""
    from stoa_stack.operations import dlq
    from stoa_stack.operations.dead_letters import Fate

    raise typer.Exit(
        dlq.settle(_instance(), _console(), Fate.DROPPED, letters or [], group=group, all_=every)
    )


@certs.command()
def rotate() -> None:
    """Issue new certificates; what runs picks them up."""
    from stoa_stack import operate

    raise typer.Exit(operate.rotate_certificates(_instance(), _console()))


if __name__ == "__main__":
    app()
