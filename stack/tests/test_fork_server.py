"""The fork server, on a real one and programs that are little modules in its folder."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # no types
import pytest

from stoa_chassis.testing import eventually
from stoa_stack import fork_server, processes
from stoa_stack.fork_server import Program
from stoa_stack.instance import Instance
from stoa_stack.part import Part
from stoa_stack.status import State
from stoa_stack.supervisor import Supervisor

_TELLING = """
import os, sys, stoa_chassis.kafka
print("hello", os.environ.get("WHO"), os.getcwd(), os.getsid(0) == os.getpid(), __name__)
sys.exit(7)
"""
_STAYING = """
import os, signal
open("up", "w").write(str(os.getpid()))
signal.pause()
"""


@pytest.fixture(autouse=True)
def _adopting() -> Iterator[None]:
    fork_server.adopt_orphans()
    yield
    fork_server.adopt_orphans(False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a fork server; its path is longer than that of a socket may be."""
    folder = tmp_path / ("deep" * 30)
    folder.mkdir()
    (folder / "telling.py").write_text(_TELLING)
    (folder / "staying.py").write_text(_STAYING)
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A fork server that has loaded what all services load, and found that no thread runs because of it."""
    process = subprocess.Popen([sys.executable, "-m", "stoa_stack.fork_server"], cwd=folder)
    try:
        until = time.monotonic() + 60
        while not _listens(folder) and time.monotonic() < until:
            assert process.poll() is None
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


def _listens(folder: Path) -> bool:
    try:
        fork_server.check(folder)
    except OSError:
        return False
    return True


@pytest.mark.usefixtures("server")
def test_a_fork_runs_as_if_it_had_been_executed_by_us(folder: Path) -> None:
    log = folder / "log"
    log.write_text("before\n")
    pid = fork_server.fork(folder, Program("telling", {"WHO": "you"}, str(log), str(folder.parent)))
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert log.read_text() == f"before\nhello you {folder.parent} True __main__\n"


@pytest.mark.usefixtures("server")
def test_a_fork_that_fails_says_why_in_its_log_and_harms_nobody(folder: Path) -> None:
    log = folder / "log"
    (folder / "broken.py").write_text("import no_such_module")
    pid = fork_server.fork(folder, Program("broken", dict(os.environ), str(log)))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert "No module named 'no_such_module'" in log.read_text()
    os.waitpid(fork_server.fork(folder, Program("telling", {}, str(log))), 0)
    assert "hello None" in log.read_text()


def test_what_forks_outlive_is_their_server(folder: Path, server: subprocess.Popen[bytes]) -> None:
    pid = fork_server.fork(folder, Program("staying", {}, str(folder / "log")))
    server.kill()
    server.wait()
    try:
        assert psutil.Process(pid).ppid() == os.getpid()
        with pytest.raises(ConnectionRefusedError):
            fork_server.fork(folder, Program("telling", {}, str(folder / "log")))
    finally:
        os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_what_nobody_waits_for_any_more_does_not_run(folder: Path, server: subprocess.Popen[bytes]) -> None:
    server.send_signal(signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        fork_server.fork(folder, Program("staying", {}, str(folder / "log"), str(folder)))
    server.send_signal(signal.SIGCONT)
    later = fork_server.fork(folder, Program("telling", {}, str(folder / "log")))
    assert os.waitstatus_to_exitcode(os.waitpid(later, 0)[1]) == 7
    abandoned, code = os.waitpid(-1, 0)  # the server runs: it is the other one that has ended
    assert abandoned != server.pid
    assert code == 0
    assert not (folder / "up").exists()


async def test_what_is_left_behind_and_adopted_is_cleared_away_at_the_second_look() -> None:
    shell = await asyncio.create_subprocess_exec(
        *("sh", "-c", "sleep 0.5 >/dev/null & echo $!"), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await shell.communicate()
    left = int(said)
    assert psutil.Process(left).ppid() == os.getpid()
    await eventually(lambda: left in processes.reap(set()))
    ended = processes.reap(set())
    assert left not in processes.reap(ended)
    assert not psutil.pid_exists(left)


# ------------------------------------------------------------------------------ below a supervisor


class Shop:
    """A supervisor with a fork server and a service that stays."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.code = folder / "code"
        self.code.write_text("one")
        (folder / "logs").mkdir()
        forking = fork_server.part(Instance(folder))
        assert forking.cwd is not None
        (forking.cwd / "staying.py").write_text(_STAYING)
        (folder / "staying.py").write_text(_STAYING)
        forking = Part(**{**vars(forking), "reads": [self.code], "packages": []})
        service = Part(
            name="service",
            command=[sys.executable, "-m", "staying"],
            ready=self._is_up,
            needs=[forking.name],
            forked_by=forking.name,
            cwd=folder,
        )
        self.supervisor = Supervisor(
            [forking, service],
            instance=folder,
            logs=folder / "logs",
            status=folder / "status.json",
            environ=dict(os.environ),
        )
        self.service = self.supervisor.status.parts["service"]
        self.server = self.supervisor.status.parts[forking.name]

    async def _is_up(self) -> None:
        assert (self.folder / "up").read_text() == str(self.service.pid)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        run = asyncio.create_task(self.supervisor.run())
        try:
            await self.serves()
            yield
        finally:
            self.supervisor.stop()
            await run
        assert processes.orphans(self.folder, ()) == []

    async def serves(self, besides: int | None = None) -> None:
        await eventually(lambda: self.service.state is State.READY and self.service.pid != besides, within=60)

    def is_forked(self) -> bool:
        words: list[str] = psutil.Process(self.service.pid).cmdline()
        return words[-1] == "stoa_stack.fork_server"


async def test_a_service_is_forked_also_when_it_is_started_again(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    async with shop.running():
        first = shop.service.pid
        assert first is not None
        assert shop.is_forked()
        os.kill(first, signal.SIGKILL)
        await shop.serves(besides=first)
        assert shop.is_forked()
        assert shop.service.restarts == 1


async def test_a_service_is_executed_while_the_fork_server_is_of_other_code_or_gone(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    async with shop.running():
        first = shop.service.pid
        assert first is not None
        shop.code.write_text("two")
        os.kill(first, signal.SIGKILL)
        await shop.serves(besides=first)
        assert not shop.is_forked()
        shop.code.write_text("one")
        second, server = shop.service.pid, shop.server.pid
        assert second is not None
        assert server is not None
        os.kill(server, signal.SIGKILL)
        os.kill(second, signal.SIGKILL)
        await shop.serves(besides=second)
        assert not shop.is_forked()
