"""`stoa profile SERVICE`: where a service spends its time under load, as a flame graph."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import uvloop
from rich.console import Console

from stoa_load.cost import Idle, Meter, pids_of
from stoa_load.instance import measured_instance
from stoa_load.scenarios import SCENARIOS, Bench
from stoa_load.shop import shop
from stoa_stack.instance import Instance

_FORMATS = {"flamegraph": "svg", "speedscope": "speedscope.json", "raw": "txt"}
_PER_SECOND = 200  # samples
_HEAD_START = 3.0  # seconds that the load has before the first sample


def command(console: Console, service: str, scenario: str, seconds: float, form: str) -> int:
    """Play a scenario while py-spy samples a Python process; 0 if there is a profile, 2 if it can't be."""
    with measured_instance(console) as at:
        return _profile(at, console, service, scenario, seconds, form)


def _profile(at: Instance, console: Console, service: str, scenario: str, seconds: float, form: str) -> int:
    pid = pids_of(at).get(service)
    play = next((each.play for each in SCENARIOS if each.name == scenario), None)
    if pid is None or play is None or form not in _FORMATS:
        names = ", ".join(each.name for each in SCENARIOS)
        console.print(
            f"Name a part that runs ({', '.join(pids_of(at))}), a scenario ({names}) "
            f"and a format ({', '.join(_FORMATS)})."
        )
        return 2
    file = at.folder("profiles") / f"{service}-{scenario}-{time.strftime('%H%M%S')}.{_FORMATS[form]}"
    spy = [
        str(Path(sys.executable).with_name("py-spy")), "record", "--pid", str(pid), "--subprocesses",
        *("--duration", str(int(seconds)), "--rate", str(_PER_SECOND), "--format", form),
        *("--output", str(file)),
    ]  # fmt: skip
    return uvloop.run(_record(at, console, scenario, seconds, spy, file))


async def _record(
    at: Instance, console: Console, scenario: str, seconds: float, spy: list[str], file: Path
) -> int:
    async with shop(at) as place:
        bench = Bench(place, Meter(at), Idle({}, {}), seconds + _HEAD_START)
        play = next(each.play for each in SCENARIOS if each.name == scenario)
        load = asyncio.ensure_future(play(bench))
        await asyncio.sleep(_HEAD_START)
        process = await asyncio.create_subprocess_exec(
            *spy, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said, _ = await process.communicate()
        await load
    if process.returncode:
        console.print(said.decode(errors="replace"))
        console.print(
            "py-spy must be allowed to look into the process: as root, or with "
            "`sysctl kernel.yama.ptrace_scope=0`."
        )
        return 1
    console.print(f"Written: {file}", soft_wrap=True)
    return 0
