"""What can be set of the inventory service."""

from stoa_chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """The common settings, and where the catalog is."""

    port: int = 18106
    metrics_port: int = 18206

    catalog_target: str = "127.0.0.1:18101"
