"""Stripe's own mock: it checks requests against Stripe's description of its API, and forgets them.

It is built once for a user, as all programs in Go are (`stoa_tools.programs`).
"""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stoa_chassis.testing import free_port
from stoa_tools import programs

_UP_WITHIN = 30.0


def binary() -> Path:
    """The program, built first if it isn't there; skips the test where it can't be built."""
    try:
        return programs.program("stripe-mock")
    except (programs.BuildFailed, OSError) as error:
        pytest.skip(f"Stripe's mock can't be built here: {error}")


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
