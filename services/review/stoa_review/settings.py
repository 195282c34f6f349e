"""What can be set of the review service."""

from stoa_chassis.settings import MongoSettings


class Settings(MongoSettings):
    """The common settings: it has none of its own."""
