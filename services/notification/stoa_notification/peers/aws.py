"""Mail by Amazon SES (API version 2) and SMS by Amazon SNS, with AWS's own client.

Neither has an idempotency key. SES replaces the Message-ID, so that a mail that is given twice is told apart
by a header of ours alone: it is repeated all the same, since a mail twice does less harm than none. An SMS
whose outcome is not known is not given again.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from email.utils import formataddr
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, EndpointConnectionError
from botocore.session import Session

from stoa_notification.peers.sender import Sender, mailbox_and_domain
from stoa_notification.ports import Message, NotTaken, OutcomeUnknown, Refused

_FOR_NOW = {
    "Throttling", "ThrottlingException", "ThrottledException", "TooManyRequestsException",
    "LimitExceededException", "SendingPausedException", "ServiceUnavailable",
}  # fmt: skip
_NEVER_LEFT = (EndpointConnectionError, ConnectTimeoutError)


@dataclass(frozen=True, slots=True)
class Aws:
    """Where AWS is called; who calls is found as by all of its clients. Without a URL it is AWS itself."""

    region: str
    endpoint_url: str = ""

    def client(self, service: str, timeout: timedelta) -> Any:
        """Return a client, which does not repeat anything itself."""
        seconds = timeout.total_seconds()
        return Session().create_client(
            service,
            region_name=self.region,
            endpoint_url=self.endpoint_url or None,
            config=Config(
                connect_timeout=seconds / 2,
                read_timeout=seconds / 2,
                retries={"total_max_attempts": 1},
                max_pool_connections=20,
            ),
        )


class Ses:
    """Amazon Simple Email Service."""

    name = "ses"
    repeatable = True

    def __init__(self, aws: Aws, sender: Sender, timeout: timedelta) -> None:
        self._client = aws.client("sesv2", timeout)
        self._sender = sender

    async def send(self, message: Message) -> None:
        """Give a mail to SES. Raises Refused, NotTaken, OutcomeUnknown."""
        content = message.content
        mailbox, domain = mailbox_and_domain(message.address)
        if not mailbox.isascii():
            raise Refused("SMTPUTF8")  # which SES has not
        await _call(
            self._client.send_email,
            {
                "FromEmailAddress": formataddr((self._sender.name, self._sender.address)),
                "Destination": {"ToAddresses": [formataddr((message.name, f"{mailbox}@{domain}"))]},
                "Content": {
                    "Simple": {
                        "Subject": _text(content.subject),
                        "Body": {"Text": _text(content.text), "Html": _text(content.html)},
                        "Headers": [
                            {"Name": "X-Notification-ID", "Value": str(message.notification_id)},
                            {"Name": "Auto-Submitted", "Value": "auto-generated"},
                        ],
                    }
                },
                "EmailTags": [{"Name": "notification_id", "Value": str(message.notification_id)}],
            },
        )


class Sns:
    """Amazon Simple Notification Service, for SMS."""

    name = "sns"
    repeatable = False

    def __init__(self, aws: Aws, timeout: timedelta) -> None:
        self._client = aws.client("sns", timeout)

    async def send(self, message: Message) -> None:
        """Give an SMS to SNS. Raises Refused, NotTaken, OutcomeUnknown."""
        await _call(
            self._client.publish,
            {
                "PhoneNumber": message.address,
                "Message": message.content.short,
                "MessageAttributes": {
                    "AWS.SNS.SMS.SMSType": {"DataType": "String", "StringValue": "Transactional"}
                },
            },
        )


def _text(text: str) -> dict[str, str]:
    return {"Data": text, "Charset": "UTF-8"}


async def _call(method: Callable[..., Any], request: Mapping[str, Any]) -> None:
    """Call AWS, beside the event loop: its client waits."""
    try:
        await asyncio.to_thread(method, **request)
    except ClientError as error:
        code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        if code in _FOR_NOW:
            raise NotTaken(code) from None
        if status >= 500:
            raise OutcomeUnknown(code) from None
        raise Refused(code) from None
    except _NEVER_LEFT as error:
        raise NotTaken(type(error).__name__) from None
    except BotoCoreError as error:
        raise OutcomeUnknown(type(error).__name__) from None
