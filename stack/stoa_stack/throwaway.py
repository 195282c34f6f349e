"""An instance that is made for one purpose and thrown away: for the tests, for chaos, for a bench."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import typer
from rich.console import Console

from stoa_stack.instance import CHECKOUT, Instance

# Below 32768, where the system takes the ports of outgoing connections from.
_PORT_BASES = range(20000, 32000, 1000)
_GRACE_SECONDS = 120.0  # for a command that is told to end: a stack takes its time to stop
_Handler = Callable[[int, FrameType | None], None] | signal.Handlers
# Short waits, so that a payment that never answers in time can be watched to its end.
SHORT_WAITS = {
    "STOA_RATE_LIMITS": "off",
    "STOA_ORDER__PAYMENT_DEADLINE_SECONDS": "15",
    "GATEWAY_TIMEOUT_ANSWER_SECONDS": "20",
}


@contextmanager
def throwaway(
    console: Console, state: Path, settings: Mapping[str, str], only: Sequence[str] = ()
) -> Iterator[Instance]:
    """Start an instance in `state`, from nothing and with `settings`, and stop it when the block ends.

    Within the block the environment names the instance. `only` are the parts that are needed, none for all.
    However the block ends, by SIGTERM or a closed terminal as well, the instance is stopped; its data stays
    for a look until the next one is started there. Raises typer.Exit if it does not start.
    """
    own = {"STOA_EDGE_PORT": "", **settings, "STOA_STATE": str(state)}
    with port_base() as base, _environment(own | {"STOA_PORT_BASE": str(base)}), _ending_in_order():
        run(console, "clean slate", "stoa", "reset")
        try:
            run(console, "stack", "stoa", "up", *(["--only", ",".join(only)] if only else []))
            yield Instance.current()
        finally:
            with _undisturbed():
                run(console, "stack down", "stoa", "down")


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Add to this process's environment within the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ |= variables
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Let the signals by which a job is ended end the block as an exception does."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    with _handling({signal.SIGTERM: end, signal.SIGHUP: end}):
        yield


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore signals to end within the block: what it stops would be left behind."""
    with _handling(dict.fromkeys((signal.SIGTERM, signal.SIGHUP, signal.SIGINT), signal.SIG_IGN)):
        yield


@contextmanager
def _handling(handlers: Mapping[signal.Signals, _Handler]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # which alone may handle signals
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def port_base() -> Iterator[int]:
    """The first base of which nobody listens on any port; raises typer.Exit if there is none.

    Its last port, which no part has, is taken until the block ends, so that two that look at the same moment
    get two.
    """
    for base in _PORT_BASES:
        with socket.socket() as sign:
            if any(_taken(base + offset) for offset in range(_PORT_BASES.step)):
                continue
            try:
                sign.bind(("127.0.0.1", base + _PORT_BASES.step - 1))
            except OSError:
                continue
            yield base
            return
    typer.echo(f"No port base from {_PORT_BASES[0]} to {_PORT_BASES[-1]} is free.", err=True)
    raise typer.Exit(1)


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def run(
    console: Console, title: str, *command: str, env: Mapping[str, str] | None = None, folder: Path = CHECKOUT
) -> None:
    """Run a command of the virtual environment, from the checkout's root; raises typer.Exit if it fails."""
    console.rule(title, align="left")
    began = time.monotonic()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(command, cwd=folder, env={**os.environ, "PATH": path, **(env or {})})
    try:
        code = process.wait()
    except BaseException:  # we are told to end, and so is the command
        process.terminate()
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise
    seconds = f"{time.monotonic() - began:.1f} s"
    if code:
        console.print(f"[red]{title}: failed[/] after {seconds}: {' '.join(command)}")
        raise typer.Exit(code)
    console.print(f"{title}: ok, {seconds}")
