"""How every client of Kafka connects."""

import re
from typing import Any
from urllib.parse import unquote

from stoa_chassis.kafka import msk

_WITH_ACCOUNT = re.compile(
    r"(?P<protocol>sasl_ssl|sasl_plaintext)://(?P<user>[^:@/]+):(?P<password>[^:@/]+)@"
    r"(?P<brokers>[^/?]+)(?:\?ca=(?P<authority>.+))?"
)


def connection(bootstrap: str) -> dict[str, Any]:
    """Return what all clients say of connections: a broker that is back is found within half a second.

    `bootstrap` is `host:port`, or several with commas between them. Where brokers want to know who asks, it
    is a URL, `sasl_ssl://user:password@host:port`, for SCRAM-SHA-512. Its `?ca=` names the file with the
    authority of their certificates, if it is none that the system knows. With `msk-iam://` the brokers are
    Amazon's, and know the client by its role. Raises ValueError for another URL.
    """
    return {
        **_brokers(bootstrap),
        "reconnect.backoff.max.ms": 500,
        # Between questions who leads a partition, too: by default it grows to a second.
        "retry.backoff.max.ms": 250,
        "socket.keepalive.enable": True,
        # Failures are reported by those who meet them, in our own format; these would go to stderr.
        "log_level": 2,
    }


def _brokers(bootstrap: str) -> dict[str, Any]:
    if "://" not in bootstrap:
        return {"bootstrap.servers": bootstrap}
    if bootstrap.startswith(msk.SCHEME):
        return msk.by_role(bootstrap.removeprefix(msk.SCHEME))
    found = _WITH_ACCOUNT.fullmatch(bootstrap)
    if found is None:  # it may have a password in it, and is not shown
        raise ValueError("Kafka's address must be host:port or sasl_ssl://user:password@host:port")
    account = {
        "bootstrap.servers": found["brokers"],
        "security.protocol": found["protocol"].upper(),
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": unquote(found["user"]),
        "sasl.password": unquote(found["password"]),
    }
    return account | ({"ssl.ca.location": found["authority"]} if found["authority"] else {})
