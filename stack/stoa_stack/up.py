"""`stoa up`, `stoa apply` and `stoa down`: telling the supervisor what to do and showing what it does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stoa_stack import fingerprint, preflight, processes
from stoa_stack.instance import Instance
from stoa_stack.part import Part
from stoa_stack.status import Failure, Phase, State, Status
from stoa_stack.status import is_running as is_running
from stoa_stack.status import status_file as status_file
from stoa_stack.supervisor import tail

_STOP_SECONDS = 90.0
_COLOURS = {
    State.READY: "green",
    State.DONE: "green",
    State.STARTING: "yellow",
    State.PREPARING: "cyan",
    State.RESTARTING: "red",
    State.FAILED: "bold red",
}


def up(only: Sequence[str], console: Console) -> int:
    """Start the instance and follow it until it is ready; returns the exit code.

    One that runs is brought up to date instead, as `stoa apply` does.
    """
    at = Instance.current()
    if is_running(at):
        status = Status.read(status_file(at))
        if status is None or status.phase not in (Phase.READY, Phase.APPLYING):
            console.print("It is already being started.")
            return _follow(at, console, daemon=None)
        return apply(console, only)
    at = replace(at.configured(), only=tuple(only), revision=uuid.uuid4().hex)
    try:
        if (parts := _parts_of(at, only, console)) is None:
            return 2
        _stop_orphans(at, console)
        preflight.check_machine(at.state, whole=not only)
        preflight.check_ports(parts)
    except preflight.NotPossible as problem:
        console.print(Text(str(problem), style="red"))
        return 1
    at.record()
    return _follow(at, console, _spawn_daemon(at))


def apply(console: Console, only: Sequence[str] = ()) -> int:
    """Bring the running instance to what the checkout and the environment are now; returns the exit code.

    Contracts are deployed, the edge is rendered, what is new is started and what is removed stopped; the
    parts that would now be started with other code or settings are restarted, one after the other. Parts that
    `only` names are added to those that were asked for before.
    """
    at = Instance.current()
    if not is_running(at):
        console.print("It is not running: `stoa up` starts it.")
        return 3
    status = Status.read(status_file(at)) or Status()
    if not status.revision:
        console.print("It was started by an older version: `stoa down` and `stoa up` bring it up to date.")
        return 1
    asked = tuple(dict.fromkeys((*at.only, *only))) if at.only else ()
    at = replace(at.adjusted(), only=asked, revision=uuid.uuid4().hex)
    try:
        if (parts := _parts_of(at, only, console)) is None:
            return 2
        preflight.check_ports([part for part in parts if part.name not in status.parts])
    except preflight.NotPossible as problem:
        console.print(Text(str(problem), style="red"))
        return 1
    found = differences(parts, status)
    for name, difference in found.items():
        console.print(f"{name} {difference}.", soft_wrap=True)
    if not found:
        console.print("It runs what the checkout has; databases, accounts and topics are looked after.")
    at.record()
    os.kill(status.pid, signal.SIGHUP)
    return _follow(at, console, daemon=None, before=status)


def _parts_of(at: Instance, only: Sequence[str], console: Console) -> Sequence[Part] | None:
    """The parts that are to run; None, after saying so, if one is asked for that there isn't.

    Raises preflight.NotPossible if a declaration is not what was generated from it.
    """
    preflight.check_declarations()
    if not _all_known(at, only, console):
        return None
    from stoa_stack.parts import chosen

    return chosen(at)


def _all_known(at: Instance, names: Sequence[str], console: Console) -> bool:
    from stoa_stack.parts import parts  # brings the servers' clients with it: not for every command

    known = [part.name for part in parts(at)] if names else []
    unknown = [name for name in names if name not in known]
    if unknown:
        console.print(f"There is no part {', '.join(unknown)}. Parts: {', '.join(known)}")
    return not unknown


def differences(parts: Sequence[Part], status: Status) -> dict[str, str]:
    """What `stoa apply` would do to a running instance with this table of parts, by the part's name."""
    found = {}
    for part in parts:
        running = status.parts.get(part.name)
        if running is None:
            found[part.name] = "is new"
        elif running.fingerprint and running.fingerprint != fingerprint.of(part):
            found[part.name] = "runs other code or settings than those of the checkout"
    names = {part.name for part in parts}
    return found | {name: "is no part any more" for name in status.parts if name not in names}


