"""What can be set of the review service."""

from stoa_chassis.settings import MongoSettings


class Settings(MongoSettings):
    """The common settings, and what is its own."""

    # Whether reviews wait until staff has published them; else they are shown at once.
    moderated: bool = False
