"""What can be set of the catalog service."""

from pydantic import Field

from stoa_chassis.settings import MongoSettings, PostgresSettings


class Settings(MongoSettings, PostgresSettings):
    """The common settings, and what is its own."""

    # What a process may hold of the read model: products and lists that were asked for lately. Megabytes.
    hot_set_mb: float = Field(default=16, gt=0)
    # How often a page of the read model is compared with the documents, for events that never came (seconds),
    # and of how many products. One process at a time does it.
    reconcile_seconds: float = Field(default=60, gt=0)
    reconcile_products: int = Field(default=1000, ge=1)
