"""What can be set of the catalog service."""

from stoa_chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """The common settings, and which database is its own."""

    port: int = 18101
    metrics_port: int = 18201

    mongo_database: str = "catalog"
