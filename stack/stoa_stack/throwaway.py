"""An instance that is made for one purpose and thrown away: for the tests, for chaos, for a bench."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console

from stoa_stack.instance import CHECKOUT, Instance

# Below 32768, where the system takes the ports of outgoing connections from.
_PORT_BASES = range(20000, 32000, 1000)
# Short waits, so that a payment that never answers in time can be watched to its end.
IMPATIENT = {
    "STOA_RATE_LIMITS": "off",
    "STOA_ORDER__PAYMENT_DEADLINE_SECONDS": "15",
    "GATEWAY_TIMEOUT_ANSWER_SECONDS": "20",
}


@contextmanager
def throwaway(console: Console, state: Path, settings: Mapping[str, str]) -> Iterator[Instance]:
    """Start an instance in `state`, from nothing and with `settings`, and stop it when the block ends.

    Within the block the environment names the instance. Raises typer.Exit if it does not start.
    """
    own = {**settings, "STOA_STATE": str(state), "STOA_PORT_BASE": str(free_port_base())}
    before = {name: os.environ.get(name) for name in own}
    os.environ |= own
    try:
        run(console, "clean slate", "stoa", "reset")
        try:
            run(console, "stack", "stoa", "up")
            yield Instance.current()
        finally:
            run(console, "stack down", "stoa", "down")
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def free_port_base() -> int:
    """The first base of which nobody listens on any port; raises typer.Exit if there is none."""
    for base in _PORT_BASES:
        if not any(_taken(base + offset) for offset in range(300)):
            return base
    raise typer.Exit(1)


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def run(console: Console, title: str, *command: str, env: Mapping[str, str] | None = None) -> None:
    """Run a command of the virtual environment from the checkout's root; raises typer.Exit if it fails."""
    console.rule(title, align="left")
    began = time.monotonic()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, cwd=CHECKOUT, env={**os.environ, "PATH": path, **(env or {})}, check=False)
    seconds = f"{time.monotonic() - began:.1f} s"
    if done.returncode:
        console.print(f"[red]{title}: failed[/] after {seconds}: {' '.join(command)}")
        raise typer.Exit(done.returncode)
    console.print(f"{title}: ok, {seconds}")
