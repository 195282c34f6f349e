"""Carts, and what variants cost, in Redis.

`cart:{user_id}` holds a cart as JSON for 30 days after its last use. A change is a compare-and-set: a Lua
script writes the new cart only if the old one is still there, so that two tabs at once lose nothing. The same
script adds the events of the change to the outbox, and notes the event that caused it (`cart:inbox:{event_id}`),
so all of it happens or none. Its keys lie in different slots: Redis Cluster would need one outbox per slot.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import orjson
from redis.asyncio import Redis

from stoa_cart.model import Cart, CartBusy, Line
from stoa_chassis.avro import Event, EventCodec
from stoa_chassis.clock import Clock
from stoa_chassis.inbox import AlreadyProcessed
from stoa_chassis.money import Money
from stoa_chassis.redis_outbox import PUBLISH, publish_arguments
from stoa_events import Payload

OUTBOX = "cart:outbox"
_PRICES = "cart:prices"
_LIFETIME = timedelta(days=30)
_TRIES = 12
_PAUSES = (0.005, 0.2)  # seconds: after the first lost race, and at most

# A call whose answer got lost is made again by the client: it then finds its own cart, and is content.
_SAVE = (
    PUBLISH
    + """
if KEYS[3] and redis.call('EXISTS', KEYS[3]) == 1 then return 'processed' end
local now = redis.call('GET', KEYS[1]) or ''
if now ~= ARGV[1] then
  if now == ARGV[2] then return 'saved' end
  return 'changed'
end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
if KEYS[3] then redis.call('SET', KEYS[3], '', 'EX', ARGV[3]) end
publish(KEYS[2], 4)
return 'saved'
"""
)

_LEARN = """
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known and cjson.decode(known).version >= tonumber(ARGV[2]) then return 0 end
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
"""


class CartStore:
    """The carts of all users."""

    def __init__(self, redis: Redis, codec: EventCodec, clock: Clock) -> None:
        self._redis = redis
        self._codec = codec
        self._clock = clock
        self._save = redis.register_script(_SAVE)

    async def get(self, user_id: UUID) -> Cart:
        """Return a user's cart, an empty one if there is none, and let it live on."""
        return _cart(user_id, await self._read(user_id))

    async def change(
        self,
        user_id: UUID,
        decide: Callable[[Cart], Awaitable[None]],
        consuming: Event[Payload] | None = None,
    ) -> Cart:
        """Load a cart, let `decide` change it, store it; again from the start if somebody else was faster.

        `consuming` is the event that causes the change. Raises AlreadyProcessed if it did so before, and
        CartBusy if the cart is changed by others all the time.
        """
        for lost in range(_TRIES):
            old = await self._read(user_id)
            cart = _cart(user_id, old)
            await decide(cart)
            new = _json(cart) if cart.lines or old else b""
            if new == old and not consuming:
                return cart
            outcome = await self._compare_and_set(cart, old, new, consuming)
            if outcome == b"saved":
                return cart
            if outcome == b"processed":
                raise AlreadyProcessed(f"{user_id}: {consuming}")
            first, longest = _PAUSES
            await asyncio.sleep(min(first * 2**lost, longest) * random.uniform(0.5, 1.5))
        raise CartBusy("the cart is being changed by others, please try again")

    async def clear(self, user_id: UUID) -> None:
        """Forget a user's cart."""
        await self._redis.delete(_key(user_id))

    async def _read(self, user_id: UUID) -> bytes:
        stored: Any = await self._redis.getex(_key(user_id), ex=_LIFETIME)
        return cast(bytes, stored or b"")

    async def _compare_and_set(
        self, cart: Cart, old: bytes, new: bytes, consuming: Event[Payload] | None
    ) -> bytes:
        keys = [_key(cart.user_id), OUTBOX]
        if consuming is not None:
            keys.append(f"cart:inbox:{consuming.event_id}")
        arguments: list[Any] = [old, new, int(_LIFETIME.total_seconds())]
        arguments += publish_arguments(cart.events, self._codec, self._clock)
        return cast(bytes, await self._save(keys=keys, args=arguments))


class PriceBook:
    """What variants cost now: a copy of the catalogue's prices that its events keep up to date."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._learn = redis.register_script(_LEARN)

    async def of(self, product_ids: Iterable[UUID]) -> Mapping[UUID, Mapping[UUID, Money]]:
        """Return the prices of all variants on sale of these products, but for products not heard of."""
        wanted = list(product_ids)
        stored = await cast(Any, self._redis.hmget(_PRICES, [str(product_id) for product_id in wanted]))
        return {
            product_id: {
                UUID(variant): _money(price) for variant, price in orjson.loads(raw)["prices"].items()
            }
            for product_id, raw in zip(wanted, stored, strict=True)
            if raw is not None
        }

    async def learn(self, product_id: UUID, version: int, prices: Mapping[UUID, Money]) -> None:
        """Note the prices that a version of a product has, unless a later version is known."""
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
                    "item_id": line.item_id,
                    "product_id": line.product_id,
                    "variant_id": line.variant_id,
                    "quantity": line.quantity,
                    "price": _money_fields(line.price),
                }
                for line in cart.lines
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
            Line(
                UUID(item["item_id"]),
                UUID(item["product_id"]),
                UUID(item["variant_id"]),
                item["quantity"],
                _money(item["price"]),
            )
            for item in record["items"]
        ],
        datetime.fromisoformat(record["updated_at"]),
    )


def _money_fields(money: Money) -> dict[str, str]:
    return {"currency_code": money.currency, "amount": str(money.amount)}


def _money(fields: Mapping[str, str]) -> Money:
    return Money(Decimal(fields["amount"]), fields["currency_code"])
