"""`stoa lint` and `stoa test`: everything that a change must pass, on a laptop as in CI."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console

from stoa_stack.instance import CHECKOUT, Instance
from stoa_stack.servers import mongo, postgres, valkey
from stoa_stack.throwaway import IMPATIENT, run, throwaway

_MODULES = (
    "stoa_contracts",
    "stoa_chassis",
    "stoa_gateway",
    "stoa_stack",
    "stoa_fakes",
    "stoa_ops",
    "stoa_tools",
    "stoa_chaos",
    "stoa_load",
    *sorted(f"stoa_{folder.name}" for folder in (CHECKOUT / "services").iterdir() if folder.is_dir()),
)
# The tests' own instance: it never meets the one of `make up`.
_STATE = CHECKOUT / ".stoa-test"


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
    with throwaway(console, _STATE, IMPATIENT) as at:
        run(console, "tests on the stack", "pytest", "-q", "-m", "stack", env=_servers(at))
        run(console, "books", "stoa", "audit", "--wait", "90")
    console.print(f"[green]all passed[/] in {(time.monotonic() - began) / 60:.1f} min")


def _servers(at: Instance) -> Mapping[str, str]:
    """Where tests find the servers; see conftest.py."""
    return {
        "STOA_TEST_POSTGRES": postgres.superuser_url(at, "postgres"),
        "STOA_TEST_MONGO": mongo.mongo_url(at),
        "STOA_TEST_REDIS": valkey.superuser_url(at),
        "STOA_TEST_KAFKA": at.address("kafka"),
        "STOA_TEST_REGISTRY": at.registry_url,
    }
