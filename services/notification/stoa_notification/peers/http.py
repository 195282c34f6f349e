"""What the providers with an HTTP API have in common: how a request ends."""

from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple

import aiohttp
import orjson

from stoa_chassis.company import http_session
from stoa_notification.ports import NotTaken, OutcomeUnknown

_NOT_TAKEN = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


class Answer(NamedTuple):
    """What a provider answered: neither for now nor for want of an outcome."""

    status: int
    body: Any

    @property
    def is_success(self) -> bool:
        """Whether the request was carried out."""
        return self.status < HTTPStatus.BAD_REQUEST


session = partial(http_session, connections=20)  # no more is delivered at once


async def post(client: aiohttp.ClientSession, path: str, **body: Any) -> Answer:
    """Ask a provider for something.

    Raises NotTaken if it was not reached or says that it is too busy, OutcomeUnknown if it did not answer or
    answered that it failed.
    """
    try:
        async with client.post(path, **body) as answer:
            status, raw = answer.status, await answer.read()
    except aiohttp.ClientConnectorError as error:
        raise NotTaken(type(error).__name__) from None
    except (aiohttp.ClientError, TimeoutError) as error:
        raise OutcomeUnknown(type(error).__name__) from None
    if status in _NOT_TAKEN:
        raise NotTaken(str(status))
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise OutcomeUnknown(str(status))
    return Answer(status, _json(raw))


def _json(raw: bytes) -> Any:
    try:
        return orjson.loads(raw) if raw else {}
    except orjson.JSONDecodeError:
        return {}
