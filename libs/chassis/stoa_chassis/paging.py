"""Pages of a list (AIP-158): opaque tokens that carry where the next page starts.

A token is signed, so what comes back is what a list gave out: a cursor can be used in a query without a
second check, and one that was made up, or taken from a list with other filters, is the caller's error.
"""

import base64
import binascii
import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from typing import Any, Generic, Protocol, TypeVar

import orjson

from stoa_chassis.errors import InvalidArgument
from stoa_chassis.settings import MongoSettings, OpenSearchSettings, PostgresSettings, RedisSettings

DEFAULT_PAGE_SIZE = 20
MAX_PAGE_SIZE = 100
_MAC_BYTES = 16


T = TypeVar("T")


class PageTokenKeyMissing(Exception):
    """Nothing is set that page tokens could be signed with."""


class PageRequest(Protocol):
    """A request for a page of a list (AIP-158)."""

    @property
    def page_size(self) -> int:
        """How many at most; 0 for the default."""
        ...

    @property
    def page_token(self) -> str:
        """What the page before answered; "" for the first page."""
        ...


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items of a list, and what asks for those after them: "" if there are none."""

    items: Sequence[T]
    next_page_token: str


async def page(
    request: PageRequest,
    filters: Mapping[str, Any],
    read: Callable[[Mapping[str, Any], int], Awaitable[Sequence[T]]],
    cursor: Callable[[T], Mapping[str, Any]],
) -> Page[T]:
    """Answer a request for a page of the list that `filters` select.

    `read(after, limit)` returns the items after a cursor, an empty one at first; `cursor(item)` makes the one
    of an item. One item more than asked for is read, to see if there is a next page. Raises InvalidArgument
    for a token that this list did not give out, or a negative size.
    """
    # Two lists of a service may have the same filters, and cursors that the other would misread.
    filters = {**filters, "list": type(request).__name__}
    after = decode_token(request.page_token, filters)
    size = page_size(request.page_size)
    items = await read(after, size + 1)
    more = len(items) > size
    return Page(items[:size], encode_token(cursor(items[size - 1]), filters) if more else "")


def page_size(requested: int) -> int:
    """Return how many items to answer: 0 means the default (20), more than 100 is cut to 100.

    Raises InvalidArgument if it is negative.
    """
    if requested < 0:
        raise InvalidArgument("page_size", "must not be negative")
    return min(requested or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def encode_token(cursor: Mapping[str, Any], filters: Mapping[str, Any]) -> str:
    """Return the token of the page that starts after `cursor`, for the list that `filters` select.

    Values that JSON does not have (ids, times, decimals) come back from `decode_token` as their text.
    """
    body = orjson.dumps([cursor, _fingerprint(filters)], default=str)
    return base64.urlsafe_b64encode(_mac(body) + body).rstrip(b"=").decode()


def decode_token(token: str, filters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cursor of a token; an empty token is the first page and gives an empty cursor.

    Raises InvalidArgument (page_token) for a token that no list gave out, or one with other filters.
    """
    if not token:
        return {}
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(body)):
        raise InvalidArgument("page_token", "is not a token that this list gave out")
    cursor, fingerprint = orjson.loads(body)
    if fingerprint != _fingerprint(filters):
        raise InvalidArgument("page_token", "belongs to a list with other filters")
    return dict(cursor)


def check_key() -> None:
    """Make sure that there is something to sign tokens with. Raises PageTokenKeyMissing."""
    _key()


def _fingerprint(filters: Mapping[str, Any]) -> str:
    canonical = orjson.dumps(filters, default=str, option=orjson.OPT_SORT_KEYS)
    return blake2b(canonical, digest_size=12).hexdigest()


def _mac(body: bytes) -> bytes:
    return blake2b(body, key=_key(), digest_size=_MAC_BYTES).digest()


class _Settings(PostgresSettings, MongoSettings, RedisSettings, OpenSearchSettings):
    """The addresses of all stores, of which a service has its own."""


@cache
def _key() -> bytes:
    """Return the key that all instances of a service share and no client knows.

    Unless one is set it comes from the address of the store, which holds a password and is the same for all.
    Where it holds none, a service declares `page_token_key` as a secret. Raises PageTokenKeyMissing.
    """
    settings = _Settings()
    addresses = settings.database_url, settings.mongo_url, settings.redis_url, settings.opensearch_url
    secret = settings.page_token_key or next(filter(None, addresses), "")
    if not secret:  # with what everybody knows, everybody could sign
        raise PageTokenKeyMissing(
            "STOA_PAGE_TOKEN_KEY is not set, nor is the address of a store: one of them signs the page"
            " tokens of a service with lists"
        )
    return blake2b(secret.encode(), person=b"page-token").digest()
