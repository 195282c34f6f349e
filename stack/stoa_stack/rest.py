"""A client of the shop's REST API, for programs that act as staff or as a shopper.

The operations and their types are generated (`stoa_rest`); here is how a request travels: as whom, how often
it is tried, and what is raised when it is refused. The SDK for partners will take its place.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import httpx

from stoa_rest import Operation, Operations, Tokens

_TRIES = 8
_TRY_AGAIN = (429, 503)
_LONGEST_PAUSE = 5.0  # seconds, unless the server asks for more
_LONGEST_WAIT = 30.0  # seconds: if the shop asks to wait for longer, the request is given up


@dataclass(frozen=True)
class Answer:
    """A successful answer, and what it took."""

    body: Any
    status: int
    request_id: str
    milliseconds: float


class ApiError(Exception):
    """An answer other than 2xx: the HTTP status, and what its google.rpc.Status says.

    `reason` and `metadata` are those of the ErrorInfo, `violations` say by field what is wrong with the
    request, `retry_after` is in seconds, 0 if trying again is not suggested.
    """

    def __init__(self, response: httpx.Response, milliseconds: float = 0) -> None:
        try:
            body = response.json()
        except ValueError:
            body = {}
        status: dict[str, Any] = body if isinstance(body, dict) else {}
        details: list[dict[str, Any]] = status.get("details", [])
        self.status = response.status_code
        self.request_id: str = response.headers.get("x-request-id", "")
        self.milliseconds = milliseconds
        self.message = str(status.get("message") or response.reason_phrase)
        self.reason = next((str(detail["reason"]) for detail in details if "reason" in detail), "")
        self.metadata: dict[str, str] = next((d["metadata"] for d in details if "metadata" in d), {})
        self.violations: dict[str, str] = {
            str(violation.get("field", "")): str(violation.get("description", ""))
            for detail in details
            for violation in detail.get("field_violations") or detail.get("fieldViolations") or ()
        }
        self.retry_after = _retry_after(response, details)
        what = f"{response.request.method} {response.request.url.path}"
        wrong = "".join(f"; {field}: {why}" for field, why in self.violations.items())
        super().__init__(f"{what}: {self.status} {self.reason} {self.message}{wrong}")


class Client(Operations):
    """Somebody at the edge, signed in or not.

    What is shed or down for now is tried again, until there were `tries`.
    """

    def __init__(
        self, http: httpx.AsyncClient, *, tries: int = _TRIES, headers: Mapping[str, str] | None = None
    ) -> None:
        self.http = http
        self.user_id = ""
        self.access_token = ""
        self.refresh_token = ""
        self._tries = tries
        self._headers = dict(headers or {})
        self._account = ("", "")
        self._renew_at = math.inf  # by time.monotonic()

    async def sign_in(self, email: str, password: str) -> Self:
        """Sign in, and again before the access token expires. Raises ApiError."""
        anyone = copy.copy(self)
        anyone.access_token, anyone._renew_at = "", math.inf  # a token that expired would be refused
        tokens = await anyone.login(email=email, password=password)
        self.use(tokens)
        self._account = email, password
        self._renew_at = time.monotonic() + tokens["expires_in"] / 2
        return self

    async def renew(self) -> None:
        """Sign in again with the same email and password. Raises ApiError."""
        renew_at, self._renew_at = self._renew_at, math.inf  # others go on with the old token meanwhile
        try:
            await self.sign_in(*self._account)
        except BaseException:
            self._renew_at = renew_at
            raise

    @property
    def email(self) -> str:
        """What it signed in with; empty if it did not."""
        return self._account[0]

    def use(self, tokens: Tokens) -> None:
        """Send later requests with these tokens."""
        self.access_token, self.refresh_token = tokens["access_token"], tokens["refresh_token"]
        # Not verified: whoever gave us the token over this connection could tell us anything else as well.
        claims = json.loads(base64.urlsafe_b64decode(self.access_token.split(".")[1] + "=="))
        self.user_id = claims["sub"]

    async def call(self, operation: Operation, target: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send a request and return the JSON of its answer, or a file's bytes; see `exchange`."""
        return (await self.exchange(operation, target, body)).body

    async def exchange(
        self, operation: Operation, target: str, body: Mapping[str, Any] | None = None
    ) -> Answer:
        """Send a request until it is answered. Raises ApiError, or httpx.TransportError if nobody answers."""
        pause = 0.1
        for left in reversed(range(self._tries)):
            wait = pause * random.uniform(0.5, 1)
            try:
                return await self.attempt(operation, target, body)
            except httpx.TransportError:
                if not left:
                    raise
            except ApiError as error:
                if not left or error.status not in _TRY_AGAIN or error.retry_after > _LONGEST_WAIT:
                    raise
                wait = max(wait, error.retry_after)
            await asyncio.sleep(wait)
            pause = min(pause * 2, _LONGEST_PAUSE)
        raise AssertionError("the loop returns or raises")

    async def attempt(
        self, operation: Operation, target: str, body: Mapping[str, Any] | None = None
    ) -> Answer:
        """Send a request once. Raises ApiError, or httpx.TransportError if nobody answers."""
        began = time.perf_counter()
        response = await self.send(operation.method, target, json=body)
        milliseconds = (time.perf_counter() - began) * 1000
        if not response.is_success:
            raise ApiError(response, milliseconds)
        return Answer(
            _body(response),
            response.status_code,
            response.headers.get("x-request-id", ""),
            milliseconds,
        )

    async def send(
        self, method: str, target: str, *, headers: Mapping[str, str] | None = None, **content: Any
    ) -> httpx.Response:
        """Send anything once, and return whatever comes back; `content` as httpx takes it (json, content)."""
        if time.monotonic() > self._renew_at:
            await self.renew()
        token = {"authorization": f"Bearer {self.access_token}"} if self.access_token else {}
        return await self.http.request(
            method, target, headers={**token, **self._headers, **(headers or {})}, **content
        )


def _body(response: httpx.Response) -> Any:
    if not response.content:
        return None
    is_json = response.headers.get("content-type", "").startswith("application/json")
    return response.json() if is_json else response.content


def _retry_after(response: httpx.Response, details: list[dict[str, Any]]) -> float:
    """Return for how many seconds we are asked to wait: by RetryInfo, else by the header, else 0."""
    delays = [str(d.get("retry_delay") or d.get("retryDelay") or "") for d in details]
    for text in (*delays, response.headers.get("retry-after", "")):
        try:
            return float(text.removesuffix("s"))
        except ValueError:
            continue
    return 0.0
