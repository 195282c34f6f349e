"""The price list: prices.toml, in which each figure stands under the service of AWS that asks for it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("prices.toml")


class PriceMissing(KeyError):
    """Something is to be paid for that the price list does not have."""


@dataclass(frozen=True)
class Prices:
    """What AWS asks for, in USD."""

    as_of: str
    region: str
    hours: Decimal
    """Of a month."""
    _values: dict[str, Any]

    def of(self, service: str, what: str) -> Decimal:
        """The price of one unit. Raises PriceMissing."""
        try:
            return Decimal(str(self._values[service][what]))
        except KeyError:
            raise PriceMissing(f"prices.toml has no {service}.{what}") from None

    def hourly(self, service: str, what: str) -> Decimal:
        """The price of a month of what is paid for by the hour. Raises PriceMissing."""
        return self.of(service, what) * self.hours

    def sources(self) -> dict[str, str]:
        """Where AWS publishes its prices, by service."""
        return dict(self._values["source"])


@cache
def load() -> Prices:
    """Read the price list."""
    values = tomllib.loads(_FILE.read_text())
    return Prices(values["as_of"], values["region"], Decimal(values["hours"]), values)
