"""How the facts of orders are written in the event store.

What was written once is read for as long as there are orders. So a fact never loses a field, a new field has
a default, and a name is never given a new meaning; tests/facts keeps an example of each shape that was ever
written, and tests/test_facts.py reads them all.

One thing may be taken out of what was written: who bought (`without_person`). The database allows no other
change (migrations/0003_after_sales.sql).
"""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from stoa_order.model import (
    BuyerChanged,
    CancellationDropped,
    CancellationRequested,
    Cancelled,
    Confirmed,
    Delivered,
    Fact,
    PaymentSettled,
    PersonErased,
    Placed,
    ReturnApproved,
    ReturnReceived,
    ReturnRefunded,
    ReturnRejected,
    ReturnRequested,
    ShipmentChanged,
    Shipped,
    StockReserved,
)

FACTS: Mapping[str, type[Fact]] = {
    "placed": Placed,
    "stock_reserved": StockReserved,
    "payment_settled": PaymentSettled,
    "confirmed": Confirmed,
    "cancelled": Cancelled,
    "cancellation_requested": CancellationRequested,
    "cancellation_dropped": CancellationDropped,
    "shipment_changed": ShipmentChanged,
    "shipped": Shipped,
    "delivered": Delivered,
    "return_requested": ReturnRequested,
    "return_approved": ReturnApproved,
    "return_rejected": ReturnRejected,
    "return_received": ReturnReceived,
    "return_refunded": ReturnRefunded,
    "buyer_changed": BuyerChanged,
    "person_erased": PersonErased,
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


def without_person(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a stored fact without what tells who bought: addresses, and whatever people wrote.

    The function of this name in the database does the same.
    """
    blank: dict[str, Any] = {"request": None, "contact": {"email": "", "locale": ""}, "reason": ""}
    if "shipping_address" in data:
        address = data["shipping_address"]
        blank["shipping_address"] = {**dict.fromkeys(address, ""), "country": address["country"]}
    return {key: blank.get(key, value) for key, value in data.items()}
