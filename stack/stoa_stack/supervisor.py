"""The supervisor: starts parts in the order of their needs, keeps them running, stops them in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # no types

from stoa_stack.part import Part
from stoa_stack.processes import MARKER, kill_group
from stoa_stack.status import Failure, PartStatus, Phase, State, Status

_log = logging.getLogger(__name__)

START_ATTEMPTS = 3
FIRST_BACKOFF_SECONDS = 0.2
LONGEST_BACKOFF_SECONDS = 15.0
HEALTHY_AFTER_SECONDS = 5.0  # a part that was ready for so long starts again with the first backoff
PROBE_TIMEOUT_SECONDS = 10.0
LOG_LIMIT_BYTES = 20 * 2**20
LOG_CHECK_SECONDS = 60.0
LOG_TAIL_LINES = 15


class PartFailed(Exception):
    """A part did not come up."""

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(f"{part}: {reason}")
        self.part = part
        self.reason = reason


class Supervisor:
    """Runs the parts of one instance."""

    def __init__(
        self, parts: Sequence[Part], *, instance: Path, logs: Path, status: Path, environ: Mapping[str, str]
    ) -> None:
        self._status_file = status
        self._logs = logs
        self.status = Status(pid=os.getpid())
        self._stop = asyncio.Event()
        environ = dict(environ) | {MARKER: str(instance)}
        self._runners = {part.name: _Runner(part, self, logs / f"{part.name}.log", environ) for part in parts}
        for part in parts:
            self.status.parts[part.name] = PartStatus(url=part.url)
            for need in part.needs:
                self._runners[need].dependents.append(self._runners[part.name])

    def stop(self) -> None:
        """Ask it to stop everything and return from `run`."""
        self._stop.set()

    async def run(self) -> bool:
        """Start, watch until `stop` is called, stop; False if a part did not come up."""
        self.publish()
        start = asyncio.ensure_future(self._start())
        stop = asyncio.ensure_future(self._stop.wait())
        rotation = asyncio.ensure_future(self._rotate_logs())
        try:
            await asyncio.wait([start, stop], return_when=asyncio.FIRST_COMPLETED)
            if start.done() and start.exception() is None:
                self.status.phase = Phase.READY
                self.publish()
                await stop
        finally:
            start.cancel()
            rotation.cancel()
        failure = None if start.cancelled() or not start.done() else start.exception()
        if failure is not None:
            self.status.failure = self._explain(failure)
            _log.error("%s: %s", self.status.failure.part, self.status.failure.reason)
        self.status.phase = Phase.STOPPING
        self.publish()
        await asyncio.gather(start, return_exceptions=True)
        await asyncio.gather(*(runner.stop_after_dependents() for runner in self._runners.values()))
        self.status.phase = Phase.STOPPED if failure is None else Phase.FAILED
        self.publish()
        return failure is None

    async def _start(self) -> None:
        async with asyncio.TaskGroup() as group:
            for runner in self._runners.values():
                group.create_task(runner.start([self._runners[need] for need in runner.part.needs]))

    def _explain(self, error: BaseException) -> Failure:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, PartFailed):
            return Failure(error.part, error.reason, tail(self._logs / f"{error.part}.log"))
        _log.error("the supervisor failed", exc_info=error)
        return Failure("supervisor", f"{type(error).__name__}: {error}")

    def publish(self) -> None:
        """Write the status file."""
        try:
            self.status.write(self._status_file)
        except OSError:  # a full disk must not end the watch over the parts
            _log.exception("the status can't be written")

    async def _rotate_logs(self) -> None:
        while True:
            await asyncio.sleep(LOG_CHECK_SECONDS)
            for path in self._logs.glob("*.log"):
                with contextlib.suppress(OSError):  # it is tried again soon
                    rotate(path)


class _Runner:
    """One part's process over its restarts."""

    def __init__(self, part: Part, supervisor: Supervisor, log: Path, environ: Mapping[str, str]) -> None:
        self.part = part
        self.dependents: list[_Runner] = []
        self.ready = asyncio.Event()
        self.stopped = asyncio.Event()
        self._supervisor = supervisor
        self._log = log
        self._environ = dict(environ) | dict(part.env)
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self, needs: Sequence[_Runner]) -> None:
        """Bring the part up once its needs are; raises PartFailed."""
        for need in needs:
            await need.ready.wait()
        await self._prepare()
        if self.part.ready is None:
            await self._run_once()
        else:
            await self._first_start()
            if self.part.setup is not None:
                try:
                    await self.part.setup()
                except Exception as error:
                    raise self._failed(f"its setup failed: {type(error).__name__}: {error}") from error
            self._say(State.READY)
            self._watcher = asyncio.create_task(self._watch())
        self.ready.set()

    async def _prepare(self) -> None:
        if self.part.prepare is None:
            return
        self._say(State.PREPARING)
        loop = asyncio.get_running_loop()

        def say(detail: str) -> None:
            if self._status.state is State.PREPARING:  # the thread may go on after the part was given up
                self._say(State.PREPARING, detail)

        def report(detail: str) -> None:
            loop.call_soon_threadsafe(say, detail)

        try:
            await asyncio.to_thread(self.part.prepare, report)
        except Exception as error:
            _log.exception("%s could not be prepared", self.part.name)
            raise self._failed(f"{type(error).__name__}: {error}") from error

    async def _run_once(self) -> None:
        process = await self._spawn()
        try:
            code = await asyncio.wait_for(process.wait(), self.part.ready_within_seconds)
        except TimeoutError:
            raise self._failed(f"did not end within {self.part.ready_within_seconds:.0f} s") from None
        self._status.pid = None
        if code != 0:
            raise self._failed(_ending(code))
        self._say(State.DONE)

    async def _first_start(self) -> None:
        deadline = time.monotonic() + self.part.ready_within_seconds
        for attempt in range(START_ATTEMPTS):
            process = await self._spawn()
            if await self._until_ready(process, deadline):
                return
            if process.returncode is None:
                break
            kill_group(process.pid)
            self._status.restarts = attempt + 1
            await asyncio.sleep(FIRST_BACKOFF_SECONDS * 2**attempt)
        if process.returncode is None:
            raise self._failed(
                f"not ready within {self.part.ready_within_seconds:.0f} s: {self._status.detail}"
            )
        raise self._failed(_ending(process.returncode))

    async def _watch(self) -> None:
        backoff = FIRST_BACKOFF_SECONDS
        ready_since = time.monotonic()
        while True:
            process = self._process
            assert process is not None
            code = await process.wait()
            kill_group(process.pid)  # what it left behind would keep its ports and its files
            if time.monotonic() - ready_since > HEALTHY_AFTER_SECONDS:
                backoff = FIRST_BACKOFF_SECONDS
            self._status.restarts += 1
            self._status.pid = None
            self._say(State.RESTARTING, _ending(code))
            _log.warning("%s %s; starting it again in %.1f s", self.part.name, _ending(code), backoff)
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, LONGEST_BACKOFF_SECONDS)
            ready_since = float("inf")
            try:
                process = await self._spawn()
            except PartFailed as failure:
                _log.error("%s", failure)
                continue
            if await self._until_ready(process, deadline=float("inf")):
                self._say(State.READY)
                ready_since = time.monotonic()

    async def _until_ready(self, process: asyncio.subprocess.Process, deadline: float) -> bool:
        """Probe until ready (True) or until the process has ended or the deadline has passed (False)."""
        assert self.part.ready is not None
        pause = 0.05
        while process.returncode is None and time.monotonic() < deadline:
            try:
                await asyncio.wait_for(self.part.ready(), PROBE_TIMEOUT_SECONDS)
            except Exception as error:  # whatever a client raises for a server that isn't ready
                self._say(State.STARTING, f"{type(error).__name__}: {error}"[:200])
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), pause)
                pause = min(pause * 1.5, 1.0)
            else:
                # Someone else's server may answer on the port while ours is failing to bind it.
                return process.returncode is None
        return False

    async def _spawn(self) -> asyncio.subprocess.Process:
        try:
            with self._log.open("ab") as log:
                process = await asyncio.create_subprocess_exec(
                    *map(str, self.part.command),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._environ,
                    cwd=self.part.cwd,
                    start_new_session=True,
                )
        except OSError as error:
            raise self._failed(f"could not be started: {error}") from error
        self._process = process
        self._status.pid = process.pid
        with contextlib.suppress(psutil.NoSuchProcess):
            self._status.created = psutil.Process(process.pid).create_time()
        self._say(State.STARTING)
        return process

    async def stop_after_dependents(self) -> None:
        """Stop the process when everything that needs it has stopped."""
        for dependent in self.dependents:
            await dependent.stopped.wait()
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(self.part.stop_signal)
            try:
                await asyncio.wait_for(process.wait(), self.part.stop_within_seconds)
            except TimeoutError:
                _log.warning("%s did not stop; killing it", self.part.name)
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process is not None:
            kill_group(process.pid)
        self._status.pid = None
        if self._status.state is not State.FAILED:
            self._say(State.STOPPED)
        self.stopped.set()

    @property
    def _status(self) -> PartStatus:
        return self._supervisor.status.parts[self.part.name]

    def _failed(self, reason: str) -> PartFailed:
        self._say(State.FAILED, reason)
        return PartFailed(self.part.name, reason)

    def _say(self, state: State, detail: str = "") -> None:
        status = self._status
        if (status.state, status.detail) == (state, detail) and status.since:
            return
        if status.state is not state:
            _log.info("%s %s", self.part.name, state)
            status.since = time.time()
        status.state, status.detail = state, detail
        self._supervisor.publish()


def _ending(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def tail(log: Path, lines: int = LOG_TAIL_LINES) -> list[str]:
    """The last lines of a log, or nothing if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 64 * 1024))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return []


def rotate(log: Path, limit: int = LOG_LIMIT_BYTES) -> None:
    """Move a log over the limit to `<name>.1`; its writer keeps its handle on the emptied file."""
    if log.stat().st_size > limit:
        shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        os.truncate(log, 0)
