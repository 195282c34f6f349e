"""The `stoa` command, and what it runs here. What a command does is elsewhere, imported when it is called.

Other parts bring their own commands: each names a function in the entry points `stoa.commands`, which adds
them to the command line.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stoa_stack import bytecode
from stoa_stack.terminal import console

if TYPE_CHECKING:
    from stoa_stack.instance import Instance

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Runs Stoa on this machine: real servers and services as native processes.",
)  # fmt: skip
certs = typer.Typer(no_args_is_help=True, help="The certificates of the local mesh.")
app.add_typer(certs, name="certs")
mail = typer.Typer(no_args_is_help=True, help="The mail that the shop has sent.")
app.add_typer(mail, name="mail")

Json = Annotated[bool, typer.Option("--json", help="for programs")]
To = Annotated[str, typer.Option(help="only to addresses with this in them")]
Subject = Annotated[str, typer.Option(help="only with this in the subject")]
Part = Annotated[str, typer.Argument(metavar="PART", help="a part, as `stoa status` lists them")]


def _instance() -> Instance:
    from stoa_stack.instance import Instance

    return Instance.current()


def _install() -> None:
    """Install what has been added to the checkout, such as a new service, and begin anew if there was any."""
    from stoa_stack.instance import CHECKOUT

    environment = CHECKOUT / ".venv"
    if Path(sys.prefix) != environment:  # not the one that the checkout looks after
        return
    stamp = environment / "stamp"
    before = stamp.read_bytes()
    if subprocess.run([CHECKOUT / "stack" / "bootstrap"], check=False).returncode:
        raise typer.Exit(1)
    if stamp.read_bytes() != before:
        os.execv(sys.executable, [sys.executable, "-m", "stoa_stack.cli", *sys.argv[1:]])


@app.callback()
def main() -> None:
    """Reach what listens on this machine directly, whatever proxy the environment names for the rest."""
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1")))
    bytecode.keep()


@app.command()
def up(
    only: Annotated[str, typer.Option(help="only these parts, separated by commas, and what they need")] = "",
) -> None:
    """Start everything and wait until it is ready; what runs already is brought up to date."""
    _install()
    from stoa_stack import up

    raise typer.Exit(up.up([name for name in only.split(",") if name], console()))


@app.command()
def apply() -> None:
    """Bring what runs to what the checkout is now: contracts, edge, services; only what changed restarts."""
    _install()
    from stoa_stack import up

    raise typer.Exit(up.apply(console()))


@app.command()
def down() -> None:
    """Stop everything; the data stays."""
    from stoa_stack import up

    raise typer.Exit(up.down(_instance(), console()))


@app.command()
def status(json: Json = False) -> None:
    """Show every part, with its memory and CPU time."""
    from stoa_stack import running

    raise typer.Exit(running.status(_instance(), console(), as_json=json))


@app.command()
def logs(
    part: Part,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="go on as it grows")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines")] = 100,
) -> None:
    """Show the end of a part's log."""
    from stoa_stack import running

    raise typer.Exit(running.logs(_instance(), part, console(), follow=follow, lines=lines))


@app.command()
def restart(part: Part) -> None:
    """Start a part anew, with its configuration written anew."""
    from stoa_stack import running

    raise typer.Exit(running.restart(_instance(), part, console()))


@app.command()
def kill(part: Part) -> None:
    """Kill a part as a crash would (SIGKILL); it is started again at once."""
    from stoa_stack import running

    raise typer.Exit(running.kill(_instance(), part, console()))


@app.command()
def reset() -> None:
    """Stop everything and delete its data; what was downloaded stays."""
    from stoa_stack import running

    raise typer.Exit(running.reset(_instance(), console()))


@app.command()
def env(service: Annotated[str, typer.Argument(help="a service, such as order")]) -> None:
    """Print the environment a service gets, to start it by hand."""
    from stoa_stack import running

    raise typer.Exit(running.env(_instance(), service, console()))


@app.command()
def fetch(
    update: Annotated[bool, typer.Option(help="pin the newest files that the versions resolve to")] = False,
) -> None:
    """Download the servers that do not come as Python packages."""
    from stoa_stack import fetch

    raise typer.Exit(fetch.command(console(), update=update))


@app.command()
def secrets(
    namespace: Annotated[str, typer.Option(help="of the shop")] = "stoa",
    infrastructure: Annotated[str, typer.Option(help="the namespace of its servers")] = "stoa-infrastructure",
    show: Annotated[bool, typer.Option("--print", help="only print them, with their values")] = False,
) -> None:
    """Make the Secrets of a shop for tests in the cluster of kubectl; what is there stays."""
    from stoa_stack import cluster, cluster_secrets

    namespaces = cluster.Namespaces(namespace, infrastructure)
    raise typer.Exit(cluster_secrets.command(namespaces, console(), show=show))


@app.command()
def demo() -> None:
    """Play a shopper: search, buy, be declined, cancel, receive, review, send back."""
    from stoa_stack import demo

    raise typer.Exit(demo.command(_instance(), console()))


@certs.command()
def rotate() -> None:
    """Issue new certificates; what runs picks them up."""
    from stoa_stack import running

    raise typer.Exit(running.rotate_certificates(_instance(), console()))


@mail.command("list")
def list_mail(
    to: To = "",
    subject: Subject = "",
    lines: Annotated[int, typer.Option("-n", "--lines", help="at most so many")] = 20,
    json: Json = False,
) -> None:
    """List the newest mails."""
    from stoa_stack import mail

    raise typer.Exit(mail.show_list(_instance(), console(), mail.Wanted(to, subject), lines, as_json=json))


@mail.command("show")
def show_mail(
    number: Annotated[int, typer.Argument(metavar="N", help="as `stoa mail list` shows it")],
    json: Json = False,
) -> None:
    """Show what a mail says."""
    from stoa_stack import mail

    raise typer.Exit(mail.show(_instance(), console(), number, as_json=json))


@mail.command("wait")
def wait_for_mail(
    to: To = "",
    subject: Subject = "",
    after: Annotated[int, typer.Option(help="only mails that came after this one")] = 0,
    seconds: Annotated[float, typer.Option(help="how long at most")] = 30,
    json: Json = False,
) -> None:
    """Wait until a mail is there, and show it."""
    from stoa_stack import mail

    wanted = mail.Wanted(to, subject, after)
    raise typer.Exit(mail.wait(_instance(), console(), wanted, seconds, as_json=json))


for _part in sorted(entry_points(group="stoa.commands")):
    _part.load()(app)

if __name__ == "__main__":
    app()
