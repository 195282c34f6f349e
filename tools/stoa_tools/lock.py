"""`stoa lock`: what the members ask for, resolved into requirements.lock.

uv's own lock file is not used: it names the registry that it was made with, which is each user's choice.
"""

from __future__ import annotations

import hashlib
import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from stoa_stack.instance import CHECKOUT
from stoa_tools.workspace import members

LOCK = CHECKOUT / "requirements.lock"
# For all of these the lock has wheels alone, so that nobody needs a compiler. The edge's server asks for the
# C library of Debian 11, Ubuntu 20.04 and what came after them.
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = ("x86_64-manylinux_2_31", "aarch64-manylinux_2_31")

_UV = Path(sys.executable).with_name("uv")  # placed there by stack/bootstrap
_STAMP = CHECKOUT / ".venv" / "lock-checked"
_UNREACHABLE = "Failed to fetch"


def lock(*, upgrade: bool) -> int:
    """Resolve, keeping the versions that are locked unless told to upgrade; returns the exit code."""
    return _resolve(LOCK, *(["--upgrade"] if upgrade else [])).returncode


def check(console: Console) -> int:
    """Prove that the lock is what the members ask for, and wheels on every platform; returns the exit code.

    Asks the registry, once for each change; if it can't be reached the check is left out, and says so.
    """
    if _STAMP.exists() and _STAMP.read_text() == _fingerprint():
        console.print("nothing has changed since the last check")
        return 0
    with ThreadPoolExecutor(max_workers=2) as pool:
        problems = list(filter(None, pool.map(lambda question: question(), _questions())))
    if any(_UNREACHABLE in problem for problem in problems):
        console.print("[yellow]not checked[/]: the package registry can't be reached")
        return 0
    for problem in problems:
        console.print(problem, markup=False, soft_wrap=True)
    if problems:
        return 1
    _STAMP.write_text(_fingerprint())
    return 0


def _questions() -> Iterator[Callable[[], str]]:
    yield _stale
    for python, platform in itertools.product(PYTHONS, PLATFORMS):
        yield partial(_without_wheels, python, platform)


def _stale() -> str:
    with TemporaryDirectory() as folder:
        again = Path(folder) / LOCK.name
        shutil.copy(LOCK, again)
        done = _resolve(again, capture=True)
        if done.returncode:
            return done.stderr
        return "" if again.read_text() == LOCK.read_text() else "requirements.lock is stale: run `stoa lock`"


def _without_wheels(python: str, platform: str) -> str:
    with TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                str(_UV), "pip", "install", "--quiet", "--dry-run", "--target", folder, "--no-deps",
                "--require-hashes", "--only-binary", ":all:", "--python-version", python,
                "--python-platform", platform, "--requirements", str(LOCK),
            ],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    return f"Python {python} on {platform}:\n{done.stderr}" if done.returncode else ""


def _resolve(output: Path, *options: str, capture: bool = False) -> subprocess.CompletedProcess[str]:
    """Resolve what all members ask for into a file, whose versions stay if they still fit."""
    found = members()
    unnamed = [word for member in found for word in ("--no-emit-package", member.name)]
    return subprocess.run(
        [
            str(_UV), "pip", "compile", "--quiet", "--universal", "--python-version", PYTHONS[0],
            "--generate-hashes", "--no-annotate", "--no-header", "--group", "pyproject.toml:dev", *unnamed,
            *options, "--output-file", str(output), "pyproject.toml",
            *(str(member.folder / "pyproject.toml") for member in found),
        ],
        cwd=CHECKOUT, text=True, check=False,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE if capture else None,
    )  # fmt: skip


def _fingerprint() -> str:
    """What the check depends on; another tool or another set of platforms is another check."""
    declared = [CHECKOUT / "pyproject.toml", *(CHECKOUT / m.folder / "pyproject.toml" for m in members())]
    digest = hashlib.sha256()
    for path in (LOCK, Path(__file__), CHECKOUT / "stack" / "tools.lock", *declared):
        digest.update(path.read_bytes())
    return digest.hexdigest()
