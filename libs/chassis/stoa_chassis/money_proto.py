"""Money as `google.type.Money` and back; apart from `money.py` so that models don't import protobuf."""

from decimal import Decimal

from google.type import money_pb2

from stoa_chassis.errors import InvalidArgument
from stoa_contracts.money import Money

_NANOS = 1_000_000_000
_NANOS_PER_CENT = _NANOS // 100


def to_proto(money: Money) -> money_pb2.Money:
    """Return the message for an amount."""
    cents = money.cents
    units, rest = divmod(abs(cents), 100)
    sign = -1 if cents < 0 else 1
    return money_pb2.Money(
        currency_code=money.currency, units=sign * units, nanos=sign * rest * _NANOS_PER_CENT
    )


def from_proto(message: money_pb2.Money, field: str) -> Money:
    """Return the amount of a message; `field` is its path in the request, for the error.

    Raises InvalidArgument for a fraction of a cent, nanos out of range, units and nanos of different signs, a
    bad currency code, or an amount that no store holds.
    """
    units, nanos, code = message.units, message.nanos, message.currency_code
    if not (len(code) == 3 and code.isascii() and code.isalpha() and code.isupper()):
        raise InvalidArgument(f"{field}.currency_code", "must be three capital letters, such as USD")
    if abs(nanos) >= _NANOS:
        raise InvalidArgument(f"{field}.nanos", "must be between -999,999,999 and 999,999,999")
    if (units > 0 and nanos < 0) or (units < 0 and nanos > 0):
        raise InvalidArgument(f"{field}.nanos", "must have the same sign as units")
    if nanos % _NANOS_PER_CENT:
        raise InvalidArgument(f"{field}.nanos", "must be whole cents (a multiple of 10,000,000)")
    amount = Decimal(units) + Decimal(nanos).scaleb(-9)
    try:
        return Money(amount, code)
    except ValueError as error:
        raise InvalidArgument(field, "is too large an amount") from error
