"""What the supervisor says of itself: one JSON file that `stoa up`, `status`, `down` and `kill` read."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

from stoa_stack.files import private_folder, write_atomically


class Phase(StrEnum):
    """Where the stack as a whole stands."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    STOPPING = "stopping"
    STOPPED = "stopped"


class State(StrEnum):
    """Where one part stands."""

    WAITING = "waiting"
    PREPARING = "preparing"
    STARTING = "starting"
    READY = "ready"
    DONE = "done"
    RESTARTING = "restarting"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass
class PartStatus:
    """One part; times are seconds since the epoch, `created` is the process's start as the system has it."""

    state: State = State.WAITING
    detail: str = ""
    pid: int | None = None
    created: float = 0.0
    since: float = 0.0
    restarts: int = 0
    url: str = ""


@dataclass
class Failure:
    """Why the stack did not start."""

    part: str
    reason: str
    log: list[str] = field(default_factory=list)


@dataclass
class Status:
    """The whole stack."""

    phase: Phase = Phase.STARTING
    pid: int = 0
    parts: dict[str, PartStatus] = field(default_factory=dict)
    failure: Failure | None = None

    def write(self, path: Path) -> None:
        """Replace the status file."""
        write_atomically(path, json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> Status | None:
        """The last status written, or None if there never was one."""
        try:
            data = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        failure = data["failure"]
        return cls(
            phase=Phase(data["phase"]),
            pid=data["pid"],
            parts={
                name: PartStatus(**(part | {"state": State(part["state"])}))
                for name, part in data["parts"].items()
            },
            failure=Failure(**failure) if failure else None,
        )


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Try to hold the instance's lock, and tell if it was free.

    The system releases it when the holder dies, however that happens: it says for certain whether a
    supervisor is running, which a pid in a file can't.
    """
    private_folder(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether a supervisor holds the lock now."""
    if not path.exists():
        return False
    with held(path) as free:
        return not free
