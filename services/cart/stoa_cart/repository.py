"""Carts, and what variants cost, in Redis.

`cart:{user_id}` holds a cart as JSON for 30 days after its last use. A change is a compare-and-set, so that
two tabs at once lose nothing, together with its events and the event that caused it
(`stoa_chassis.redis_uow`). `price:{product_id}` holds what the variants of a product cost now that is in a
cart, or was some weeks ago: of the others the catalogue may have a million. Older versions kept all of them
in `cart:prices`, which is kept current and not added to.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson
from redis.asyncio import Redis

from stoa_cart.model import Cart, Claim, ClaimState, Handover, Item
from stoa_cart.ports import Tx
from stoa_chassis.redis_uow import LUA_READ, Reader, RedisTransaction
from stoa_contracts.money import Money

_ALL_PRICES = "cart:prices"
_LIFETIME = timedelta(days=30)
_WATCHED = timedelta(days=60)  # a product in a cart: longer than a cart lives that nobody looks at
_WANTED = timedelta(hours=1)  # a product that may come into a cart
_NOTHING_YET = b'{"version":0}'
# Carts that are in use are read again and again, with the same ids and prices: most of the work of reading.
_uuid = lru_cache(maxsize=10_000)(UUID)

# What is asked for is watched from then on.
_OF = (
    LUA_READ
    + """
local all, lifetime, nothing = KEYS[1], ARGV[1], ARGV[2]
local found = {}
for at = 2, #KEYS do
    local record = read(KEYS[at], lifetime)
    if not record then
        record = redis.call('HGET', all, ARGV[at + 1]) or nothing
        redis.call('SET', KEYS[at], record, 'EX', lifetime)
    end
    found[at - 1] = record
end
return found
"""
)
# Products are created, updated and deleted on three topics, whose events may overtake each other.
_LEARN = """
local price, all, product, version, record = KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2]), ARGV[3]
local function is_older(known) return known and cjson.decode(known).version < version end
if is_older(redis.call('GET', price)) then redis.call('SET', price, record, 'KEEPTTL') end
if is_older(redis.call('HGET', all, product)) then redis.call('HSET', all, product, record) end
"""


class Carts:
    """The carts of all users, in a unit of work that changes one of them."""

    def __init__(self, transaction: RedisTransaction, currency: str) -> None:
        self._transaction = transaction
        self._currency = currency

    async def get(self, user_id: UUID) -> Cart:
        """Return a user's cart, an empty one if there is none. Using it renews its life."""
        return _cart(user_id, self._currency, await self._transaction.get(_key(user_id), _LIFETIME))

    async def save(self, cart: Cart) -> None:
        """Store a changed cart, and publish its events. Nothing is written if nothing changed."""
        # An empty cart of which nothing is known is not kept.
        known = cart.updated_at or cart.claims or cart.handover or cart.moved or cart.taken
        self._transaction.put(_key(cart.user_id), _json(cart) if known else b"", _LIFETIME)
        self._transaction.outbox.collect(cart)


def open_tx(currency: str) -> Callable[[RedisTransaction], Tx]:
    """Return what puts the repository on a unit of work; `currency` is the shop's."""
    return lambda transaction: Tx(Carts(transaction, currency))


class CartReader:
    """Carts as they are, outside of a unit of work."""

    def __init__(self, redis: Redis, currency: str) -> None:
        self._reader = Reader(redis)
        self._currency = currency

    async def get(self, user_id: UUID) -> Cart:
        """Return a user's cart, an empty one if there is none. Using it renews its life."""
        return _cart(user_id, self._currency, await self._reader.get(_key(user_id), _LIFETIME))


