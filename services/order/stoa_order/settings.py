"""Settings of the order service."""

from datetime import timedelta
from decimal import Decimal

from pydantic import Field

from stoa_chassis.due import Backoff
from stoa_chassis.settings import PostgresSettings
from stoa_contracts.money import Money
from stoa_order.links import GuestLinks
from stoa_order.model import Tariff
from stoa_order.saga import Timeouts


class Settings(PostgresSettings):
    """What an operator can set, beside what all services have."""

    # How long an order waits for stock and for its payment before it is cancelled.
    stock_deadline_seconds: float = Field(default=60, gt=0)
    payment_deadline_seconds: float = Field(default=30, gt=0)
    # How long until a question to another service that had no answer is asked again.
    saga_retry_seconds: float = Field(default=1, gt=0)

    # For how long after its delivery something can be sent back.
    return_window_days: float = Field(default=30, gt=0)

    # Seals the links by which guests follow their orders, which expire after so many days.
    guest_link_key: str = Field(default="", repr=False)
    guest_link_days: int = Field(default=365, ge=1)

    # What shipping costs while the shipping service does not answer.
    shipping_standard: Decimal = Field(default=Decimal("4.90"), ge=0, decimal_places=2)
    shipping_express: Decimal = Field(default=Decimal("14.90"), ge=0, decimal_places=2)
    # Sales tax on the items, as a fraction.
    tax_rate: Decimal = Field(default=Decimal("0.08"), ge=0, lt=1)

    @property
    def tariff(self) -> Tariff:
        """What is added to the items."""
        return Tariff(
            {
                "standard": Money(self.shipping_standard, self.currency),
                "express": Money(self.shipping_express, self.currency),
            },
            self.tax_rate,
        )

    @property
    def links(self) -> GuestLinks:
        """The links by which guests follow their orders."""
        return GuestLinks(self.guest_link_key, timedelta(days=self.guest_link_days))

    @property
    def return_window(self) -> timedelta:
        """For how long after its delivery something can be sent back."""
        return timedelta(days=self.return_window_days)

    @property
    def timeouts(self) -> Timeouts:
        """How long the saga's steps may take, and when they ask again."""
        return Timeouts(
            stock=timedelta(seconds=self.stock_deadline_seconds),
            payment=timedelta(seconds=self.payment_deadline_seconds),
            retry=Backoff(first=timedelta(seconds=self.saga_retry_seconds), longest=timedelta(minutes=1)),
        )
