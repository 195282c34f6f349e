"""What the declarations (services/<name>/service.toml) say of this service and of its peers."""

from dataclasses import dataclass

DEFAULT_PORT_BASE = 18000
"""Where the ports of an instance begin unless it has a base of its own; declarations count from it."""
_METRICS_OFFSET = 100


@dataclass(frozen=True)
class Service:
    """A service as it is declared."""

    name: str
    port: int
    store: str
    publishes: tuple[str, ...] = ()
    consumes: tuple[str, ...] = ()
    follows: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    companies: tuple[str, ...] = ()


SERVICES = {
    service.name: service
    for service in (
        Service("user", 100, "postgres", ("user.registered", "user.profile_updated")),
        Service(
            "catalog",
            101,
            "mongo",
            ("product.created", "product.updated", "product.deleted", "product.viewed"),
            follows=("product.created", "product.updated", "product.deleted"),
        ),
        Service(
            "cart",
            103,
            "redis",
            ("cart.item_added",),
            ("order.placed", "product.created", "product.updated", "product.deleted"),
            calls=("catalog", "inventory"),
        ),
        Service(
            "order",
            104,
            "postgres",
            ("order.placed", "order.confirmed", "order.cancelled"),
            (
                "inventory.reserved",
                "inventory.out_of_stock",
                "payment.successful",
                "payment.failed",
                "payment.refunded",
            ),
            calls=("cart", "catalog", "user", "payment"),
        ),
        Service(
            "payment",
            105,
            "postgres",
            ("payment.successful", "payment.failed", "payment.refunded"),
            companies=("payment-gateway",),
        ),
        Service(
            "inventory",
            106,
            "postgres",
            ("inventory.reserved", "inventory.out_of_stock", "inventory.low_stock"),
            (
                "order.placed",
                "order.cancelled",
                "order.shipped",
                "order.returned",
                "product.created",
                "product.updated",
            ),
            calls=("catalog",),
        ),
    )
}


def declaration(service: str) -> Service | None:
    """Return how a service is declared; None for one that the shop does not have, as in tests."""
    return SERVICES.get(service)


def default_port(service: Service) -> int:
    """Return where a service listens unless it is told otherwise."""
    return DEFAULT_PORT_BASE + service.port


def default_metrics_port(service: Service) -> int:
    """Return where the metrics of a service are served unless it is told otherwise."""
    return default_port(service) + _METRICS_OFFSET
