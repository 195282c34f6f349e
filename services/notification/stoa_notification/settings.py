"""Settings of the notification service."""

from datetime import timedelta
from typing import Literal

from pydantic import Field

from stoa_chassis.due import Backoff
from stoa_chassis.settings import PostgresSettings
from stoa_notification.model import LOCALES, DeliveryPolicy, Recipient, known_locale


class Settings(PostgresSettings):
    """What an operator can set, beside what all services have."""

    # Where shoppers find the shop: links in messages begin with it. What the shop is called in them.
    shop_url: str = "http://127.0.0.1:8080"
    shop_name: str = "Stoa"
    # Who mail comes from; the domain names the Message-IDs as well.
    sender_address: str = "shop@stoa.example"
    # Where mail to staff goes, and in which language.
    staff_address: str = "staff@stoa.example"
    staff_locale: str = LOCALES[0]

    email_provider: Literal["smtp", "ses", "sendgrid"] = "smtp"
    sms_provider: Literal["none", "sns", "twilio"] = "none"
    push_provider: Literal["none", "fcm"] = "none"
    # How long a provider may take for one message.
    provider_timeout_seconds: float = Field(default=10, gt=0)

    smtp_url: str = "smtp://127.0.0.1:18025"
    smtp_username: str = ""
    smtp_password: str = Field(default="", repr=False)
    aws_region: str = "eu-central-1"
    aws_endpoint_url: str = ""
    sendgrid_url: str = "https://api.sendgrid.com"
    sendgrid_api_key: str = Field(default="", repr=False)
    twilio_url: str = "https://api.twilio.com"
    twilio_account_sid: str = ""
    twilio_auth_token: str = Field(default="", repr=False)
    # A phone number of the account, or a messaging service (MG…).
    twilio_from: str = ""
    fcm_url: str = "https://fcm.googleapis.com"
    # The JSON of a service account's key file.
    fcm_service_account: str = Field(default="", repr=False)

    # When a message that was not delivered is tried again: first, and at most.
    retry_first_seconds: float = Field(default=1, gt=0)
    retry_longest_seconds: float = Field(default=15, gt=0)
    # After how long a message that could not be delivered has failed.
    give_up_hours: float = Field(default=24, gt=0)
    # Events that are older are not told of: a shop that gets this service tells nothing of last week.
    tell_within_hours: float = Field(default=24, gt=0)

    @property
    def backoff(self) -> Backoff:
        """When a message that was not delivered is tried again."""
        return Backoff(
            timedelta(seconds=self.retry_first_seconds), timedelta(seconds=self.retry_longest_seconds)
        )

    @property
    def provider_timeout(self) -> timedelta:
        """How long a provider may take for one message."""
        return timedelta(seconds=self.provider_timeout_seconds)

    @property
    def policy(self) -> DeliveryPolicy:
        """How long it is tried to deliver something."""
        return DeliveryPolicy(
            tell_within=timedelta(hours=self.tell_within_hours),
            give_up_after=timedelta(hours=self.give_up_hours),
            # An attempt may have to renew a provider's access token first.
            lease=2 * self.provider_timeout + timedelta(seconds=1),
        )

    @property
    def staff(self) -> Recipient:
        """Who gets what the shop tells itself."""
        return Recipient(self.staff_address, "", known_locale(self.staff_locale))
