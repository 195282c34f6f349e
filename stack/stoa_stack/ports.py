"""The one table of ports: an offset for each name, added to the instance's port base."""

_OFFSETS = {
    "postgres": 10,
    "valkey": 11,
    "mongo": 12,
    "kafka": 13,
    "kafka-controller": 14,
    "registry": 15,
    "registry-management": 16,
    "gateway": 20,
    "edge": 80,
    "edge-admin": 81,
}
# A service listens on its own offset (gRPC) and a hundred further (metrics).
SERVICES = (
    "user", "catalog", "search", "cart", "order", "payment", "inventory", "shipping", "review",
    "notification", "recommendation", "analytics", "media",
)  # fmt: skip
_OFFSETS |= {service: 100 + number for number, service in enumerate(SERVICES)}
_OFFSETS |= {f"{service}-metrics": 200 + number for number, service in enumerate(SERVICES)}

DEFAULT_BASE = 18000
DEFAULT_EDGE = 8080  # only of the default instance: others take base + 80, so that they never meet


def offset(name: str) -> int:
    """Distance of the named port from the port base; raises KeyError for a name not in the table."""
    return _OFFSETS[name]
