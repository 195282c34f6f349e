"""Carts, and what variants cost, in Redis.

`cart:{user_id}` holds a cart as JSON for 30 days after its last use. A change is a compare-and-set: a Lua
script writes the new cart only if the old one is still there, so that two tabs at once lose nothing. The same
script adds the events of the change to the outbox, and notes the event that caused it in
`cart:inbox:{event_id}`, so all of it happens or none. `cart:prices` holds what variants cost now. The keys of
the script lie in different slots, so the store is one primary (and its replicas), not a Redis Cluster.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, cast
from uuid import UUID

import orjson
from redis.asyncio import Redis

from stoa_cart.model import Cart, CartBusy, Item
from stoa_chassis.avro import Event
from stoa_chassis.inbox import AlreadyProcessed
from stoa_chassis.redis_outbox import LUA_PUBLISH, RedisOutbox
from stoa_contracts.events import Payload
from stoa_contracts.money import Money

OUTBOX = "cart:outbox"
"""The stream of events that wait to be published."""
_PRICES = "cart:prices"
_LIFETIME = timedelta(days=30)
_TRIES = 12
_PAUSES = (0.005, 0.2)  # seconds: after the first lost race, and at most
# Carts that are in use are read again and again, with the same ids and prices: most of the work of reading.
_uuid = lru_cache(maxsize=10_000)(UUID)

# The client sends a script again if the connection broke before the answer came: it then finds its own cart,
# and must not add the events a second time.
_SAVE = (
    LUA_PUBLISH
    + """
local cart, outbox, inbox = KEYS[1], KEYS[2], KEYS[3]
local expected, changed, lifetime = ARGV[1], ARGV[2], ARGV[3]
if inbox and redis.call('EXISTS', inbox) == 1 then return 'processed' end
local current = redis.call('GET', cart) or ''
if current ~= expected then return current == changed and 'saved' or 'conflict' end
if changed ~= '' then redis.call('SET', cart, changed, 'EX', lifetime) end
if inbox then redis.call('SET', inbox, '', 'EX', lifetime) end
publish(outbox, 4)
return 'saved'
"""
)

# Products are created, updated and deleted on three topics, whose events may overtake each other.
_LEARN = """
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known and cjson.decode(known).version >= tonumber(ARGV[2]) then return 0 end
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
"""


class CartStore:
    """The carts of all users."""

    def __init__(self, redis: Redis, outbox: RedisOutbox) -> None:
        self._redis = redis
        self._outbox = outbox
        self._save = redis.register_script(_SAVE)

    async def get(self, user_id: UUID) -> Cart:
        """Return a user's cart, an empty one if there is none. Using it renews its life."""
        return _cart(user_id, await self._read(user_id))

    async def change(
        self,
        user_id: UUID,
        decide: Callable[[Cart], Awaitable[None]],
        consuming: Event[Payload] | None = None,
    ) -> Cart:
        """Load a cart, let `decide` change it, store it; again from the start if somebody else was faster.

        `consuming` is the event that causes the change. Nothing is written if there is nothing to note.

        Raises:
            AlreadyProcessed: the event took effect before.
            CartBusy: somebody else was faster again and again.
        """
        pause, longest_pause = _PAUSES
        for _ in range(_TRIES):
            stored = await self._read(user_id)
            cart = _cart(user_id, stored)
            await decide(cart)
            changed = _json(cart) if cart.items or stored else b""
            if changed == stored and consuming is None:
                return cart
            outcome = await self._compare_and_set(cart, stored, changed, consuming)
            if outcome == b"saved":
                return cart
            if outcome == b"processed":
                raise AlreadyProcessed(f"{consuming}")
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 2, longest_pause)
        raise CartBusy("others keep changing the cart, try again")

    async def clear(self, user_id: UUID) -> None:
        """Forget a user's cart."""
        await self._redis.delete(_key(user_id))

    async def _read(self, user_id: UUID) -> bytes:
        stored: Any = await self._redis.getex(_key(user_id), ex=_LIFETIME)
        return cast(bytes, stored or b"")

    async def _compare_and_set(
        self, cart: Cart, expected: bytes, changed: bytes, consuming: Event[Payload] | None
    ) -> bytes:
        keys = [_key(cart.user_id), self._outbox.stream]
        if consuming is not None:
            keys.append(f"cart:inbox:{consuming.event_id}")
        events = self._outbox.arguments(cart.events)
        arguments = [expected, changed, int(_LIFETIME.total_seconds()), *events]
        return cast(bytes, await self._save(keys=keys, args=arguments))


class PriceBook:
    """What variants cost now: the catalogue's prices, as its events tell them.

    It is kept by product, with the product's version, so that an event that comes late does not bring an old
    price back, and neither does one that comes after the deletion.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._learn = redis.register_script(_LEARN)

    async def of(self, product_ids: Iterable[UUID]) -> Mapping[UUID, Money]:
        """Return the prices of all variants of these products that are on sale and known, by variant."""
        wanted = [str(product_id) for product_id in product_ids]
        if not wanted:
            return {}
        stored = await cast(Awaitable[list[bytes | None]], self._redis.hmget(_PRICES, wanted))
        return {
            _uuid(variant_id): _money(price["amount"], price["currency_code"])
            for record in stored
            if record is not None
            for variant_id, price in orjson.loads(record)["prices"].items()
        }

    async def learn(self, product_id: UUID, version: int, prices: Mapping[UUID, Money]) -> None:
        """Note the prices that a version of a product has, by variant, unless a later version is known."""
        record = {
            "version": version,
            "prices": {str(variant_id): _money_fields(price) for variant_id, price in prices.items()},
        }
        await self._learn(keys=[_PRICES], args=[str(product_id), version, orjson.dumps(record)])


def _key(user_id: UUID) -> str:
    return f"cart:{user_id}"


def _json(cart: Cart) -> bytes:
    return orjson.dumps(
        {
            "user_id": cart.user_id,
            "items": [
                {
                    "item_id": item.item_id,
                    "product_id": item.product_id,
                    "variant_id": item.variant_id,
                    "quantity": item.quantity,
                    "price": _money_fields(item.price),
                }
                for item in cart.items
            ],
            "updated_at": cart.updated_at,
        }
    )


def _cart(user_id: UUID, stored: bytes) -> Cart:
    if not stored:
        return Cart(user_id)
    record = orjson.loads(stored)
    return Cart(
        user_id,
        [
            Item(
                _uuid(item["item_id"]),
                _uuid(item["product_id"]),
                _uuid(item["variant_id"]),
                item["quantity"],
                _money(item["price"]["amount"], item["price"]["currency_code"]),
            )
            for item in record["items"]
        ],
        datetime.fromisoformat(record["updated_at"]),
    )


def _money_fields(money: Money) -> dict[str, str]:
    return {"currency_code": money.currency, "amount": str(money.amount)}


@lru_cache(maxsize=10_000)
def _money(amount: str, currency: str) -> Money:
    return Money(Decimal(amount), currency)
