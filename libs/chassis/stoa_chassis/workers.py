"""Several processes behind one port, because one Python process uses one core.

The parent starts `python -m <package>` once per worker; the kernel spreads connections over them
(SO_REUSEPORT). Parent and worker hold the two ends of a socket: the worker reports through it that it serves,
and sees by its end that the parent is gone, so that no kill of the parent leaves workers behind.
"""

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from typing import Self

from prometheus_client.multiprocess import mark_process_dead

from stoa_chassis import telemetry

_log = telemetry.get_logger(__name__)
_FD, _INDEX = "STOA_WORKER_FD", "STOA_WORKER_INDEX"
_PAUSES = (0.5, 30.0)  # seconds: the first and the longest pause before a dead worker is replaced
_MARGIN = 15.0  # seconds a worker has beyond its drain time before it is killed


class WorkerSide:
    """The worker's end of the socket to its parent; one that replaces another has its `index`."""

    def __init__(self, link: socket.socket, index: int) -> None:
        self.index = index
        self._link = link

    @classmethod
    def of_this_process(cls) -> Self | None:
        """Return it if this process is a worker."""
        fd = os.environ.get(_FD)
        return cls(socket.socket(fileno=int(fd)), int(os.environ[_INDEX])) if fd else None

    def report_ready(self) -> None:
        """Tell the parent that this worker serves."""
        self._link.send(b"r")

    def when_parent_ends(self, stop: Callable[[], None]) -> None:
        """Call `stop` once the parent is gone."""
        loop = asyncio.get_running_loop()

        def gone() -> None:
            loop.remove_reader(self._link.fileno())
            stop()

        loop.add_reader(self._link.fileno(), gone)


def supervise(name: str, count: int, metrics: tuple[str, int], drain_seconds: float) -> int:
    """Run `count` workers until SIGTERM or SIGINT; return the exit code of this process.

    Their metrics are served, summed up, at the host and port `metrics`.
    """
    with tempfile.TemporaryDirectory(prefix=f"stoa-{name}-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        telemetry.serve_metrics(*metrics)
        return asyncio.run(_Supervisor(count, drain_seconds).run())


class _Supervisor:
    def __init__(self, count: int, drain_seconds: float) -> None:
        self._count = count
        self._stop_seconds = drain_seconds + _MARGIN
        self._stop = asyncio.Event()
        self._any_was_ready = False
        self._exit_code = 0

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        _log.info("starting workers", count=self._count)
        async with asyncio.TaskGroup() as group:
            for index in range(self._count):
                group.create_task(self._keep_alive(index))
        return self._exit_code

    async def _keep_alive(self, index: int) -> None:
        shortest, longest = _PAUSES
        pause = shortest
        while not self._stop.is_set():
            was_ready, code = await self._run_one(index)
            if self._stop.is_set():
                return
            if not self._any_was_ready:
                # Nothing ever worked: the start failed, which the exit code says.
                self._exit_code = 1
                self._stop.set()
                return
            pause = shortest if was_ready else min(pause * 2, longest)
            _log.error("worker died", worker=index, exit_code=code, restart_in=pause)
            try:
                async with asyncio.timeout(pause):
                    await self._stop.wait()
            except TimeoutError:
                continue

    async def _run_one(self, index: int) -> tuple[bool, int]:
        """Run one worker to its end; return whether it ever served, and its exit code."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", _package()),
            env=os.environ | {_FD: str(theirs.fileno()), _INDEX: str(index)},
            pass_fds=(theirs.fileno(),),
        )
        theirs.close()
        was_ready = False
        ended = asyncio.ensure_future(process.wait())
        stopping = asyncio.ensure_future(self._stop.wait())
        ready = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(ours, 1))
        try:
            await asyncio.wait((ended, stopping, ready), return_when=asyncio.FIRST_COMPLETED)
            if ready.done() and not ready.exception() and ready.result():
                was_ready = self._any_was_ready = True
                _log.info("worker serves", worker=index, pid=process.pid)
                await asyncio.wait((ended, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                process.terminate()
                await asyncio.wait((ended,), timeout=self._stop_seconds)
            if not ended.done():
                _log.error("worker does not end, killing it", worker=index, pid=process.pid)
                process.kill()
            return was_ready, await ended
        finally:
            stopping.cancel()
            ready.cancel()
            ours.close()
            mark_process_dead(process.pid)  # type: ignore[no-untyped-call]  # the library has no annotation


def _package() -> str:
    spec = sys.modules["__main__"].__spec__
    if spec is None:
        raise RuntimeError("several workers need a service that was started as python -m <package>")
    return spec.parent or spec.name
