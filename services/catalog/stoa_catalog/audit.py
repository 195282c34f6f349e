"""The books of the catalog service, as the audit reads them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pymongo.asynchronous.database import AsyncDatabase

# What it consumes of its own events is projected by revision, as often as it comes, and noted nowhere.
NOTED: Collection[str] = ()

_BATCH = 1000


@dataclass(frozen=True, slots=True)
class OnSale:
    """A product that is sold: its version, and its rating."""

    version: int
    rating: tuple[float, int]
    variants: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class Books:
    """All products that are sold."""

    products: Mapping[UUID, OnSale]


async def read(database: AsyncDatabase[dict[str, Any]]) -> Books:
    """Read which products are sold. An account that may only read is enough."""
    parts = dict.fromkeys(("version", "rating.average", "rating.count", "variants.variant_id"), 1)
    found = database["products"].find({"deleted_at": None}, parts, batch_size=_BATCH)
    return Books({document["_id"]: _on_sale(document) async for document in found})


def _on_sale(document: dict[str, Any]) -> OnSale:
    rating = document["rating"]
    variants = tuple(variant["variant_id"] for variant in document["variants"])
    return OnSale(document["version"], (rating["average"], rating["count"]), variants)
