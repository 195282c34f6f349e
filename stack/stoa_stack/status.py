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
from typing import Any

from stoa_stack.files import private_folder, write_atomically
from stoa_stack.instance import Instance


class Phase(StrEnum):
    """Where the stack as a whole stands."""

    STARTING = "starting"
    READY = "ready"
    APPLYING = "applying"
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
    """One part.

    Times are seconds since the epoch, `created` is the process's start as the system has it. `fingerprint` is
    that of what it was started with.
    """

    state: State = State.WAITING
    detail: str = ""
    pid: int | None = None
    created: float = 0.0
    since: float = 0.0
    restarts: int = 0
    url: str = ""
    fingerprint: str = ""


@dataclass
class Failure:
    """Why the stack did not start, or a change could not be applied."""

    part: str
    reason: str
    log: list[str] = field(default_factory=list)


@dataclass
class Status:
    """The whole stack; `revision` names the record of the instance that it was started or changed by."""

    phase: Phase = Phase.STARTING
    pid: int = 0
    revision: str = ""
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
            revision=data.get("revision", ""),
            parts={name: _part(part) for name, part in data["parts"].items()},
            failure=Failure(**failure) if failure else None,
        )


def _part(data: dict[str, Any]) -> PartStatus:
    known = {name: data[name] for name in PartStatus.__dataclass_fields__ if name in data}
    return PartStatus(**(known | {"state": State(data["state"])}))


@contextmanager
def held(path: Path) -> Iterator[int | None]:
    """Try to hold the instance's lock; gives its file descriptor, or None if it is not free.

    The system releases it when the holder dies, however that happens: it says for certain whether a
    supervisor is running, which a pid in a file can't.
    """
    private_folder(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield descriptor
    finally:
        os.close(descriptor)


def status_file(at: Instance) -> Path:
    """Where the supervisor says how things stand."""
    return at.state / "run" / "status.json"


def lock_file(at: Instance) -> Path:
    """What the supervisor holds as long as it runs."""
    return at.state / "run" / "lock"


def is_running(at: Instance) -> bool:
    """Whether a supervisor runs for this instance."""
    return is_held(lock_file(at))


def is_held(path: Path) -> bool:
    """Whether a supervisor holds the lock now."""
    if not path.exists():
        return False
    with held(path) as lock:
        return lock is None
