"""Mail by SendGrid (https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send).

SendGrid has no idempotency key. It takes a Message-ID of ours as a header, so that a mail that is given twice
is recognised as by SMTP.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Self

import aiohttp

from stoa_notification.peers.http import post, session
from stoa_notification.peers.sender import Sender, mailbox_and_domain
from stoa_notification.ports import Message, Refused


class SendGrid:
    """SendGrid's Mail Send API, version 3."""

    name = "sendgrid"
    repeatable = True

    def __init__(self, client: aiohttp.ClientSession, sender: Sender) -> None:
        self._client = client
        self._sender = sender

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str, api_key: str, sender: Sender, attempt: timedelta) -> AsyncIterator[Self]:
        """Keep connections to SendGrid."""
        async with session(url, attempt, {"authorization": f"Bearer {api_key}"}) as client:
            yield cls(client, sender)

    async def send(self, message: Message) -> None:
        """Give a mail to SendGrid. Raises Refused, NotTaken, OutcomeUnknown."""
        to = {"email": "@".join(mailbox_and_domain(message.address))} | (
            {"name": message.name} if message.name else {}
        )
        content = message.content
        answer = await post(
            self._client,
            "v3/mail/send",
            json={
                "personalizations": [{"to": [to]}],
                "from": {"email": self._sender.address, "name": self._sender.name},
                "subject": content.subject,
                "content": [
                    {"type": "text/plain", "value": content.text},
                    {"type": "text/html", "value": content.html},
                ],
                "headers": {
                    "Message-ID": self._sender.message_id(message.notification_id),
                    "Auto-Submitted": "auto-generated",
                },
                "custom_args": {"notification_id": str(message.notification_id)},
                # Our links are to be ours: a token in one is nobody else's business.
                "tracking_settings": {"click_tracking": {"enable": False}},
            },
        )
        if not answer.is_success:
            raise Refused(str(answer.status))