def _spawn_daemon(at: Instance) -> subprocess.Popen[bytes]:
    status_file(at).unlink(missing_ok=True)
    with (at.folder("logs") / "supervisor.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "stoa_stack.daemon"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ
            | {"STOA_STATE": str(at.state), "GRPC_ENABLE_FORK_SUPPORT": "0", processes.MARKER: str(at.state)},
            start_new_session=True,
        )


def _follow(
    at: Instance, console: Console, daemon: subprocess.Popen[bytes] | None, before: Status | None = None
) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a job that is cancelled stops it like Ctrl-C
    try:
        status = _watch(at, console, daemon, before)
    except KeyboardInterrupt:
        if before is not None:
            console.print("It goes on; `stoa status` shows how it stands.")
            return 130
        console.print("Stopping.")
        down(at, console)
        return 130
    if status.failure is not None:
        _print_failure(at, status, status.failure, console)
        return 1
    if status.phase is Phase.READY:
        _print_addresses(at, status, console)
        return 0
    return 1


def _watch(
    at: Instance, console: Console, daemon: subprocess.Popen[bytes] | None, before: Status | None
) -> Status:
    """Show the progress until the stack is ready or has failed.

    `daemon` is its supervisor, if it's ours; `before` how it stood when it was told to apply what has
    changed.
    """
    began = time.monotonic()
    shown = {name: part.state for name, part in before.parts.items()} if before is not None else {}
    status = Status()
    display = Live(console=console, refresh_per_second=8, transient=True) if console.is_terminal else None
    with display or contextlib.nullcontext():
        while True:
            gone = (daemon is None or daemon.poll() is not None) and not is_running(at)
            status = Status.read(status_file(at)) or status
            if display is not None:
                display.update(_progress(status, time.monotonic() - began))
            else:
                for name, part in status.parts.items():
                    if part.state is not State.WAITING and shown.get(name) is not part.state:
                        shown[name] = part.state
                        console.print(
                            f"{time.monotonic() - began:6.1f} s  {name:12} {part.state} {part.detail}",
                            soft_wrap=True,
                        )
            if before is not None and status.revision != at.revision and not gone:
                time.sleep(0.05)  # it has not taken the signal yet
                continue
            if status.phase in (Phase.FAILED, Phase.STOPPED):
                processes.wait_for_exit(status.pid, _STOP_SECONDS)
            if status.phase in (Phase.READY, Phase.FAILED, Phase.STOPPED):
                break
            if gone:
                log = tail(at.state / "logs" / "supervisor.log")
                status.phase, status.failure = (
                    Phase.FAILED,
                    Failure("supervisor", "it ended without a word", log),
                )
                break
            time.sleep(0.1)
    if status.phase is Phase.READY and status.failure is None:
        console.print(f"Ready after {time.monotonic() - began:.1f} s.")
    return status


def _progress(status: Status, seconds: float) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, part in status.parts.items():
        table.add_row(name, Text(part.state, style=_COLOURS.get(part.state, "dim")), Text(part.detail, "dim"))
    table.add_row("", Text(f"{seconds:.0f} s", "dim"))
    return table


def _print_addresses(at: Instance, status: Status, console: Console) -> None:
    table = Table.grid(padding=(0, 2))
    for name, part in status.parts.items():
        if part.url:
            table.add_row(name, part.url)
    console.print(table)
    console.print(f"Sign-in data: {at.state / 'access.json'}", soft_wrap=True)


def _print_failure(at: Instance, status: Status, failure: Failure, console: Console) -> None:
    console.print(Text(f"{failure.part} did not start: {failure.reason}", style="bold red"), soft_wrap=True)
    if failure.log:
        console.print(f"The last lines of {at.state / 'logs' / failure.part}.log:", soft_wrap=True)
        for line in failure.log:
            console.print(Text(f"  {line}"), soft_wrap=True)
    if status.phase is Phase.READY:
        console.print("The other parts run on; those that come after it in the table are as they were.")
    else:
        console.print("Everything that had been started is stopped.")


def down(at: Instance, console: Console) -> int:
    """Stop the instance's supervisor and whatever an earlier one left; returns the exit code."""
    status = Status.read(status_file(at))
    ran = is_running(at)
    if ran and status is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(status.pid, signal.SIGTERM)
        processes.wait_for_exit(status.pid, _STOP_SECONDS)
    left = _stop_orphans(at, console)
    console.print("Stopped." if ran or left else "It was not running.")
    return 0


def _stop_orphans(at: Instance, console: Console) -> bool:
    status = Status.read(status_file(at))
    left = processes.orphans(at.state, status.parts.values() if status else ())
    if left:
        console.print(f"Stopping {len(left)} processes that an earlier start has left.")
        processes.end(left)
    return bool(left)
