"""Runs one server of the stack in a pod: `python -m stoa_stack.servers {run|setup|stop} NAME`.

Each is an action that Kubernetes takes at its time, so that the server is the only process that stays:

    run    the container's command: prepares the server and becomes it
    setup  the hook postStart: waits until the server is ready, and sets it up; the pod is not ready before
    stop   the hook preStop, where SIGTERM is not what ends the server well

The environment says where it is: STOA_STATE (its data), STOA_NAMESPACE, STOA_INFRASTRUCTURE_NAMESPACE and
STOA_LISTEN_HOST; what the server keeps secret are files in `secrets/stack/` of its state. The host of its own
name must be itself (`hostAliases`): it is not asked by way of a Service, which has it only when it is ready.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import NoReturn

from stoa_stack import cluster
from stoa_stack.files import write_atomically
from stoa_stack.part import Part
from stoa_stack.servers.table import SERVERS

_SERVER = 1  # the process that a container begins with
_PAUSE = 0.25  # seconds
_READY_WITHIN = 600.0  # where many start at once on few processors


def main(arguments: list[str]) -> None:
    """Do as the arguments say, to the server that they name."""
    action, name = arguments
    namespaces = cluster.Namespaces(os.environ["STOA_NAMESPACE"], os.environ["STOA_INFRASTRUCTURE_NAMESPACE"])
    at = cluster.instance(Path(os.environ["STOA_STATE"]), namespaces, os.environ["STOA_LISTEN_HOST"])
    part = SERVERS[name](at.configured())
    if action == "run":
        run(part)
    elif action == "setup":
        asyncio.run(set_up(part))
    elif action == "stop":
        os.kill(_SERVER, part.stop_signal)
    else:
        raise SystemExit(__doc__)


def run(part: Part) -> NoReturn:
    """Become the server."""
    if part.prepare is not None:
        part.prepare(_report)
    for path, content in (part.files() if part.files is not None else {}).items():
        write_atomically(path, content)
    if part.cwd is not None:
        os.chdir(part.cwd)
    command = [str(each) for each in part.command]
    os.execvpe(command[0], command, {**os.environ, **part.env})


def _report(progress: str) -> None:
    sys.stderr.write(f"{progress}\n")


async def set_up(part: Part) -> None:
    """Wait until the server is ready, and set it up; raises what the last look raised if it never is."""
    assert part.ready is not None
    give_up = time.monotonic() + _READY_WITHIN
    while True:
        try:
            await part.ready()
            break
        except Exception:  # whatever a client raises for a server that isn't ready
            if time.monotonic() > give_up:
                raise
            await asyncio.sleep(_PAUSE)
    if part.setup is not None:
        await part.setup()


if __name__ == "__main__":
    main(sys.argv[1:])
