"""The supervisor: starts parts in the order of their needs, keeps them running, stops them in reverse.

A running supervisor is replaced, not changed: it gives up its watch and leaves its processes running, and a
new one, of the code and the table of parts as they are by then, takes them over by what the status file says.
It restarts those that would now be started otherwise, one after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Protocol

import psutil  # type: ignore[import-untyped]  # no types

from stoa_stack import fingerprint, fork_server
from stoa_stack.files import write_atomically
from stoa_stack.part import Part
from stoa_stack.processes import MARKER, kill_group, reap
from stoa_stack.status import Failure, PartStatus, Phase, State, Status

_log = logging.getLogger(__name__)

START_ATTEMPTS = 3
FIRST_BACKOFF_SECONDS = 0.05
LONGEST_BACKOFF_SECONDS = 15.0
HEALTHY_AFTER_SECONDS = 5.0  # a part that was ready for so long starts again with the first backoff
PROBE_TIMEOUT_SECONDS = 10.0
LOG_LIMIT_BYTES = 20 * 2**20
UPKEEP_SECONDS = 60.0
LOG_TAIL_LINES = 15


class PartFailed(Exception):
    """A part did not come up."""

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(f"{part}: {reason}")
        self.part = part
        self.reason = reason


class Ended(Enum):
    """How a supervisor's run ended."""

    STOPPED = "everything is stopped, as was asked"
    FAILED = "a part did not come up, and everything is stopped"
    REPLACED = "everything runs, for the next supervisor to take over"


class Process(Protocol):
    """A part's process: one that this supervisor started, or took over."""

    @property
    def pid(self) -> int: ...  # noqa: D102

    @property
    def returncode(self) -> int | None: ...  # noqa: D102

    async def wait(self) -> int: ...  # noqa: D102

    def send_signal(self, signal: int) -> None: ...  # noqa: D102


