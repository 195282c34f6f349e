"""Money in events."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class EventMoney:
    """An amount of a currency: the Avro record stoa.events.Money, which every event shares."""

    currency_code: str
    """ISO 4217."""

    amount: Decimal
    """In units of the currency, with at most two decimals."""

    def to_dict(self) -> dict[str, Any]:
        """The record as fastavro writes it."""
        return {"currency_code": self.currency_code, "amount": self.amount}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """The value of a record that fastavro read."""
        return cls(record["currency_code"], record["amount"])
