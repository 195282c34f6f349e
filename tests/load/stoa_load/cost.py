"""What requests cost: CPU time of the processes and statements sent to PostgreSQL, from before to after."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]  # no types

from stoa_services import SERVICES
from stoa_stack.instance import Instance
from stoa_stack.status import Status
from stoa_stack.up import status_file

_STATEMENTS = re.compile(rb"^stoa_database_statements_total (\S+)$", re.MULTILINE)


def pids_of(at: Instance) -> dict[str, int]:
    """The process of each part that runs, and that of the supervisor."""
    status = Status.read(status_file(at))
    if status is None:
        return {}
    return {"supervisor": status.pid} | {name: p.pid for name, p in status.parts.items() if p.pid}


@dataclass(frozen=True)
class Reading:
    """Meters at one moment: CPU seconds and SQL statements since the start, by part."""

    at: float
    cpu: Mapping[str, float]
    statements: Mapping[str, float]


@dataclass(frozen=True)
class Idle:
    """What the stack takes when nobody comes, per second."""

    cpu: Mapping[str, float]
    statements: Mapping[str, float]

    @classmethod
    def between(cls, before: Reading, after: Reading) -> Idle:
        """The consumption of a quiet time."""
        seconds = after.at - before.at
        return cls(
            {part: (after.cpu[part] - before.cpu.get(part, 0)) / seconds for part in after.cpu},
            {part: (after.statements[part] - before.statements.get(part, 0)) / seconds
             for part in after.statements},
        )  # fmt: skip

    @property
    def cores(self) -> float:
        """All of it, in cores."""
        return sum(self.cpu.values())


@dataclass(frozen=True)
class Cost:
    """What was spent beyond the idle consumption: CPU milliseconds and statements, by part."""

    cpu_ms: Mapping[str, float]
    statements: Mapping[str, float]

    @classmethod
    def between(cls, before: Reading, after: Reading, idle: Idle) -> Cost:
        """What a load between two readings took."""
        seconds = after.at - before.at
        return cls(
            {part: 1000 * (now - before.cpu.get(part, 0) - seconds * idle.cpu.get(part, 0))
             for part, now in after.cpu.items()},
            {part: now - before.statements.get(part, 0) - seconds * idle.statements.get(part, 0)
             for part, now in after.statements.items()},
        )  # fmt: skip

    def per(self, requests: int) -> Cost:
        """The same for one of so many requests."""
        return Cost(
            {part: value / max(requests, 1) for part, value in self.cpu_ms.items()},
            {part: value / max(requests, 1) for part, value in self.statements.items()},
        )


class Meter:
    """Reads the meters of an instance, and of further processes that a scenario has started."""

    def __init__(self, at: Instance) -> None:
        self._at = at
        self.further: dict[str, int] = {}

    async def read(self) -> Reading:
        """Read them now."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> Reading:
        statements = {
            name: count
            for name in SERVICES
            if (count := _statements(self._at.port(f"{name}-metrics"))) is not None
        }
        # The supervisor is the parent of all others.
        cpu = {
            name: own_cpu_seconds(pid) if name == "supervisor" else cpu_seconds(pid)
            for name, pid in (pids_of(self._at) | self.further).items()
        }
        return Reading(time.perf_counter(), cpu, statements)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and all below it, those that have ended included."""
    total: Counter[str] = Counter()
    with contextlib.suppress(psutil.NoSuchProcess):
        leader = psutil.Process(pid)
        for process in (leader, *leader.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total.update(process.cpu_times()._asdict())
    return float(sum(total[kind] for kind in ("user", "system", "children_user", "children_system")))


def own_cpu_seconds(pid: int) -> float:
    """CPU time of a process alone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)
    return 0.0


def _statements(port: int) -> float | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            found = _STATEMENTS.search(answer.read())
    except OSError:
        return None
    return float(found[1]) if found else None
