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
class Books:
    """The ratings of those products, on sale or not, that ever had one."""

    ratings: Mapping[UUID, Rating] = field(default_factory=dict)


async def read(database: AsyncDatabase[dict[str, Any]]) -> Books:
    """Read the books. An account that may only read is enough."""
    found = database["products"].find({"rating.version": {"$gt": 0}}, {"rating": 1})
    return Books({document["_id"]: _rating(document["rating"]) async for document in found})


def _rating(rating: Mapping[str, Any]) -> Rating:
    return Rating(rating["count"], round(rating["average"] * rating["count"]))
