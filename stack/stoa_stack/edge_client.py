"""A client of the shop's REST API, for the programs of the stack that act as staff or as a shopper."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, urlencode

import httpx

_TRIES = 8
_LONGEST_PAUSE = 5.0  # seconds, unless the server asks for more
_PATIENCE = 30.0  # seconds: longer than this nobody is told to wait here


@dataclass(frozen=True)
class Answer:
    """A successful answer, and what it took."""

    body: Any
    status: int
    request_id: str
    milliseconds: float


class Refused(Exception):
    """An answer other than 2xx. `reason` and `fields` come from the details of its google.rpc.Status."""

    def __init__(self, response: httpx.Response, milliseconds: float = 0) -> None:
        try:
            body = response.json()
        except ValueError:
            body = {}
        status: dict[str, Any] = body if isinstance(body, dict) else {}
        details: list[dict[str, Any]] = status.get("details", [])
        self.status = response.status_code
        self.request_id = response.headers.get("x-request-id", "")
        self.milliseconds = milliseconds
        self.message = str(status.get("message") or response.reason_phrase)
        self.reason = next((str(detail["reason"]) for detail in details if "reason" in detail), "")
        self.fields = [
            str(violation.get("field", ""))
            for detail in details
            for violation in detail.get("field_violations") or detail.get("fieldViolations") or ()
        ]
        self.retry_after = _retry_after(response, details)
        request = response.request
        super().__init__(f"{request.method} {request.url.path}: {self.status} {self.reason} {self.message}")


@dataclass(frozen=True)
class EdgeClient:
    """Calls the API, as whoever the access token proves. What is shed or down for now is tried again."""

    http: httpx.AsyncClient
    access_token: str = field(default="", repr=False)
    user_id: str = ""
    tries: int = _TRIES

    async def sign_in(self, email: str, password: str) -> EdgeClient:
        """Return a client that is signed in. Raises Refused."""
        tokens = await self.call("POST", "/api/v1/auth/login", {"email": email, "password": password})
        token = tokens.body["access_token"]
        # Not verified: whoever gave us the token over this connection could tell us anything else as well.
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        return replace(self, access_token=token, user_id=claims["sub"])

    async def call(self, method: str, path: str, body: Any = None, **query: Any) -> Answer:
        """Send a request until it is answered. Raises Refused, or httpx.TransportError if nobody answers."""
        headers = {"authorization": f"Bearer {self.access_token}"} if self.access_token else {}
        pause = 0.1
        for last in [False] * (self.tries - 1) + [True]:
            wait = pause * random.uniform(0.5, 1)
            began = time.perf_counter()
            try:
                response = await self.http.request(
                    method, with_query(path, query), json=body, headers=headers
                )
            except httpx.TransportError:
                if last:
                    raise
            else:
                milliseconds = (time.perf_counter() - began) * 1000
                if response.is_success:
                    return Answer(
                        response.json() if response.content else None,
                        response.status_code,
                        response.headers.get("x-request-id", ""),
                        milliseconds,
                    )
                refused = Refused(response, milliseconds)
                if last or refused.status not in (429, 503) or refused.retry_after > _PATIENCE:
                    raise refused
                wait = max(wait, refused.retry_after)
            await asyncio.sleep(wait)
            pause = min(pause * 2, _LONGEST_PAUSE)
        raise AssertionError("the loop returns or raises")


def with_query(path: str, query: Mapping[str, Any]) -> str:
    """Return a path with query parameters."""
    return f"{path}?{urlencode(query, quote_via=quote)}" if query else path


def _retry_after(response: httpx.Response, details: list[dict[str, Any]]) -> float:
    """Return for how many seconds we are asked to wait: by RetryInfo, else by the header, else 0."""
    delays = [str(d.get("retry_delay") or d.get("retryDelay") or "") for d in details]
    for text in (*delays, response.headers.get("retry-after", "")):
        try:
            return float(text.removesuffix("s"))
        except ValueError:
            continue
    return 0.0
