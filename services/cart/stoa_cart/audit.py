"""The books of the cart service as the audit reads them."""

from collections.abc import Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

import orjson
from redis.asyncio import Redis

from stoa_events import OrderCancelled, OrderConfirmed, OrderPlaced

# Products are taken by their version, without an inbox.
NOTED = (OrderPlaced.TOPIC, OrderConfirmed.TOPIC, OrderCancelled.TOPIC)

_BATCH = 1000
# What a user id is made of: the other keys of the service are not carts.
_CARTS = f"cart:{'[0-9a-f]' * 8}-*"


@dataclass(frozen=True, slots=True)
class Claim:
    """What the cart of a user knows of an order, and in which state it takes it to be."""

    user_id: UUID
    order_id: UUID
    state: str


@dataclass(frozen=True, slots=True)
class Books:
    """The claims of all carts."""

    claims: Sequence[Claim]


async def read(redis: Redis) -> Books:
    """Read the books, cart by cart. An account that may only read is enough."""
    claims: list[Claim] = []
    cursor = 0
    while True:
        cursor, keys = await redis.scan(cursor, match=_CARTS, count=_BATCH)
        if keys:
            stored = await cast(Awaitable[list[bytes | None]], redis.mget(keys))
            claims += [claim for record in stored if record for claim in _claims(orjson.loads(record))]
        if not cursor:
            return Books(claims)


def _claims(cart: Mapping[str, Any]) -> Iterator[Claim]:
    for claim in cart.get("claims", ()):
        yield Claim(UUID(cart["user_id"]), UUID(claim["order_id"]), claim["state"])
