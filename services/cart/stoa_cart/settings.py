"""What can be set of the cart service."""

from stoa_chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """The common settings, and where the other services are."""

    port: int = 18103
    metrics_port: int = 18203

    catalog_target: str = "127.0.0.1:18101"
    inventory_target: str = "127.0.0.1:18106"