class _Child:
    """A child of this process that was forked for it, or that an earlier program in it has started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wait() -> None:
            try:
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            except ChildProcessError:  # somebody else has asked for it: how it ended is not known
                code = 255
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._end, code)

        threading.Thread(target=wait, daemon=True).start()

    def _end(self, code: int) -> None:
        self.returncode = code
        self._ended.set()

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, signal: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal)


def _runs(pid: int | None) -> bool:
    """Whether this child process runs; if it has ended, what it left behind is killed."""
    if pid is None:
        return False
    try:
        ended, _ = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return False
    if ended:
        kill_group(pid)
    return not ended


class Supervisor:
    """Runs the parts of one instance.

    `before` is what the status file says of the supervisor that this one replaces, whose children it has.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        instance: Path,
        logs: Path,
        status: Path,
        environ: Mapping[str, str],
        revision: str = "",
        before: Status | None = None,
    ) -> None:
        self._status_file = status
        self._logs = logs
        self._before = before
        self._asked: Ended | None = None
        self._is_asked = asyncio.Event()
        self.status = Status(phase=Phase.APPLYING if before else Phase.STARTING, pid=os.getpid())
        self.status.revision = revision
        environ = dict(environ) | {MARKER: str(instance)}
        self._runners = {part.name: _Runner(part, self, logs / f"{part.name}.log", environ) for part in parts}
        for part in parts:
            self.status.parts[part.name] = PartStatus(url=part.url)
            for need in part.needs:
                self._runners[need].dependents.append(self._runners[part.name])

    def stop(self) -> None:
        """Ask it to stop everything and return from `run`."""
        self._ask(Ended.STOPPED)

    def replace(self) -> None:
        """Ask it to return from `run` and leave everything running, for another to take over."""
        self._ask(Ended.REPLACED)

    def _ask(self, what: Ended) -> None:
        if self._asked is not Ended.STOPPED:
            self._asked = what
        self._is_asked.set()

    async def run(self) -> Ended:
        """Start everything, or take it over and apply what has changed; watch until told otherwise.

        If a part does not come up at the start, everything is stopped. A change that can't be applied leaves
        the rest as it is; the status says what failed.
        """
        self.publish()
        work = asyncio.ensure_future(self._start() if self._before is None else self._apply(self._before))
        asked = asyncio.ensure_future(self._is_asked.wait())
        upkeep = asyncio.ensure_future(self._keep_in_order())
        failed = False
        try:
            await asyncio.wait([work, asked], return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                error = work.exception()
                if error is not None:
                    self.status.failure = self._explain(error)
                    _log.error("%s: %s", self.status.failure.part, self.status.failure.reason)
                    failed = self._before is None
                if not failed:
                    self.status.phase = Phase.READY
                    self.publish()
                    await asked
        finally:
            work.cancel()
            upkeep.cancel()
        await asyncio.gather(work, return_exceptions=True)
        if self._asked is Ended.REPLACED and not failed:
            await asyncio.gather(*(runner.let_go() for runner in self._runners.values()))
            self.status.phase = Phase.APPLYING
            self.publish()
            return Ended.REPLACED
        self.status.phase = Phase.STOPPING
        self.publish()
        await asyncio.gather(*(runner.stop_after_dependents() for runner in self._runners.values()))
        self.status.phase = Phase.FAILED if failed else Phase.STOPPED
        self.publish()
        return Ended.FAILED if failed else Ended.STOPPED

    async def _start(self) -> None:
        async with asyncio.TaskGroup() as group:
            for runner in self._runners.values():
                group.create_task(runner.start([self._runners[need] for need in runner.part.needs]))

    async def _apply(self, before: Status) -> None:
        """Take over what runs; then stop what is no part any more, and bring each part up to date in turn."""
        for name, runner in self._runners.items():
            if name in before.parts:
                runner.take_over(before.parts[name])
        self.publish()
        for name in before.parts.keys() - self._runners.keys():
            await self._stop_removed(name, before.parts[name])
        for runner in self._in_order_of_needs():
            await runner.bring_up_to_date()

    def _in_order_of_needs(self) -> list[_Runner]:
        ordered: dict[str, _Runner] = {}

        def add(name: str) -> None:
            for need in self._runners[name].part.needs:
                add(need)
            ordered.setdefault(name, self._runners[name])

        for name in self._runners:
            add(name)
        return list(ordered.values())

    async def _stop_removed(self, name: str, status: PartStatus) -> None:
        if status.pid is None or not _runs(status.pid):
            return
        _log.info("%s is removed; stopping it", name)
        await _end(_Child(status.pid), signal.SIGTERM, Part(name=name, command=()).stop_within_seconds)

    def _explain(self, error: BaseException) -> Failure:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, PartFailed):
            return Failure(error.part, error.reason, tail(self._logs / f"{error.part}.log"))
        _log.error("the supervisor failed", exc_info=error)
        return Failure("supervisor", f"{type(error).__name__}: {error}")

    def runner(self, part: str) -> _Runner | None:
        """The runner of a part, if there is such a part."""
        return self._runners.get(part)

    def publish(self) -> None:
        """Write the status file."""
        try:
            self.status.write(self._status_file)
        except OSError:  # a full disk must not end the watch over the parts
            _log.exception("the status can't be written")

    async def _keep_in_order(self) -> None:
        ended: set[int] = set()
        while True:
            await asyncio.sleep(UPKEEP_SECONDS)
            ended = reap(ended)
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
        self._files: dict[Path, bytes | None] = {}  # its configuration files: what counts is what lies there
        self._process: Process | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def start(self, needs: Sequence[_Runner]) -> None:
        """Bring the part up once its needs are; raises PartFailed."""
        for need in needs:
            await need.ready.wait()
        await self._prepare()
        await self._come_up()

    def take_over(self, status: PartStatus) -> None:
        """Go on with the process of an earlier supervisor, if it still runs."""
        own = self._status
        own.restarts, own.fingerprint = status.restarts, status.fingerprint
        own.state, own.detail, own.since = status.state, status.detail, status.since
        if status.pid is None or not _runs(status.pid):
            return
        own.pid, own.created = status.pid, status.created
        self._process = _Child(status.pid)
        if status.state is State.READY:
            self._watcher = asyncio.create_task(self._watch())

    async def bring_up_to_date(self) -> None:
        """Start the part, or restart it if it would now be started otherwise; raises PartFailed."""
        await self._prepare()
        wanted = await asyncio.to_thread(fingerprint.of, self.part, self._files)
        current = self._status.fingerprint == wanted
        if current and self.part.ready is None and self._status.state is State.DONE:
            pass  # the step was taken
        elif current and self._status.state is State.READY and self._process is not None:
            await self._set_up()
        else:
            await self.let_go()
            await self._stop()
            try:
                await self._come_up()
            except PartFailed:
                if (
                    self._process is not None and self.part.ready is not None
                ):  # it is tried again and again, as after any crash
                    self._watcher = asyncio.create_task(self._watch())
                raise
        self.ready.set()

    async def _come_up(self) -> None:
        if self.part.ready is None:
            await self._run_once()
        else:
            await self._first_start()
            await self._set_up()
            self._say(State.READY)
            self._watcher = asyncio.create_task(self._watch())
        self.ready.set()

    async def _set_up(self) -> None:
        if self.part.setup is None:
            return
        try:
            await self.part.setup()
        except Exception as error:
            raise self._failed(f"its setup failed: {type(error).__name__}: {error}") from error

    async def _prepare(self) -> None:
        if self.part.prepare is None and self.part.files is None:
            return
        running = self._status.pid is not None
        if not running:
            self._say(State.PREPARING)
        loop = asyncio.get_running_loop()

        def say(detail: str) -> None:
            if self._status.state is State.PREPARING:  # the thread may go on after the part was given up
                self._say(State.PREPARING, detail)

        def report(detail: str) -> None:
            loop.call_soon_threadsafe(say, detail)

        def prepare() -> None:
            if self.part.prepare is not None:
                self.part.prepare(report)
            for path, content in self.part.files().items() if self.part.files is not None else ():
                write_atomically(path, content)
                self._files[path] = None

        try:
            await asyncio.to_thread(prepare)
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
            if self._status.state is not State.READY:
                ready_since = float("inf")
                if await self._until_ready(process, deadline=float("inf")):
                    self._say(State.READY)
                    ready_since = time.monotonic()
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
            try:
                await self._spawn()
            except PartFailed as failure:
                _log.error("%s", failure)

    async def _until_ready(self, process: Process, deadline: float) -> bool:
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

    async def _spawn(self) -> Process:
        started_with = await asyncio.to_thread(fingerprint.of, self.part, self._files)
        process = await self._forked() or await self._executed()
        self._process = process
        self._status.pid = process.pid
        self._status.fingerprint = started_with
        with contextlib.suppress(psutil.NoSuchProcess):
            self._status.created = psutil.Process(process.pid).create_time()
        self._say(State.STARTING)
        return process

    async def _forked(self) -> Process | None:
        """Its new process, if there is a fork server that has loaded what lies there now."""
        if not self.part.forked_by:
            return None
        server = self._supervisor.runner(self.part.forked_by)
        if server is None or server.part.cwd is None or not await server.is_current():
            return None
        program = fork_server.Program(
            module=str(self.part.command[-1]),
            environ=self._environ,
            log=str(self._log),
            folder=str(self.part.cwd) if self.part.cwd is not None else None,
        )
        try:
            return _Child(await asyncio.to_thread(fork_server.fork, server.part.cwd, program))
        except OSError as error:  # it may be starting itself
            _log.warning("%s is not forked but executed: %s", self.part.name, error)
            return None

    async def _executed(self) -> Process:
        try:
            with self._log.open("ab") as log:
                return await asyncio.create_subprocess_exec(
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

    async def is_current(self) -> bool:
        """Whether the part is ready, and as it would be if it were started now."""
        status = self._status
        return status.state is State.READY and status.fingerprint == await asyncio.to_thread(
            fingerprint.of, self.part, self._files
        )

    async def let_go(self) -> None:
        """End the watch over the process, and leave it running."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None

    async def stop_after_dependents(self) -> None:
        """Stop the process when everything that needs it has stopped."""
        for dependent in self.dependents:
            await dependent.stopped.wait()
        await self.let_go()
        await self._stop()
        if self._status.state is not State.FAILED:
            self._say(State.STOPPED)
        self.stopped.set()

    async def _stop(self) -> None:
        if self._process is not None:
            await _end(self._process, self.part.stop_signal, self.part.stop_within_seconds)
        self._status.pid = None

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


async def _end(process: Process, stop_signal: signal.Signals, within_seconds: float) -> None:
    """Stop a part's process by its signal, or kill it after a time; what it leaves behind is killed."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(stop_signal)
        try:
            await asyncio.wait_for(process.wait(), within_seconds)
        except TimeoutError:
            _log.warning("process %d did not stop; killing it", process.pid)
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await process.wait()
    kill_group(process.pid)


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
