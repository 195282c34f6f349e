"""The books of the catalog service, as the audit reads them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from pymongo.asynchronous.database import AsyncDatabase

# What it consumes of its own events is projected by revision, as often as it comes, and noted nowhere; so are
# ratings, by their versions.
NOTED: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Rating:
    """How many ratings a product shows, and their sum."""

    count: int
    total: int


@dataclass(frozen=True, slots=True)
class OnSale:
    """A product that is sold: its version, the average and the number of its ratings, its variants."""

    version: int
    rating: tuple[float, int]
    variants: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class Books:
    """The ratings of those products, on sale or not, that ever had one, and all products on sale."""

    ratings: Mapping[UUID, Rating] = field(default_factory=dict)
    products: Mapping[UUID, OnSale] = field(default_factory=dict)


async def read(database: AsyncDatabase[dict[str, Any]]) -> Books:
    """Read the books. An account that may only read is enough."""
    rated = database["products"].find({"rating.version": {"$gt": 0}}, {"rating": 1})
    parts = dict.fromkeys(("version", "rating", "variants.variant_id"), 1)
    on_sale = database["products"].find({"deleted_at": None}, parts)
    return Books(
        ratings={document["_id"]: _rating(document["rating"]) async for document in rated},
        products={document["_id"]: _on_sale(document) async for document in on_sale},
    )


def _rating(rating: Mapping[str, Any]) -> Rating:
    return Rating(rating["count"], round(rating["average"] * rating["count"]))


def _on_sale(document: Mapping[str, Any]) -> OnSale:
    rating = document["rating"]
    variants = tuple(variant["variant_id"] for variant in document["variants"])
    return OnSale(document["version"], (rating["average"], rating["count"]), variants)
