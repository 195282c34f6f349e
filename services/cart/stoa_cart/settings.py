"""What can be set of the cart service."""

from datetime import timedelta

from pydantic import Field

from stoa_chassis.settings import RedisSettings


class Settings(RedisSettings):
    """What an operator can set, beside what all services have."""

    # How long what an order has claimed waits for the order to be placed, before it is in the cart again. The
    # order service places none in the last seconds of it.
    claim_seconds: float = Field(default=60, ge=30)

    @property
    def claim_for(self) -> timedelta:
        """How long a claim lasts."""
        return timedelta(seconds=self.claim_seconds)
