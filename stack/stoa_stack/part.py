"""What the supervisor needs to know of a process: a Part."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Part:
    """A server, a service or a one-off step of the stack.

    It is started when everything it `needs` is ready, after `prepare` (blocking, run in a thread; it may
    report its progress) has fetched what the command uses, and its configuration, `files`, is written.
    `ready` is asked until it no longer raises; `setup` then runs, before others see the part as ready, and
    again with each `stoa apply`. A part without `ready` is a one-off: it is done when its command ends with
    0. `forked_by` names the fork server that starts it, if that runs, instead of its command, which is
    `python -m <module>`. `secrets` names what it keeps in `secrets/stack/`, its own and what it shares.

    A part that runs is started anew by `stoa apply` if its command, its `env`, the content of its `files` or
    what is `declared` of it would now be others, or if something has changed in its Python `packages`
    (with all that they import of the checkout's, those `apart` excepted) or in what else it `reads` when it
    starts: files and folders.
    """

    name: str
    command: Sequence[str | Path]
    needs: Sequence[str] = ()
    prepare: Callable[[Report], None] | None = None
    ready: Callable[[], Awaitable[None]] | None = None
    setup: Callable[[], Awaitable[None]] | None = None
    files: Callable[[], Mapping[Path, bytes]] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    packages: Sequence[str] = ()
    apart: Sequence[str] = ()
    declared: str = ""
    reads: Sequence[Path] = ()
    forked_by: str = ""
    secrets: Sequence[str] = ()
    cwd: Path | None = None
    ports: Sequence[int] = ()
    url: str = ""
    stop_signal: signal.Signals = signal.SIGTERM
    stop_within_seconds: float = 20.0
    ready_within_seconds: float = 120.0


def with_needs(parts: Sequence[Part], names: Sequence[str]) -> list[Part]:
    """The named parts and all that they need, in the order of `parts`; KeyError for an unknown name."""
    by_name = {part.name: part for part in parts}
    wanted: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in wanted:
            wanted.add(name)
            pending.extend(by_name[name].needs)
    return [part for part in parts if part.name in wanted]
