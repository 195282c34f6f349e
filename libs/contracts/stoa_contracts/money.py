"""Money: a decimal amount and its currency (Fowler's Money pattern), without any float."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Self

_CENT = Decimal("0.01")
_ZERO = Decimal("0.00")
_LIMIT = Decimal(10) ** 10  # numeric(12,2) in the stores: ten digits before the point
_CURRENCY = re.compile(r"[A-Z]{3}\Z")


class CurrencyMismatch(ValueError):
    """Two amounts in different currencies were mixed; that is a bug, no exchange rate is known here."""


@dataclass(frozen=True, slots=True)
class Money:
    """An amount, always whole cents, in a currency (ISO 4217, upper case).

    The amount is rounded half up (away from zero) to cents when it is made. Raises ValueError for a currency
    that isn't three capital letters and for an amount that isn't a number or doesn't fit numeric(12,2), and
    TypeError for an amount that isn't a Decimal or an int.
    """

    amount: Decimal
    currency: str

    def __post_init__(self) -> None:
        if not isinstance(self.amount, Decimal) and type(self.amount) is not int:
            raise TypeError(f"an amount of money is a Decimal, not {type(self.amount).__name__}")
        if not _CURRENCY.match(self.currency):
            raise ValueError(f"{self.currency!r} is not a currency code of three capital letters")
        amount = Decimal(self.amount)
        if not (amount.is_finite() and -_LIMIT < amount < _LIMIT):
            raise ValueError(f"an amount of {self.amount} is out of range")
        if not amount.same_quantum(_CENT):  # what comes from a store or an event is in cents already
            amount = amount.quantize(_CENT, rounding=ROUND_HALF_UP)
            if not -_LIMIT < amount < _LIMIT:
                raise ValueError(f"an amount of {self.amount} is out of range")
        if amount is not self.amount or not amount:
            object.__setattr__(self, "amount", amount or _ZERO)  # never -0.00

    @classmethod
    def zero(cls, currency: str) -> Self:
        """Return no money, in a currency: the start of a sum."""
        return cls(Decimal(0), currency)

    @classmethod
    def of_cents(cls, cents: int, currency: str) -> Self:
        """Return so many cents; raises ValueError if they are no amount of money."""
        return cls(Decimal(cents).scaleb(-2), currency)

    @property
    def cents(self) -> int:
        """The amount in cents."""
        return int(self.amount.scaleb(2))

    def to_dict(self) -> dict[str, Any]:
        """Return the record stoa.events.Money as fastavro writes it."""
        return {"currency_code": self.currency, "amount": self.amount}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a record that fastavro read; raises ValueError if it is no amount of money."""
        return cls(record["amount"], record["currency_code"])

    def __add__(self, other: "Money") -> "Money":
        return Money(self.amount + self._same(other), self.currency)

    def __sub__(self, other: "Money") -> "Money":
        return Money(self.amount - self._same(other), self.currency)

    def __neg__(self) -> "Money":
        return Money(-self.amount, self.currency)

    def __mul__(self, factor: int | Decimal) -> "Money":
        """Multiply by a quantity, or by a rate such as a tax's (then rounded half up to cents)."""
        if isinstance(factor, bool) or not isinstance(factor, int | Decimal):
            return NotImplemented
        return Money(self.amount * factor, self.currency)

    __rmul__ = __mul__

    def __lt__(self, other: "Money") -> bool:
        return self.amount < self._same(other)

    def __le__(self, other: "Money") -> bool:
        return self.amount <= self._same(other)

    def __gt__(self, other: "Money") -> bool:
        return self.amount > self._same(other)

    def __ge__(self, other: "Money") -> bool:
        return self.amount >= self._same(other)

    def __bool__(self) -> bool:
        return bool(self.amount)

    def __str__(self) -> str:
        return f"{self.amount} {self.currency}"

    def _same(self, other: "Money") -> Decimal:
        if not isinstance(other, Money):
            raise TypeError(f"money can't be mixed with {type(other).__name__}")
        if other.currency != self.currency:
            raise CurrencyMismatch(f"{self} and {other} are in different currencies")
        return other.amount
