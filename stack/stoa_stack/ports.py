"""The ports of an instance: offsets from its port base. Those of the services are in their declarations."""

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

DEFAULT_BASE = 18000
DEFAULT_EDGE = 8080  # only of the default instance: others take base + 80, so that they never meet


def offset(name: str) -> int:
    """Distance of the named port from the port base; raises KeyError for a name not in the table."""
    return _OFFSETS[name]
