"""What can be set of the catalog service."""

from pydantic import Field

from stoa_chassis.settings import MongoSettings


class Settings(MongoSettings):
    """The common settings, and what is its own."""

    # How often the read model is compared with the store, for events that never came. Seconds.
    reconcile_seconds: float = Field(default=60, gt=0)
    # Where `stoa replay catalog` finds the processes that are to rebuild their read models: host:port of each
    # instance, separated by commas, where a name stands for all its addresses. Empty: the one that listens
    # where these settings say.
    instances: str = ""
