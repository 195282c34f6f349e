"""How every client of Kafka connects."""

from typing import Any


def connection(bootstrap: str) -> dict[str, Any]:
    """Return what all clients say of connections: a broker that is back is found within half a second."""
    return {
        "bootstrap.servers": bootstrap,
        "reconnect.backoff.max.ms": 500,
        "socket.keepalive.enable": True,
        # Failures are reported by those who meet them, in our own format; these would go to stderr.
        "log_level": 2,
    }
