"""Settings of the shipping service."""

from datetime import timedelta

from pydantic import Field

from stoa_chassis.due import Backoff
from stoa_chassis.settings import PostgresSettings
from stoa_shipping.model import RetryPolicy
from stoa_shipping.peers import Account
from stoa_shipping.service import Scale
from stoa_shipping.tariff import RATES, Origin, Rate, Tariff


class Settings(PostgresSettings):
    """What an operator can set, beside what all services have."""

    fedex_url: str = "http://127.0.0.1:18021/fedex"
    fedex_client_secret: str = Field(default="", repr=False)
    fedex_webhook_secret: str = Field(default="", repr=False)
    ups_url: str = "http://127.0.0.1:18021/ups"
    ups_access_key: str = Field(default="", repr=False)
    ups_webhook_secret: str = Field(default="", repr=False)
    dhl_url: str = "http://127.0.0.1:18021/dhl"
    dhl_api_key: str = Field(default="", repr=False)
    dhl_webhook_secret: str = Field(default="", repr=False)
    # How long a carrier may take for one request; must be less than what our callers give us.
    carrier_timeout_seconds: float = Field(default=3, gt=0)

    # When a carrier is asked again that has not answered: first, and at most.
    retry_first_seconds: float = Field(default=1, gt=0)
    retry_longest_seconds: float = Field(default=30, gt=0)
    # After how long without a booking another carrier of the same method is asked as well.
    takeover_seconds: float = Field(default=60, gt=0)
    # After how long those that refused a parcel are asked again.
    reconsider_hours: float = Field(default=1, gt=0)
    # When a carrier is asked for news that it has not told: first, and at most.
    poll_first_seconds: float = Field(default=60, gt=0)
    poll_longest_seconds: float = Field(default=900, gt=0)

    # Where the warehouse is: ISO 3166-1 alpha-2, and its state or province, which may be empty.
    origin_country: str = Field(default="US", pattern="^[A-Z]{2}$")
    origin_region: str = ""
    # What counts for a variant that nobody has weighed.
    default_weight_grams: int = Field(default=500, gt=0)
    heaviest_grams: int = Field(default=1_000_000, gt=0)
    # One for each method and zone, in the shop's currency.
    rates: tuple[Rate, ...] = RATES

    @property
    def fedex(self) -> Account:
        """The account at FedEx."""
        return Account(
            url=self.fedex_url, secret=self.fedex_client_secret, webhook_secret=self.fedex_webhook_secret
        )

    @property
    def ups(self) -> Account:
        """The account at UPS."""
        return Account(url=self.ups_url, secret=self.ups_access_key, webhook_secret=self.ups_webhook_secret)

    @property
    def dhl(self) -> Account:
        """The account at DHL."""
        return Account(url=self.dhl_url, secret=self.dhl_api_key, webhook_secret=self.dhl_webhook_secret)

    @property
    def carrier_timeout(self) -> timedelta:
        """How long a carrier may take for one request."""
        return timedelta(seconds=self.carrier_timeout_seconds)

    @property
    def scale(self) -> Scale:
        """What things weigh."""
        return Scale(self.default_weight_grams)

    @property
    def tariff(self) -> Tariff:
        """What it costs to send them. Raises ValueError for rates with a gap."""
        origin = Origin(self.origin_country, self.origin_region)
        return Tariff(origin, self.currency, self.rates, self.heaviest_grams)

    @property
    def retry(self) -> RetryPolicy:
        """How long what a carrier has not answered is left to one attempt, and to that carrier."""
        return RetryPolicy(
            # One attempt is at most a token, a booking, a confirmation, and the voiding of two others.
            lease=5 * self.carrier_timeout + timedelta(seconds=1),
            takeover=timedelta(seconds=self.takeover_seconds),
            reconsider=timedelta(hours=self.reconsider_hours),
        )

    @property
    def backoff(self) -> Backoff:
        """When a carrier is asked again that has not answered."""
        return Backoff(
            timedelta(seconds=self.retry_first_seconds), timedelta(seconds=self.retry_longest_seconds)
        )

    @property
    def polling(self) -> Backoff:
        """When a carrier is asked for news that it has not told."""
        return Backoff(
            timedelta(seconds=self.poll_first_seconds), timedelta(seconds=self.poll_longest_seconds)
        )
