"""How the facts of orders are written in the event store.

What was written once is read for as long as there are orders. So a fact never loses a field, a new field has
a default, and a name is never given a new meaning; tests/facts keeps an example of each shape that was ever
written, and tests/test_facts.py reads them all.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from stoa_order.model import Cancelled, Confirmed, Fact, PaymentSettled, Placed, StockReserved

FACTS: Mapping[str, type[Fact]] = {
    "placed": Placed,
    "stock_reserved": StockReserved,
    "payment_settled": PaymentSettled,
    "confirmed": Confirmed,
    "cancelled": Cancelled,
}
"""The names under which facts are stored."""

_NAMES = {fact: name for name, fact in FACTS.items()}
_ADAPTERS: Mapping[str, TypeAdapter[Fact]] = {name: TypeAdapter(fact) for name, fact in FACTS.items()}


def name_of(fact: Fact) -> str:
    """Return the name under which a fact is stored."""
    return _NAMES[type(fact)]


def dump(fact: Fact) -> Any:
    """Return a fact as JSON has it."""
    return _ADAPTERS[name_of(fact)].dump_python(fact, mode="json")


def load(name: str, data: Any) -> Fact:
    """Return the fact that was stored. Raises ValidationError if it can't be read, KeyError for no fact."""
    return _ADAPTERS[name].validate_python(data)
