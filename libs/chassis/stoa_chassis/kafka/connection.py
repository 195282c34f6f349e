"""How every client of Kafka connects."""

from typing import Any

from stoa_chassis.kafka import msk


def connection(bootstrap: str) -> dict[str, Any]:
    """Return what all clients say of connections: a broker that is back is found within half a second.

    The bootstrap is a list of host:port; with `msk-iam://` before it, of brokers that know the client by its
    role at AWS. Raises ValueError if such a list is not one of MSK's, or if this process has no role.
    """
    servers = bootstrap.removeprefix(msk.SCHEME)
    return {
        "bootstrap.servers": servers,
        "reconnect.backoff.max.ms": 500,
        "socket.keepalive.enable": True,
        # Failures are reported by those who meet them, in our own format; these would go to stderr.
        "log_level": 2,
        **(msk.by_role(servers) if servers != bootstrap else {}),
    }
