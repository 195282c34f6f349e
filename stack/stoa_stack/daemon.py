"""The supervisor's process: `python -m stoa_stack.daemon`, started detached by `stoa up`.

On SIGHUP, which `stoa apply` sends, it replaces its program by that of the checkout as it is now (exec), with
the same process id, the same lock and the same children: the parts go on running while the new program reads
the table of parts anew and applies what has changed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import NoReturn

from stoa_services import SERVICES
from stoa_stack import access, fork_server, operators
from stoa_stack.certificates import Authority
from stoa_stack.instance import Instance
from stoa_stack.status import Status, held, lock_file, status_file
from stoa_stack.supervisor import Ended, Supervisor

_INTERRUPTIONS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(arguments: list[str]) -> int:
    """Run the instance's parts until told to stop; 1 if one fails at the start.

    The argument, if any, is the file descriptor of the lock that the program before this one has held.
    """
    at = Instance.current()
    if arguments:
        return asyncio.run(_run(at, int(arguments[0]), before=Status.read(status_file(at))))
    with held(lock_file(at)) as lock:
        return 0 if lock is None else asyncio.run(_run(at, lock, before=None))


async def _run(at: Instance, lock: int, before: Status | None) -> int:
    from stoa_stack.parts import chosen  # makes secrets: only under the lock
    from stoa_stack.services import STACK_IDENTITY

    fork_server.adopt_orphans()
    authority = Authority(at.folder("certs"))
    for identity in (*SERVICES, "edge", STACK_IDENTITY):
        authority.ensure(identity)
    access.write(at)
    operators.write(at, authority)
    # Settings of ours that happen to be in the user's environment must not reach a service by accident.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("STOA_")}
    supervisor = Supervisor(
        chosen(at),
        instance=at.state,
        logs=at.folder("logs"),
        status=status_file(at),
        environ=environ,
        revision=at.revision,
        before=before,
    )
    loop = asyncio.get_running_loop()
    for stop in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(stop, supervisor.stop)
    loop.add_signal_handler(signal.SIGHUP, supervisor.replace)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTIONS)
    ended = await supervisor.run()
    logging.shutdown()
    if ended is Ended.REPLACED:
        _replace_program(lock)
    # A download may still run in a thread; nothing waits for it, and half of it never counts.
    os._exit(0 if ended is Ended.STOPPED else 1)


def _replace_program(lock: int) -> NoReturn:
    # Signals that come meanwhile wait for the new program's handlers.
    signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTIONS)
    os.set_inheritable(lock, True)
    os.execv(sys.executable, [sys.executable, "-m", "stoa_stack.daemon", str(lock)])


if __name__ == "__main__":
    if not sys.argv[1:]:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    sys.exit(main(sys.argv[1:]))
