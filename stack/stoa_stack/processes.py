"""Finding and ending processes that belong to an instance, also those whose supervisor is gone."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # no types

from stoa_stack.status import PartStatus

MARKER = "STOA_INSTANCE"  # in the environment of every process of an instance: its state folder
_CLOCK_TOLERANCE_SECONDS = 0.05


def kill_group(leader: int) -> None:
    """Kill what is left of the process group that a part led."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def reap(ended: set[int]) -> set[int]:
    """Clear away the children of this process that have ended, and had already in an earlier look.

    Nobody waits for those: they are what others have left and this process has adopted. Returns what has
    ended by now, for the next look.
    """
    found = set()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.status() == psutil.STATUS_ZOMBIE:
                found.add(child.pid)
    for pid in found & ended:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return found - ended


def orphans(state: Path, recorded: Iterable[PartStatus]) -> list[psutil.Process]:
    """The instance's processes that run now.

    A process belongs to it if it carries the marker, or is one that the status file records, with the same
    start time (some servers overwrite their environment; pids are used again), or has such a one as its
    parent.
    """
    created = {part.pid: part.created for part in recorded if part.pid}
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            started = process.create_time()
            known = abs(created.get(process.pid, 0) - started) < _CLOCK_TOLERANCE_SECONDS
            if process.pid != os.getpid() and (known or _marker(process) == str(state)):
                found[process.pid] = process
                for child in process.children(recursive=True):
                    found[child.pid] = child
    return list(found.values())


def _marker(process: psutil.Process) -> str | None:
    try:
        value: str | None = process.environ().get(MARKER)
    except (psutil.Error, OSError):
        return None
    return value


def end(processes: list[psutil.Process], grace_seconds: float = 10.0) -> None:
    """Ask the processes to stop, and kill those that have not after the grace time."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            # PostgreSQL would wait for its clients on SIGTERM; SIGINT ends it at once and cleanly.
            process.send_signal(signal.SIGINT if process.name() == "postgres" else signal.SIGTERM)
    _, alive = psutil.wait_procs(processes, timeout=grace_seconds)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=grace_seconds)


def wait_for_exit(pid: int, within_seconds: float) -> bool:
    """Wait until the process is gone; False if it still runs."""
    deadline = time.monotonic() + within_seconds
    with contextlib.suppress(psutil.NoSuchProcess):
        # A zombie has ended; some systems take a second to clear it away.
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
    return True
