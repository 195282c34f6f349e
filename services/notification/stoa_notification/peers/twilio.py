"""SMS by Twilio (https://www.twilio.com/docs/messaging/api/message-resource).

Twilio has no idempotency key for messages, and a phone does not know a repetition: a message whose outcome is
not known is not given again.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Self

import aiohttp

from stoa_notification.peers.http import post, session
from stoa_notification.ports import Message, Refused

_GONE = {
    21211,  # no number
    21610,  # who has answered STOP
    21614,  # no mobile number
}


class Twilio:
    """Twilio's Messages resource."""

    name = "twilio"
    repeatable = False

    def __init__(self, client: aiohttp.ClientSession, account_sid: str, from_: str) -> None:
        self._client = client
        self._path = f"2010-04-01/Accounts/{account_sid}/Messages.json"
        self._from = from_

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, url: str, account_sid: str, auth_token: str, from_: str, attempt: timedelta
    ) -> AsyncIterator[Self]:
        """Keep connections to Twilio; `from_` is a number of the account, or a messaging service (MG…)."""
        async with session(
            url, attempt, {"authorization": aiohttp.encode_basic_auth(account_sid, auth_token)}
        ) as client:
            yield cls(client, account_sid, from_)

    async def send(self, message: Message) -> None:
        """Give an SMS to Twilio. Raises Refused, NotTaken, OutcomeUnknown."""
        sender = "MessagingServiceSid" if self._from.startswith("MG") else "From"
        form = {"To": message.address, sender: self._from, "Body": message.content.short}
        answer = await post(self._client, self._path, data=form)
        if not answer.is_success:
            code = answer.body.get("code", answer.status)
            raise Refused(str(code), address_is_gone=code in _GONE)
