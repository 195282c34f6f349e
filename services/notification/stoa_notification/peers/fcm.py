"""Push messages by Firebase Cloud Messaging, HTTP v1
(https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages/send).

A message carries its notification's id as the tag by which a device shows a repetition in the place of the
first one. The access token comes from a service account (RFC 7523).
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Self

import aiohttp
import jwt
from pydantic import BaseModel, Field

from stoa_notification.peers.http import post, session
from stoa_notification.ports import Message, NotTaken, OutcomeUnknown, Refused

_SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_SECONDS = 3600
_RENEWED_BEFORE = 60  # seconds
_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"


class ServiceAccount(BaseModel):
    """A service account's key file, as the console gives it out."""

    project_id: str
    client_email: str
    private_key: str = Field(repr=False)
    token_uri: str = "https://oauth2.googleapis.com/token"


class Fcm:
    """Firebase Cloud Messaging of one project."""

    name = "fcm"
    repeatable = True

    def __init__(self, client: aiohttp.ClientSession, account: ServiceAccount) -> None:
        self._client = client
        self._account = account
        self._token = ""
        self._token_until = 0.0
        self._renewing = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str, service_account: str, attempt: timedelta) -> AsyncIterator[Self]:
        """Keep connections to FCM; `service_account` is the JSON of a key file. Raises ValidationError."""
        account = ServiceAccount.model_validate_json(service_account)
        async with session(url, attempt) as client:
            yield cls(client, account)

    async def send(self, message: Message) -> None:
        """Give a push message to FCM. Raises Refused, NotTaken, OutcomeUnknown."""
        answer = await post(
            self._client,
            f"v1/projects/{self._account.project_id}/messages:send",
            headers={"authorization": f"Bearer {await self._access_token()}"},
            json={"message": _message(message)},
        )
        if answer.status == HTTPStatus.UNAUTHORIZED:
            self._token_until = 0.0
            raise NotTaken("UNAUTHENTICATED")
        if not answer.is_success:
            code = _code(answer.body)
            raise Refused(code, address_is_gone=code == "UNREGISTERED")

    async def _access_token(self) -> str:
        async with self._renewing:
            now = time.time()
            if now >= self._token_until:
                claims = {
                    "iss": self._account.client_email,
                    "scope": _SCOPE,
                    "aud": self._account.token_uri,
                    "iat": int(now),
                    "exp": int(now) + _SECONDS,
                }
                assertion = jwt.encode(claims, self._account.private_key, "RS256")
                form = {"grant_type": _GRANT, "assertion": assertion}
                try:
                    answer = await post(self._client, self._account.token_uri, data=form)
                except OutcomeUnknown as error:  # of the token; the message was not given
                    raise NotTaken(str(error)) from None
                if not answer.is_success or "access_token" not in answer.body:
                    raise NotTaken(f"no access token: {answer.status}")
                self._token = answer.body["access_token"]
                self._token_until = now + answer.body.get("expires_in", _SECONDS) - _RENEWED_BEFORE
            return self._token


def _message(message: Message) -> dict[str, Any]:
    tag = str(message.notification_id)
    return {
        "token": message.address,
        "notification": {"title": message.content.subject, "body": message.content.short},
        "data": {"link": message.content.link, "notification_id": tag},
        "android": {"notification": {"tag": tag}},
        "apns": {"headers": {"apns-collapse-id": tag}},
        "webpush": {"notification": {"tag": tag}},
    }


def _code(body: dict[str, Any]) -> str:
    """The code of an error: FCM's own if it says one, else that of Google's APIs."""
    error = body.get("error", {})
    for detail in error.get("details", ()):
        if detail.get("@type") == _ERROR:
            return str(detail["errorCode"])
    return str(error.get("status", "UNKNOWN"))
