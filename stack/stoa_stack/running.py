"""Commands on the parts that run: status, logs, restart, kill, reset, env, certificates."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import asdict

import psutil  # type: ignore[import-untyped]  # no types
from rich.console import Console
from rich.table import Table

from stoa_stack.certificates import Authority
from stoa_stack.files import write_atomically
from stoa_stack.instance import Instance
from stoa_stack.status import PartStatus, Phase, Status
from stoa_stack.supervisor import tail
from stoa_stack.up import differences, down, is_running, status_file

_MB = 2**20


def status(at: Instance, console: Console, *, as_json: bool) -> int:
    """Show every part; 0 if the stack is running, 3 if it is not (as `systemctl status` has it)."""
    current = Status.read(status_file(at)) if is_running(at) else None
    differing = _differences(at, current)
    if as_json:
        parts = {name: asdict(part) | _usage(part) for name, part in current.parts.items()} if current else {}
        answer = {
            "phase": current.phase if current else "stopped",
            "edge_url": at.edge_url,
            "state": str(at.state),
            "pid": current.pid if current else None,
            "parts": parts,
            "stale": differing,
        }
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
    elif current is None:
        console.print("It is not running.")
    else:
        console.print(_table(current))
        for name, difference in differing.items():
            console.print(f"[yellow]{name} {difference}.[/]", soft_wrap=True)
        if differing and current.revision:
            console.print("Stale: run `stoa apply`.")
    return 0 if current else 3


def _differences(at: Instance, current: Status | None) -> dict[str, str]:
    """What `stoa apply` would change; nothing while the shop is being started or stopped."""
    if current is None or current.phase is not Phase.READY:
        return {}
    if not current.revision:
        return {"supervisor": "is of an older version: `stoa down` and `stoa up` bring all up to date"}
    from stoa_stack.parts import chosen

    return differences(chosen(at), current)


def _table(current: Status) -> Table:
    with_supervisor = {"supervisor": _supervisor(current)} | current.parts
    processes = {name: processes_of(part) for name, part in with_supervisor.items()}
    for process in processes.values():
        _cpu_percent(process)  # the first call starts the measurement
    time.sleep(0.5)
    table = Table(box=None, pad_edge=False)
    for heading in ("part", "state", "pid", "uptime", "restarts", "memory", "cpu", "url"):
        table.add_column(
            heading, justify="left" if heading in ("part", "state", "url") else "right", no_wrap=True
        )
    total_memory, total_cpu = 0.0, 0.0
    for name, part in with_supervisor.items():
        memory, cpu = memory_mb(processes[name]), _cpu_percent(processes[name])
        total_memory, total_cpu = total_memory + memory, total_cpu + cpu
        table.add_row(
            name, part.state, str(part.pid or ""), _uptime(part), str(part.restarts or ""),
            f"{memory:.0f} MB" if memory else "", f"{cpu:.0f} %" if part.pid else "", part.url or part.detail,
        )  # fmt: skip
    table.add_row("", "", "", "", "", f"{total_memory:.0f} MB", f"{total_cpu:.0f} %", "")
    return table


def _supervisor(current: Status) -> PartStatus:
    created = psutil.Process(current.pid).create_time()
    return PartStatus(state=current.phase, pid=current.pid, created=created)  # type: ignore[arg-type]


def _usage(part: PartStatus) -> dict[str, float]:
    return {"memory_mb": round(memory_mb(processes_of(part)), 1)}


def processes_of(part: PartStatus) -> list[psutil.Process]:
    """The part's process and those below it: worker processes, PostgreSQL's backends."""
    if part.pid is None:
        return []
    with contextlib.suppress(psutil.NoSuchProcess):
        leader = psutil.Process(part.pid)
        return (
            [leader]
            if part.created and _is_supervisor(leader)
            else [leader, *leader.children(recursive=True)]
        )
    return []


def _is_supervisor(process: psutil.Process) -> bool:
    return "stoa_stack.daemon" in process.cmdline()


def memory_mb(processes: list[psutil.Process]) -> float:
    """Proportional set size where the system reports it: pages that processes share count once."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            info = process.memory_full_info()
            total += getattr(info, "pss", info.rss) / _MB
    return total


def _cpu_percent(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.cpu_percent()
    return total


def _uptime(part: PartStatus) -> str:
    if not part.pid:
        return ""
    seconds = int(time.time() - part.created)
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def logs(at: Instance, part: str, console: Console, *, follow: bool, lines: int) -> int:
    """Print the end of a part's log, and go on printing what is added if asked to."""
    path = at.state / "logs" / f"{part}.log"
    if not path.exists():
        known = sorted(log.stem for log in path.parent.glob("*.log"))
        console.print(f"There is no log of {part}. Logs: {', '.join(known) or 'none yet'}")
        return 2
    for line in tail(path, lines):
        sys.stdout.write(line + "\n")
    with contextlib.suppress(KeyboardInterrupt), path.open(errors="replace") as file:
        file.seek(0, os.SEEK_END)
        while follow:
            sys.stdout.write(file.read())
            sys.stdout.flush()
            time.sleep(0.3)
            if path.stat().st_size < file.tell():  # it was rotated
                file.seek(0)
    return 0


def restart(at: Instance, part: str, console: Console) -> int:
    """Write a part's configuration as it would be now and stop the part; its supervisor starts it again."""
    from stoa_stack.parts import parts

    target = _process(at, part, console)
    if target is None:
        return 3
    declared = next((each for each in parts(at) if each.name == part), None)
    if declared is not None and declared.files is not None:
        for path, content in declared.files().items():
            write_atomically(path, content)
    os.kill(target, declared.stop_signal if declared is not None else signal.SIGTERM)
    return 0


def kill(at: Instance, part: str, console: Console) -> int:
    """Kill a part as a crash would; its supervisor starts it again."""
    target = _process(at, part, console)
    if target is None:
        return 3
    os.kill(target, signal.SIGKILL)
    return 0


def _process(at: Instance, part: str, console: Console) -> int | None:
    current = Status.read(status_file(at)) if is_running(at) else None
    target = current.parts.get(part) if current else None
    if target is None or target.pid is None:
        console.print(f"{part} is not running.")
        return None
    return target.pid


def reset(at: Instance, console: Console) -> int:
    """Stop the instance and delete its data, secrets and logs; what was downloaded stays."""
    down(at, console)
    if (at.state / "instance.json").exists():
        shutil.rmtree(at.state)
        console.print(f"Deleted {at.state}.", soft_wrap=True)
    return 0


def env(at: Instance, service: str, console: Console) -> int:
    """Print the environment that a service is started with, as shell assignments."""
    import shlex

    from stoa_services import SERVICES
    from stoa_stack.services import environment

    if service not in SERVICES:
        console.print(f"There is no service {service}. Services: {', '.join(SERVICES)}")
        return 2
    at = at.adjusted()
    Authority(at.folder("certs")).ensure(service)
    for name, value in environment(at, SERVICES[service]).items():
        sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
    return 0


def rotate_certificates(at: Instance, console: Console) -> int:
    """Issue every certificate of the instance anew; what runs picks them up without a restart."""
    authority = Authority(at.folder("certs"))
    for folder in sorted(at.folder("certs").iterdir()):
        if folder.is_dir():
            authority.issue(folder.name)
            console.print(f"New certificate for {folder.name}.")
    return 0
