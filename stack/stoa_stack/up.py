"""`stoa up` and `stoa down`: starting the supervisor and showing what it does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stoa_stack import preflight, processes
from stoa_stack.instance import Instance
from stoa_stack.part import with_needs
from stoa_stack.status import Failure, Phase, State, Status, is_held
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


def status_file(at: Instance) -> Path:
    """Where the supervisor says how things stand."""
    return at.state / "run" / "status.json"


def is_running(at: Instance) -> bool:
    """Whether a supervisor runs for this instance."""
    return is_held(at.state / "run" / "lock")


def up(only: Sequence[str], console: Console) -> int:
    """Start the instance and follow it until it is ready; returns the exit code."""
    at = Instance.current()
    if is_running(at):
        status = Status.read(status_file(at))
        if status is None or status.phase is not Phase.READY:
            console.print("It is already being started.")
            return _follow(at, console, daemon=None)
        console.print(f"It is already running: {', '.join(status.parts)}.", soft_wrap=True)
        _print_addresses(at, status, console)
        return 0
    at = at.configured()
    from stoa_stack.parts import parts  # brings the servers' clients with it: not for every command

    every = parts(at)
    try:
        chosen = with_needs(every, only or [part.name for part in every])
    except KeyError as unknown:
        console.print(f"There is no part {unknown}. Parts: {', '.join(part.name for part in every)}")
        return 2
    _stop_orphans(at, console)
    try:
        preflight.check_machine(at.state, whole=not only)
        preflight.check_ports(chosen)
    except preflight.NotPossible as problem:
        console.print(Text(str(problem), style="red"))
        return 1
    at.record()
    return _follow(at, console, _spawn_daemon(at, only))


def _spawn_daemon(at: Instance, only: Sequence[str]) -> subprocess.Popen[bytes]:
    status_file(at).unlink(missing_ok=True)
    with (at.folder("logs") / "supervisor.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "stoa_stack.daemon", *only],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ
            | {"STOA_STATE": str(at.state), "GRPC_ENABLE_FORK_SUPPORT": "0", processes.MARKER: str(at.state)},
            start_new_session=True,
        )


def _follow(at: Instance, console: Console, daemon: subprocess.Popen[bytes] | None) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a job that is cancelled stops it like Ctrl-C
    try:
        status = _watch(at, console, daemon)
    except KeyboardInterrupt:
        console.print("Stopping.")
        down(at, console)
        return 130
    if status.phase is Phase.READY:
        _print_addresses(at, status, console)
        return 0
    if status.failure is not None:
        _print_failure(at, status.failure, console)
    return 1


def _watch(at: Instance, console: Console, daemon: subprocess.Popen[bytes] | None) -> Status:
    """Show the progress until the stack is ready or has failed; `daemon` is its supervisor, if it's ours."""
    began = time.monotonic()
    shown: dict[str, State] = {}
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
    if status.phase is Phase.READY:
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


def _print_failure(at: Instance, failure: Failure, console: Console) -> None:
    console.print(Text(f"{failure.part} did not start: {failure.reason}", style="bold red"), soft_wrap=True)
    if failure.log:
        console.print(f"The last lines of {at.state / 'logs' / failure.part}.log:", soft_wrap=True)
        for line in failure.log:
            console.print(Text(f"  {line}"), soft_wrap=True)
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
