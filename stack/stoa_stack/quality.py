"""`stoa lint` and `stoa test`: everything that a change must pass, on a laptop as in CI."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "libs/chassis",
    "stack",
    "gateway",
    *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "services").iterdir()),
)
console = Console(highlight=False)


def lint() -> None:
    """Check style, types, imports and contracts."""
    modules = [f"stoa_{Path(package).name}" for package in PACKAGES]
    _run("style", "ruff", "check", ".")
    _run("format", "ruff", "format", "--check", ".")
    _run("types", "mypy", *(arg for module in modules for arg in ("-p", module)))
    _run("imports", "lint-imports", "--no-cache")
    _run("contracts", sys.executable, "-m", "stoa_stack.gen", "--check")
    console.print("[green]lint passed[/]")


def _run(title: str, *command: str, env: dict[str, str] | None = None) -> None:
    """Run a check from the checkout's root; leave with its exit code if it fails."""
    began = time.monotonic()
    console.rule(
        f"{title}: {' '.join(Path(part).name if part == sys.executable else part for part in command)}"
    )
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PATH": _path(), **(env or {})}, check=False)
    if done.returncode:
        console.print(f"[red]{title} failed[/] (exit code {done.returncode})")
        raise typer.Exit(done.returncode)
    console.print(f"{title}: ok, {time.monotonic() - began:.1f} s")


def _path() -> str:
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
