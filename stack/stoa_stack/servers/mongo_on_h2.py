"""Runs mongo-java-server in this process: `python -m stoa_stack.servers.mongo_on_h2 <jars> <file> <port>`.

The server is a library without a main class, and the Java runtime comes without a compiler; Python starts
both.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import jpype  # type: ignore[import-untyped]  # no types

from stoa_stack.servers import java

# H2 writes in the background. A short delay bounds what a killed server loses to a blink, and still costs
# no CPU while nothing is written.
_COMMIT_DELAY_MS = 20


def main(jars: Path, file: Path, port: int) -> None:
    """Serve on 127.0.0.1 until SIGTERM or SIGINT."""
    stopping = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stopping)  # before Java's threads start, which inherit it
    jpype.startJVM(
        str(java.JVM_LIBRARY),
        *java.flags(heap_mb=192),
        "-Xrs",  # leaves the signals to us
        "--enable-native-access=ALL-UNNAMED",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        classpath=[str(jar) for jar in jars.glob("*.jar")],
    )
    backend = jpype.JClass("de.bwaldvogel.mongo.backend.h2.H2Backend")(str(file))
    backend.getMvStore().setAutoCommitDelay(_COMMIT_DELAY_MS)
    server = jpype.JClass("de.bwaldvogel.mongo.MongoServer")(backend)
    server.bind("127.0.0.1", port)
    signal.sigwait(stopping)
    server.shutdownNow()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
