"""What it costs to send a parcel, how long it takes and who carries it: by weight, zone and method.

The tariff is what the carriers have agreed to with the shop. So a quote needs none of them: prices are known
while a carrier is down, and the same request has the same price whoever carries it in the end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from stoa_chassis.errors import FailedPrecondition
from stoa_contracts.money import Money
from stoa_shipping.model import Address, Method

_GRAMS = 1000
_SATURDAY = 5


class TooHeavy(FailedPrecondition):
    """No carrier takes a parcel of this weight; the metadata says how many grams one may have."""

    reason = "TOO_HEAVY"


class Zone(StrEnum):
    """How far it is from the warehouse."""

    LOCAL = "local"
    DOMESTIC = "domestic"
    NEIGHBOURING = "neighbouring"
    INTERNATIONAL = "international"


_NORTH_AMERICA = frozenset({"CA", "MX", "US"})
_OCEANIA = frozenset({"AU", "NZ"})
_EUROPE = frozenset(
    {
        *(
            "AT",
            "BE",
            "BG",
            "CH",
            "CY",
            "CZ",
            "DE",
            "DK",
            "EE",
            "ES",
            "FI",
            "FR",
            "GB",
            "GR",
            "HR",
            "HU",
            "IE",
        ),
        *("IS", "IT", "LI", "LT", "LU", "LV", "MT", "NL", "NO", "PL", "PT", "RO", "SE", "SI", "SK"),
    }
)
_NEIGHBOURS = (_NORTH_AMERICA, _OCEANIA, _EUROPE)
# Parts of a country that carriers count as far away.
_REMOTE: Mapping[str, frozenset[str]] = {
    "US": frozenset({"ak", "alaska", "hi", "hawaii"}),
    "ES": frozenset({"las palmas", "santa cruz de tenerife"}),
}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the warehouse is: ISO 3166-1 alpha-2, and its state or province, which may be empty."""

    country: str
    region: str = ""

    def zone_of(self, destination: Address) -> Zone:
        """Tell how far it is to an address."""
        region = destination.region.casefold()
        if destination.country == self.country:
            if region in _REMOTE.get(self.country, ()):
                return Zone.NEIGHBOURING
            return Zone.LOCAL if region and region == self.region.casefold() else Zone.DOMESTIC
        pair = {destination.country, self.country}
        near = any(pair <= countries for countries in _NEIGHBOURS)
        return Zone.NEIGHBOURING if near else Zone.INTERNATIONAL


@dataclass(frozen=True, slots=True)
class Rate:
    """What one method costs into one zone.

    `base` pays for the first `included_grams`, `per_kilogram` for each that is begun beyond. It takes `days`
    working days. The first of `carriers` takes it, another if that one can't.
    """

    method: Method
    zone: Zone
    base: Decimal
    per_kilogram: Decimal
    days: int
    carriers: tuple[str, ...]
    included_grams: int = 2 * _GRAMS

    def price(self, grams: int) -> Decimal:
        """Return what a parcel of so many grams costs, in the shop's currency."""
        beyond = max(0, grams - self.included_grams)
        return self.base + self.per_kilogram * -(-beyond // _GRAMS)


@dataclass(frozen=True, slots=True)
class Quote:
    """What it costs to send something with one method, and when it would be there."""

    method: Method
    carrier: str
    amount: Money
    estimated_delivery: datetime


@dataclass(frozen=True, slots=True)
class Tariff:
    """The rates from one warehouse, in one currency. There is one for each method and zone."""

    origin: Origin
    currency: str
    rates: tuple[Rate, ...]
    heaviest_grams: int

    def __post_init__(self) -> None:
        """Raises ValueError if a rate is missing, is there twice or has no carrier."""
        places = [(rate.method, rate.zone) for rate in self.rates]
        if sorted(places) != sorted((method, zone) for method in Method for zone in Zone):
            raise ValueError("a tariff needs one rate for each method and zone")
        if not all(rate.carriers for rate in self.rates):
            raise ValueError("a rate needs a carrier")

    def quotes(self, grams: int, destination: Address, now: datetime) -> Sequence[Quote]:
        """Price a parcel with each method, the cheapest first. Raises TooHeavy."""
        if grams > self.heaviest_grams:
            raise TooHeavy(
                f"a parcel may weigh {self.heaviest_grams // _GRAMS:,} kg at most",
                metadata={"heaviest_grams": str(self.heaviest_grams)},
            )
        quotes = [
            Quote(
                rate.method,
                rate.carriers[0],
                Money(rate.price(grams), self.currency),
                after_working_days(now, rate.days),
            )
            for rate in (self._rate(method, destination) for method in Method)
        ]
        return sorted(quotes, key=lambda quote: quote.amount.amount)

    def carriers(self, method: Method, destination: Address) -> Sequence[str]:
        """Return who carries to an address with a method, the first choice first."""
        return self._rate(method, destination).carriers

    def _rate(self, method: Method, destination: Address) -> Rate:
        zone = self.origin.zone_of(destination)
        return next(rate for rate in self.rates if (rate.method, rate.zone) == (method, zone))


def after_working_days(now: datetime, days: int) -> datetime:
    """Return the same time of the day so many days later on which carriers deliver: Monday to Friday."""
    while days:
        now += timedelta(days=1)
        days -= now.weekday() < _SATURDAY
    return now


def _rate(method: Method, zone: Zone, base: str, per_kilogram: str, days: int, *carriers: str) -> Rate:
    return Rate(method, zone, Decimal(base), Decimal(per_kilogram), days, carriers)


RATES = (
    _rate(Method.STANDARD, Zone.LOCAL, "4.90", "0.40", 2, "ups", "fedex", "dhl"),
    _rate(Method.STANDARD, Zone.DOMESTIC, "4.90", "0.60", 4, "ups", "fedex", "dhl"),
    _rate(Method.STANDARD, Zone.NEIGHBOURING, "12.90", "1.80", 6, "dhl", "ups", "fedex"),
    _rate(Method.STANDARD, Zone.INTERNATIONAL, "24.90", "4.50", 10, "dhl", "ups", "fedex"),
    _rate(Method.EXPRESS, Zone.LOCAL, "14.90", "1.20", 1, "fedex", "ups", "dhl"),
    _rate(Method.EXPRESS, Zone.DOMESTIC, "14.90", "1.90", 1, "fedex", "ups", "dhl"),
    _rate(Method.EXPRESS, Zone.NEIGHBOURING, "29.90", "4.20", 2, "dhl", "fedex", "ups"),
    _rate(Method.EXPRESS, Zone.INTERNATIONAL, "49.90", "8.90", 4, "dhl", "fedex", "ups"),
)
"""What an operator who sets no rates has."""
