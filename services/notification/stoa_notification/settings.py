"""What can be set of the notification service."""

from stoa_chassis.settings import PostgresSettings


class Settings(PostgresSettings):
    """The common settings: it has none of its own."""
