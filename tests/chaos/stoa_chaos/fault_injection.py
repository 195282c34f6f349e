"""How faults are injected into a running instance: at its parts' processes, and by further processes.

No process is touched that is not the instance's own: a pid counts only with the start time that the
supervisor recorded for it, since pids are used again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import psutil  # type: ignore[import-untyped]  # no types

from stoa_services import SERVICES
from stoa_stack.companies import Company
from stoa_stack.instance import Instance
from stoa_stack.processes import MARKER
from stoa_stack.services import environment
from stoa_stack.status import PartStatus, Status
from stoa_stack.up import status_file

_CLOCK_TOLERANCE = 0.05  # seconds
_SECOND_PORTS = 200  # from a service's own ports to those of its second process
_LOOK_EVERY = 0.1
_STOP_WITHIN = 25.0


class NotRunning(Exception):
    """A part has no process at the moment: it is being started."""


@dataclass(frozen=True)
class FaultInjector:
    """Breaks parts of a running instance, and heals them."""

    at: Instance

    def part(self, name: str) -> PartStatus:
        """Return what the supervisor says of a part. Raises NotRunning."""
        status = Status.read(status_file(self.at))
        part = status.parts.get(name) if status else None
        if part is None or part.pid is None:
            raise NotRunning(f"{name} has no process")
        return part

    def process(self, name: str) -> psutil.Process:
        """Return a part's process. Raises NotRunning."""
        part = self.part(name)
        try:
            process = psutil.Process(part.pid)
            if abs(process.create_time() - part.created) < _CLOCK_TOLERANCE:
                return process
        except psutil.NoSuchProcess:
            pass
        raise NotRunning(f"{name} has just ended")

    def family(self, name: str) -> list[psutil.Process]:
        """Return a part's process and those below it, as PostgreSQL has them. Raises NotRunning."""
        leader = self.process(name)
        with contextlib.suppress(psutil.NoSuchProcess):
            return [leader, *leader.children(recursive=True)]
        raise NotRunning(f"{name} has just ended")

    def kill(self, name: str) -> None:
        """End a part as a crash does. Raises NotRunning."""
        _signal(self.process(name), signal.SIGKILL)

    @contextlib.contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """Stop a part in the middle of what it does, connections open, and let it go on."""
        family = self.family(name)
        try:
            for process in family:
                _signal(process, signal.SIGSTOP)
            yield
        finally:
            for process in reversed(family):
                _signal(process, signal.SIGCONT)

    @contextlib.contextmanager
    def without_space(self, name: str) -> Iterator[None]:
        """Let every write of a part to a file fail, as on a full disk, with no disk being full.

        The limit on the size of files is the process's own, so that nobody else notices anything. What starts
        the part again starts it without.
        """
        family = self.family(name)
        try:
            for process in family:
                _limit_files(process, 0)
            yield
        finally:
            with contextlib.suppress(NotRunning):
                family += self.family(name)  # those that were forked meanwhile have inherited it
            for process in family:
                _limit_files(process, resource.RLIM_INFINITY)

    @asynccontextmanager
    async def second_process(
        self, service: str, settings: Mapping[str, str], crash: bool
    ) -> AsyncIterator[None]:
        """Run a second process of a service on ports of its own; `crash` tells if it is killed in the end."""
        ports = {
            "STOA_PORT": self.at.port(service) + _SECOND_PORTS,
            "STOA_METRICS_PORT": self.at.port(f"{service}-metrics") + _SECOND_PORTS,
        }
        variables = {
            **os.environ,
            **environment(self.at, SERVICES[service]),
            MARKER: str(self.at.state),
            **settings,
        }
        variables |= {name: str(port) for name, port in ports.items()}
        with (self.at.folder("logs") / f"{service}-second.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", f"stoa_{service}",
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=variables,
                start_new_session=True,
            )  # fmt: skip
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                if not crash:
                    process.terminate()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(asyncio.shield(process.wait()), _STOP_WITHIN)
                if process.returncode is None:
                    process.kill()
            await process.wait()

    @asynccontextmanager
    async def company_with(self, company: Company, faults: Mapping[str, object]) -> AsyncIterator[None]:
        """Switch the own faults of a company's fake on, and off again."""
        async with company.operator_client(self.at, timeout=3) as fake:
            try:
                (await fake.post("/admin/faults", json=faults)).raise_for_status()
            except httpx.HTTPError as error:
                raise NotRunning(f"the {company.part} can't be reached: {error!r}") from error
            try:
                yield
            finally:
                # If nobody answers it is being started, and starts without faults.
                with contextlib.suppress(httpx.HTTPError):
                    await fake.post("/admin/faults", json={})


def _signal(process: psutil.Process, what: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(what)  # psutil looks at the start time before it does


def _limit_files(process: psutil.Process, size: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        _, hard = process.rlimit(psutil.RLIMIT_FSIZE)
        process.rlimit(psutil.RLIMIT_FSIZE, (size if size != resource.RLIM_INFINITY else hard, hard))
