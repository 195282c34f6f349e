"""A company outside, over HTTP: what its answers and its silence mean, and whether it signed a notice.

A request to a company ends in an answer, or in not knowing: then what was asked for may have been carried out
or not, and the adapter of a service asks again in a way that bears it. This module only tells the two apart.
"""

import hashlib
import hmac
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

import aiohttp
import orjson

from stoa_chassis.breaker import Breaker
from stoa_chassis.errors import RemoteError
from stoa_chassis.telemetry import get_logger

_log = get_logger(__name__)
_SIGNATURE_TOLERANCE = timedelta(minutes=5)


class Answer(NamedTuple):
    """What a company answered."""

    status: int
    body: bytes


@asynccontextmanager
async def http_session(
    url: str, request_timeout: timedelta, headers: Mapping[str, str] | None = None, *, connections: int = 100
) -> AsyncIterator[aiohttp.ClientSession]:
    """Keep connections to a company whose paths begin with `url`.

    A request may take up to `request_timeout`.
    """
    async with aiohttp.ClientSession(
        base_url=f"{url.rstrip('/')}/",
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=request_timeout.total_seconds()),
        connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=60),
        cookie_jar=aiohttp.DummyCookieJar(),
        json_serialize_bytes=orjson.dumps,
    ) as client:
        yield client


class Company:
    """Requests to one company, behind a circuit breaker.

    2xx, and what a caller expects beside it, are answers; all else is none.
    """

    def __init__(self, name: str, client: aiohttp.ClientSession, no_answer: type[Exception]) -> None:
        """`no_answer` is raised when it is not known what became of a request."""
        self._name = name
        self._client = client
        self._no_answer = no_answer
        self._breaker = Breaker(name)

    async def send(
        self,
        method: Literal["GET", "POST", "PUT", "DELETE"],
        path: str,
        *expected: int,
        probes: bool = True,
        **content: Any,
    ) -> Answer:
        """Send a request; `probes` as `Breaker.enter` has it.

        Raises the exception that stands for no answer unless it is answered with 2xx or a status that is
        `expected`.
        """
        try:
            self._breaker.enter(path, probes=probes)
        except RemoteError as error:
            raise self._no_answer(f"{self._name} has not answered for a while") from error
        try:
            async with self._client.request(method, path, allow_redirects=False, **content) as response:
                answer = Answer(response.status, await response.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            self._breaker.failed()
            raise self._no_answer(f"{method} {path}: {type(error).__name__} {error}") from error
        except BaseException:
            self._breaker.abandoned()
            raise
        if answer.status >= 500:
            self._breaker.failed()
            raise self._no_answer(f"{method} {path}: {answer.status}")
        self._breaker.succeeded()
        if not 200 <= answer.status < 300 and answer.status not in expected:
            # Not an outcome but a mistake, ours or theirs: what was asked for is still to be done. The answer
            # may quote what we sent, which is about a person.
            _log.error("a company refuses a request", company=self._name, path=path, status=answer.status)
            raise self._no_answer(f"{method} {path}: {answer.status}")
        return answer


def check_signature(signature: str, body: bytes, secret: str, now: datetime) -> None:
    """Check that whoever has the secret signed a notice, not long ago, in the manner of Stripe's.

    The signature is `t=…,v1=…`: a time, and an HMAC-SHA256 over it, a dot and the body. Raises ValueError,
    which says what is wrong.
    """
    parts = dict(part.split("=", 1) for part in signature.split(",") if "=" in part)
    timestamp, given = parts.get("t", ""), parts.get("v1", "")
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12):
        raise ValueError("the notice is not signed")
    signed = timestamp.encode() + b"." + body
    expected = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected.encode(), given.encode()):
        raise ValueError("the notice was not signed by who should have")
    check_age(int(timestamp), now)


def check_age(signed_at: int, now: datetime) -> None:
    """Check that a notice was signed just now: an old one may be sent again. Raises ValueError.

    `signed_at` is in Unix time.
    """
    if abs(now.timestamp() - signed_at) > _SIGNATURE_TOLERANCE.total_seconds():
        raise ValueError("the notice was signed too long ago")
