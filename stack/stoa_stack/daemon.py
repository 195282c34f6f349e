"""The supervisor's process: `python -m stoa_stack.daemon [part …]`, started detached by `stoa up`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from stoa_stack import access
from stoa_stack.certificates import Authority
from stoa_stack.instance import Instance
from stoa_stack.part import with_needs
from stoa_stack.status import held
from stoa_stack.supervisor import Supervisor


def main(names: list[str]) -> int:
    """Run the instance's parts (all, or the named and their needs) until told to stop; 1 if one fails."""
    at = Instance.current()
    with held(at.state / "run" / "lock") as free:
        if not free:
            return 0
        return asyncio.run(_run(at, names))


async def _run(at: Instance, names: list[str]) -> int:
    from stoa_stack.parts import SERVICES, parts  # makes secrets: only under the lock
    from stoa_stack.services import STACK_IDENTITY

    authority = Authority(at.folder("certs"))
    for identity in (*(service.name for service in SERVICES), "edge", STACK_IDENTITY):
        authority.ensure(identity)
    access.write(at)
    every = parts(at)
    # Settings of ours that happen to be in the user's environment must not reach a service by accident.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("STOA_")}
    supervisor = Supervisor(
        with_needs(every, names or [part.name for part in every]),
        instance=at.state,
        logs=at.folder("logs"),
        status=at.state / "run" / "status.json",
        environ=environ,
    )
    loop = asyncio.get_running_loop()
    for stop in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(stop, supervisor.stop)
    came_up = await supervisor.run()
    logging.shutdown()
    # A download may still run in a thread; nothing waits for it, and half of it never counts.
    os._exit(0 if came_up else 1)


if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    sys.exit(main(sys.argv[1:]))
