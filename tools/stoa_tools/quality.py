"""`stoa lint` and `stoa test`: everything that a change must pass, on a laptop as in CI."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import typer
from rich.console import Console

from stoa_stack.instance import CHECKOUT
from stoa_stack.throwaway import SHORT_WAITS, run, throwaway
from stoa_tools import on_stack, workspace

# A process per core; the tests of a file stay together, and files run in the order of their collection.
_IN_PARALLEL = ("-n", "auto", "--maxprocesses", "4", "--dist", "loadfile", "--no-loadscope-reorder")
_TAKE_A_VALUE = frozenset({"-c", "-k", "-m", "-n", "-o", "-p", "-r", "-W"})  # short options of pytest
_PYTEST_CACHE = CHECKOUT / ".pytest_cache"


def lint(console: Console, only: Sequence[str] = ()) -> None:
    """Check style, types, imports, the lock and the contracts: all of them, or the steps that are named.

    Every step runs, whatever failed before it. Raises typer.Exit if one failed, after naming those that did.
    """
    steps = _lint_steps()
    if unknown := set(only) - steps.keys():
        console.print(f"There is no step {', '.join(sorted(unknown))}. Steps: {', '.join(steps)}")
        raise typer.Exit(2)
    chosen = {name: command for name, command in steps.items() if not only or name in only}
    failed = [name for name, command in chosen.items() if not _passes(console, name, command)]
    if failed:
        console.print(f"[red]failed:[/] {', '.join(failed)}")
        raise typer.Exit(1)


def _lint_steps() -> Mapping[str, Sequence[str]]:
    return {
        "style": ("ruff", "check", "."),
        "format": ("ruff", "format", "--check", "."),
        "types": ("mypy", *_typed()),
        "imports": (sys.executable, "-m", "stoa_tools.imports"),
        "lock": ("stoa", "lock", "--check"),
        "generated": ("stoa", "gen", "--check"),
        "contracts": ("stoa", "gen", "--compatible"),
        "migrations": (sys.executable, "-m", "stoa_tools.migrations"),
    }


def _typed() -> Sequence[str]:
    """What mypy checks: every package of ours and all tests, in one run that shares its cache."""
    packages = [module for member in workspace.members() for module in member.modules]
    tests = workspace.packages_of_tests()
    return [word for name in (*packages, *tests) for word in ("-p", name)]


def _passes(console: Console, name: str, command: Sequence[str]) -> bool:
    try:
        run(console, name, *command)
    except typer.Exit:
        return False
    return True


def model(console: Console, states: int) -> None:
    """Run the model check with up to `states` states a scenario; raises typer.Exit if it finds something."""
    run(console, "model check", "pytest", "-q", "tests/model", env={"STOA_MODEL_STATES": str(states)})


def test(console: Console) -> None:
    """Run everything: lint, the tests that bring what they need, those on a stack of their own, which is then
    audited.

    Raises typer.Exit with the code of the first step that fails, and says last what to look at.
    """
    began = time.monotonic()
    shutil.rmtree(_PYTEST_CACHE, ignore_errors=True)  # so that it names the failures of this run alone
    try:
        lint(console)
        alone = "not stack or own_stack"
        run(console, "tests that need no stack", "pytest", "-q", "-m", alone, *_IN_PARALLEL)
        with throwaway(console, on_stack.STATE, SHORT_WAITS) as at:
            shared = "stack and not own_stack"
            run(console, "tests on the stack", "pytest", "-q", "-m", shared, env=on_stack.servers(at))
            run(console, "books", "stoa", "audit", "--wait", "90")
    except typer.Exit:
        _print_failures(console)
        raise
    console.print(f"[green]all passed[/] in {(time.monotonic() - began) / 60:.1f} min")


def some_tests(console: Console, arguments: Sequence[str]) -> None:
    """Run the tests that pytest's arguments choose, on the stack that is kept.

    Raises typer.Exit if one fails.
    """
    run(console, "tests", "pytest", "-p", "stoa_tools.on_stack", *_from_here(arguments))


def _print_failures(console: Console) -> None:
    """Say at the end which tests failed: after them the stack still had its say while it went down."""
    record = _PYTEST_CACHE / "v" / "cache" / "lastfailed"
    failed = json.loads(record.read_text()) if record.exists() else {}
    if not failed:
        return
    console.rule("failed", align="left")
    for name in failed:
        console.print(name, markup=False, soft_wrap=True)
    console.print("Run them again, on a stack that is kept: stoa test --last-failed")


def _from_here(arguments: Sequence[str]) -> Iterator[str]:
    """Paths as pytest finds them, which runs in the checkout's root; other arguments as they are."""
    for before, argument in zip(("", *arguments), arguments, strict=False):
        path, *rest = argument.split("::")
        is_path = before not in _TAKE_A_VALUE and Path(path).exists()
        yield "::".join([str(Path(path).resolve()), *rest]) if is_path else argument
