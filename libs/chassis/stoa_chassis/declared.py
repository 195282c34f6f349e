"""What the declarations (services/<name>/service.toml) say of this service and of its peers."""

from stoa_contracts.declarations import Service
from stoa_services import SERVICES

DEFAULT_PORT_BASE = 18000
"""Where the ports of an instance begin unless it has a base of its own; declarations count from it."""


def declaration(service: str) -> Service | None:
    """Return how a service is declared; None for one that the shop does not have, as in tests."""
    return SERVICES.get(service)


def default_port(service: Service) -> int:
    """Return the port of a service unless a setting names another."""
    return DEFAULT_PORT_BASE + service.port


def default_metrics_port(service: Service) -> int:
    """Return the port of a service's metrics unless a setting names another."""
    return DEFAULT_PORT_BASE + service.metrics_port
