"""Runs mongo-java-server in this process.

    python -m stoa_stack.servers.mongo_on_h2 <jars> <file> <host> <port>

The server is a library without a main class, and the Java runtime comes without a compiler; Python starts
both. It also makes writes durable: the library acknowledges a write that H2 will store some time later, while
a shop must find every acknowledged write again after the server was killed. And it ends when H2 closes its
store because it can't be written (the disk is full): the library would refuse every command from then on.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import jpype  # type: ignore[import-untyped]  # no types

from stoa_stack.servers import java

_READS = {"find", "getMore", "aggregate", "count", "distinct", "ping", "hello", "isMaster", "ismaster"}


class DurableBackend:
    """A MongoBackend whose writes are in the file when they are acknowledged; all else is H2's."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def handleMessage(self, message: Any) -> Any:  # noqa: N802  # the name that Java calls
        """Answer a command, after storing what it wrote."""
        try:
            answer = self._backend.handleMessage(message)
            if str(message.getDocument().keySet().iterator().next()) not in _READS:
                self._backend.commit()
        finally:
            if self._backend.getMvStore().isClosed():
                os._exit(1)  # whoever watches this process starts it again
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


def main(jars: Path, file: Path, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
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
    backend = DurableBackend(jpype.JClass("de.bwaldvogel.mongo.backend.h2.H2Backend")(str(file)))
    # Space of old versions is used again at once: each write makes one, and the file would grow by gigabytes.
    backend.getMvStore().setRetentionTime(0)
    server = jpype.JClass("de.bwaldvogel.mongo.MongoServer")(
        jpype.JProxy("de.bwaldvogel.mongo.MongoBackend", inst=backend)
    )
    server.bind(host, port)
    signal.sigwait(stopping)
    server.shutdownNow()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
