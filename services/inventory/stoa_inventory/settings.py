"""What can be set of the inventory service."""

from pydantic import Field

from stoa_chassis.settings import PostgresSettings


class Settings(PostgresSettings):
    """The common settings, and what is its own."""

    # How often it is looked for variants of which an older version has changed whether they can be bought.
    # Seconds.
    announce_seconds: float = Field(default=60, gt=0)
