"""Settings of the payment service."""

from datetime import timedelta
from typing import Literal

from pydantic import Field

from stoa_chassis.due import Backoff
from stoa_chassis.settings import PostgresSettings
from stoa_payment.model import RetryPolicy


class Settings(PostgresSettings):
    """What an operator can set, beside what all services have."""

    # Who the gateway is: the mock, or who speaks as it does, or Stripe. URL, key and secret are its own.
    gateway_provider: Literal["mock", "stripe"] = "mock"
    gateway_url: str = "http://127.0.0.1:18020"
    gateway_api_key: str = Field(default="", repr=False)
    gateway_webhook_secret: str = Field(default="", repr=False)
    # How long the gateway may take for one request; must be less than what our callers give us.
    gateway_timeout_seconds: float = Field(default=5, gt=0)

    # Hold an order's amount when it is placed, and take it when the order is sent.
    capture_later: bool = False

    # When we ask the gateway again about what it has not settled: first, and at most.
    retry_first_seconds: float = Field(default=1, gt=0)
    retry_longest_seconds: float = Field(default=15, gt=0)
    # After how long a charge of which the gateway knows nothing has failed.
    give_up_hours: float = Field(default=24, gt=0)

    @property
    def backoff(self) -> Backoff:
        """When the gateway is asked again about what it has not settled."""
        return Backoff(
            timedelta(seconds=self.retry_first_seconds), timedelta(seconds=self.retry_longest_seconds)
        )

    @property
    def retry(self) -> RetryPolicy:
        """How long what the gateway has not settled is tried."""
        return RetryPolicy(
            # One attempt is at most an inquiry and a charge.
            lease=timedelta(seconds=2 * self.gateway_timeout_seconds + 1),
            give_up_after=timedelta(hours=self.give_up_hours),
        )
