"""`stoa lint` and `stoa test`: everything that a change must pass, on a laptop as in CI."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import typer
from rich.console import Console

from stoa_stack.instance import CHECKOUT, Instance
from stoa_stack.servers import mongo, postgres, valkey

_MODULES = (
    "stoa_chassis",
    "stoa_gateway",
    "stoa_stack",
    "stoa_fakes",
    *sorted(f"stoa_{folder.name}" for folder in (CHECKOUT / "services").iterdir() if folder.is_dir()),
)
# The tests' own instance: it never meets the one of `make up`.
_STATE = CHECKOUT / ".stoa-test"
# Below 32768, where the system takes the ports of outgoing connections from.
_PORT_BASES = range(20000, 32000, 1000)
# Short waits, so that a payment that never answers in time can be watched to its end.
IMPATIENT = {
    "STOA_RATE_LIMITS": "off",
    "STOA_ORDER__PAYMENT_DEADLINE_SECONDS": "15",
    "GATEWAY_TIMEOUT_ANSWER_SECONDS": "20",
}


def lint(console: Console) -> None:
    """Check style, types, imports and contracts; raises typer.Exit with the code of the first that fails."""
    run(console, "style", "ruff", "check", ".")
    run(console, "format", "ruff", "format", "--check", ".")
    run(console, "types", "mypy", *(word for module in _MODULES for word in ("-p", module)))
    run(console, "imports", "lint-imports", "--no-cache")
    run(console, "generated code", "stoa", "gen", "--check")
    run(console, "contracts", "stoa", "gen", "--compatible")


def model(console: Console, states: int) -> None:
    """Run the model check with up to `states` states a scenario; raises typer.Exit if it finds something."""
    run(console, "model check", "pytest", "-q", "tests/model", env={"STOA_MODEL_STATES": str(states)})


def test(console: Console) -> None:
    """Run everything: lint, the tests without servers, and those on a stack of their own; then audit it.

    Raises typer.Exit with the code of the first step that fails.
    """
    began = time.monotonic()
    lint(console)
    run(console, "tests without servers", "pytest", "-q", "-m", "not stack")
    environment = {**IMPATIENT, "STOA_STATE": str(_STATE), "STOA_PORT_BASE": str(free_port_base())}
    run(console, "clean slate", "stoa", "reset", env=environment)
    try:
        run(console, "stack", "stoa", "up", env=environment)
        run(console, "tests on the stack", "pytest", "-q", "-m", "stack", env={**environment, **_servers()})
        run(console, "books", "stoa", "audit", "--wait", "90", env=environment)
    finally:
        run(console, "stack down", "stoa", "down", env=environment)
    console.print(f"[green]all passed[/] in {(time.monotonic() - began) / 60:.1f} min")


def _servers() -> Mapping[str, str]:
    """Where tests find the servers; see conftest.py."""
    at = Instance.current({"STOA_STATE": str(_STATE)})
    return {
        "STOA_TEST_POSTGRES": postgres.superuser_url(at, "postgres"),
        "STOA_TEST_MONGO": mongo.mongo_url(at),
        "STOA_TEST_REDIS": valkey.superuser_url(at),
        "STOA_TEST_KAFKA": at.address("kafka"),
        "STOA_TEST_REGISTRY": at.registry_url,
    }


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
