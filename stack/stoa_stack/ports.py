"""The ports of an instance: offsets from its port base. Those of the services are in their declarations.

In a cluster each server has a host of its own, and the port that is usual for what it speaks.
"""

from collections.abc import Mapping

from stoa_services import SERVICES

_OFFSETS = {
    "postgres": 10,
    "valkey": 11,
    "mongo": 12,
    "kafka": 13,
    "kafka-controller": 14,
    "registry": 15,
    "registry-management": 16,
    "opensearch": 17,
    "opensearch-transport": 18,
    "gateway": 20,
    "carriers": 21,
    "mail": 25,
    "mail-page": 26,
    "edge": 80,
    "edge-admin": 81,
}
_OFFSETS |= {service.name: service.port for service in SERVICES.values()}
_OFFSETS |= {f"{service.name}-metrics": service.metrics_port for service in SERVICES.values()}

# charts/infrastructure has the same.
_USUAL = {
    "postgres": 5432,
    "valkey": 6379,
    "mongo": 27017,
    "kafka": 9092,
    "kafka-controller": 9093,
    "registry": 8080,
    "registry-management": 9000,
    "opensearch": 9200,
    "opensearch-transport": 9300,
    "gateway": 8080,
    "carriers": 8080,
    "mail": 1025,
    "mail-page": 8080,
    "edge": 8080,
    "edge-admin": 9901,
}
_USUAL |= dict.fromkeys(SERVICES, 9000) | {f"{name}-metrics": 9100 for name in SERVICES}

HOST = "127.0.0.1"  # all that listens on this machine listens there alone
DEFAULT_BASE = 18000
DEFAULT_EDGE = 8080  # only of the default instance: others take base + 80, so that they never meet


def offset(name: str) -> int:
    """Distance of the named port from the port base; raises KeyError for a name not in the table."""
    return _OFFSETS[name]


def usual() -> Mapping[str, int]:
    """The port of each name in the table where it has a host of its own."""
    return _USUAL
