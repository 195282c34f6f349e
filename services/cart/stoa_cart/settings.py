"""What can be set of the cart service."""

from stoa_chassis.settings import RedisSettings


class Settings(RedisSettings):
    """The common settings: it has none of its own."""
