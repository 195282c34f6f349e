"""What there is only where the shop runs on this machine: its state folder and its processes.

All else works without it, so that the tools can be installed without the local stack.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil  # type: ignore[import-untyped]  # no types

    from stoa_stack.instance import Instance


@dataclass(frozen=True, slots=True)
class Usage:
    """What the processes of a part have used of the processors, and what they take of the memory."""

    cpu_seconds: float
    memory_mb: float


def operator_folder() -> Path | None:
    """Where the local instance keeps the settings of its operators; None without the local stack."""
    at = _instance()
    return at.state / "operator" if at is not None else None


def is_down() -> bool:
    """Whether there is a local instance and it does not run."""
    at = _instance()
    if at is None or not (at.state / "instance.json").exists():
        return False
    from stoa_stack.up import is_running

    return not is_running(at)


def usage() -> Mapping[str, Usage]:
    """What each part takes of this machine; nothing if no local instance runs."""
    at = _instance()
    if at is None:
        return {}
    from stoa_stack.running import memory_mb, processes_of
    from stoa_stack.status import Status
    from stoa_stack.up import status_file

    status = Status.read(status_file(at))
    found = {}
    for name, part in (status.parts if status else {}).items():
        if processes := processes_of(part):
            found[name] = Usage(sum(map(_cpu_seconds, processes)), memory_mb(processes))
    return found


def environment(service: str) -> Mapping[str, str]:
    """What a service's program is started with: what the local stack gives it, else what this process has."""
    at = _instance()
    if at is None:
        return os.environ
    from stoa_services import SERVICES
    from stoa_stack import services

    return os.environ | services.environment(at, SERVICES[service])


@functools.cache
def pids() -> Mapping[int, int]:
    """Which process has which local port, of a local instance."""
    if _instance() is None:
        return {}
    import psutil

    return {
        connection.laddr.port: connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.laddr and connection.pid
    }


def _instance() -> Instance | None:
    if os.environ.get("STOA_OPS_DIR") or importlib.util.find_spec("stoa_stack") is None:
        return None  # a shop elsewhere is meant, or the stack is not installed
    from stoa_stack.instance import Instance

    return Instance.current()


def _cpu_seconds(process: psutil.Process) -> float:
    import psutil

    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)
