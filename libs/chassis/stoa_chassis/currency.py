"""The currency of the shop: one setting, the same for all services and for as long as the shop lives.

A store remembers the currency of the first start on it, so that nobody takes the amounts in it for those of
another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pymongo.asynchronous.database import AsyncDatabase
    from redis.asyncio import Redis

    from stoa_chassis.postgres import Database

# ISO 4217 without those whose smallest part is no hundredth, in which amounts are counted here.
_CODES = """
AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY COP CRC
CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR
JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD
NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN
SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG
"""
_CURRENCIES = frozenset(_CODES.split())
_REMEMBER = "INSERT INTO shop (currency) VALUES ($1) ON CONFLICT DO NOTHING"


class OtherCurrency(Exception):
    """The store holds amounts in another currency than the one that is set."""

    def __init__(self, stored: str, currency: str) -> None:
        super().__init__(f"the store keeps amounts in {stored}, but the currency is set to {currency}")


def known_currency(code: str) -> str:
    """Return a code of ISO 4217 that amounts can be in. Raises ValueError."""
    if code not in _CURRENCIES:
        raise ValueError(f"{code!r} is no currency of ISO 4217 that is counted in hundredths")
    return code


async def keep_in_postgres(database: Database, currency: str) -> None:
    """Remember the currency in a database, or compare it with what is remembered. Raises OtherCurrency."""
    await database.execute(_REMEMBER, currency)
    _compare(await database.fetchval("SELECT currency FROM shop"), currency)


async def keep_in_mongo(database: AsyncDatabase[Any], currency: str) -> None:
    """Remember the currency in a document, or compare it with what is remembered. Raises OtherCurrency."""
    await database["shop"].update_one({"_id": "currency"}, {"$setOnInsert": {"code": currency}}, upsert=True)
    found = await database["shop"].find_one({"_id": "currency"})
    _compare(found["code"] if found else currency, currency)


async def keep_in_redis(redis: Redis, service: str, currency: str) -> None:
    """Remember the currency in a key of a service, or compare it with what is there. Raises OtherCurrency."""
    await redis.set(f"{service}:currency", currency, nx=True)
    stored: Any = await redis.get(f"{service}:currency")
    _compare(stored.decode() if stored else currency, currency)


def _compare(stored: str, currency: str) -> None:
    if stored != currency:
        raise OtherCurrency(stored, currency)