class PriceBook:
    """What variants cost now: the catalogue's prices, as its events tell them, of products that are watched.

    Those are the ones in carts: there may be a million others. A price is kept by product, with the product's
    version, so that an event that comes late does not bring an old price back, and neither does one that
    comes after the deletion.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._of = redis.register_script(_OF)
        self._learn = redis.register_script(_LEARN)

    async def watch(self, product_id: UUID) -> None:
        """Watch a product that somebody wants, for an hour unless it is asked for by then."""
        await self._redis.set(_price_key(product_id), _NOTHING_YET, nx=True, ex=_WANTED)

    async def of(self, product_ids: Iterable[UUID]) -> Mapping[UUID, Mapping[UUID, Money]]:
        """Return what these products' variants that are on sale cost, by product and variant.

        They are in a cart, and watched for longer than that lives. Products of which no event has come since
        they are watched are left out.
        """
        wanted = list(product_ids)
        if not wanted:
            return {}
        stored: list[bytes] = await self._of(
            keys=[_ALL_PRICES, *map(_price_key, wanted)],
            args=[int(_WATCHED.total_seconds()), _NOTHING_YET, *map(str, wanted)],
        )
        records = zip(wanted, map(orjson.loads, stored), strict=True)
        return {
            product_id: {
                _uuid(variant_id): _money(price["amount"], price["currency_code"])
                for variant_id, price in record["prices"].items()
            }
            for product_id, record in records
            if "prices" in record
        }

    async def learn(self, product_id: UUID, version: int, prices: Mapping[UUID, Money]) -> None:
        """Note the prices that a version of a product has, by variant, if the product is watched.

        Nothing is noted if a later version is known.
        """
        record = {
            "version": version,
            "prices": {str(variant_id): _money_fields(price) for variant_id, price in prices.items()},
        }
        keys = [_price_key(product_id), _ALL_PRICES]
        await self._learn(keys=keys, args=[str(product_id), version, orjson.dumps(record)])


def _key(user_id: UUID) -> str:
    return f"cart:{user_id}"


def _price_key(product_id: UUID) -> str:
    return f"price:{product_id}"


def _json(cart: Cart) -> bytes:
    record: dict[str, Any] = {
        "user_id": cart.user_id,
        "items": [_item_fields(item) for item in cart.items],
        "updated_at": cart.updated_at,
    }
    if cart.claims:
        record["claims"] = [_claim_fields(claim) for claim in cart.claims]
    if cart.handover is not None:
        record["handover"] = {
            "handover_id": cart.handover.handover_id,
            "user_id": cart.handover.user_id,
            "items": [_item_fields(item) for item in cart.handover.items],
            "claims": [_claim_fields(claim) for claim in cart.handover.claims],
        }
    if cart.moved:
        record["moved"] = {str(order_id): user_id for order_id, user_id in cart.moved.items()}
    if cart.taken:
        record["taken"] = cart.taken
    return orjson.dumps(record)


def _cart(user_id: UUID, currency: str, stored: bytes) -> Cart:
    if not stored:
        return Cart(user_id, currency)
    record = orjson.loads(stored)
    return Cart(
        user_id,
        currency,
        [_item(item) for item in record["items"]],
        _time(record["updated_at"]),
        [_claim(claim) for claim in record.get("claims", ())],
        _handover(record["handover"]) if "handover" in record else None,
        {_uuid(order_id): _uuid(moved_to) for order_id, moved_to in record.get("moved", {}).items()},
        [_uuid(handover_id) for handover_id in record.get("taken", ())],
    )


def _claim_fields(claim: Claim) -> dict[str, Any]:
    return {
        "order_id": claim.order_id,
        "state": claim.state,
        "request_id": claim.request_id,
        "version": claim.version,
        "items": [_item_fields(item) for item in claim.items],
        "lapses_at": claim.lapses_at,
    }


def _claim(fields: Mapping[str, Any]) -> Claim:
    return Claim(
        _uuid(fields["order_id"]),
        ClaimState(fields["state"]),
        fields["request_id"],
        fields["version"],
        tuple(map(_item, fields["items"])),
        _time(fields["lapses_at"]),
    )


def _handover(fields: Mapping[str, Any]) -> Handover:
    return Handover(
        _uuid(fields["handover_id"]),
        _uuid(fields["user_id"]),
        tuple(map(_item, fields["items"])),
        tuple(map(_claim, fields["claims"])),
    )


def _item_fields(item: Item) -> dict[str, Any]:
    return {
        "item_id": item.item_id,
        "product_id": item.product_id,
        "variant_id": item.variant_id,
        "quantity": item.quantity,
        "price": _money_fields(item.price),
        "available": item.available,
    }


def _item(fields: Mapping[str, Any]) -> Item:
    return Item(
        _uuid(fields["item_id"]),
        _uuid(fields["product_id"]),
        _uuid(fields["variant_id"]),
        fields["quantity"],
        _money(fields["price"]["amount"], fields["price"]["currency_code"]),
        fields.get("available", True),
    )


def _time(stored: str | None) -> datetime | None:
    return datetime.fromisoformat(stored) if stored else None


def _money_fields(money: Money) -> dict[str, str]:
    return {"currency_code": money.currency, "amount": str(money.amount)}


@lru_cache(maxsize=10_000)
def _money(amount: str, currency: str) -> Money:
    return Money(Decimal(amount), currency)
