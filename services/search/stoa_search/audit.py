"""The index as the audit reads it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from opensearchpy import AsyncOpenSearch

# Each source is taken by its versions, without an inbox.
NOTED: Collection[str] = ()

_INDEX = "products"
_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Shown:
    """A product as it is found: which version of it, with which rating and variants in stock."""

    version: int
    rating: tuple[float, int]
    in_stock: frozenset[UUID]


@dataclass(frozen=True, slots=True)
class Books:
    """All products that are found."""

    products: Mapping[UUID, Shown]


async def read(client: AsyncOpenSearch) -> Books:
    """Read what searches can find."""
    await client.indices.refresh(index=_INDEX)
    query: dict[str, Any] = {
        "size": _BATCH,
        "query": {"term": {"on_sale": True}},
        "sort": [{"product_id": "asc"}],
        "_source": [
            "entry.version", "entry.rating", "entry.availability", "entry.details.variants.variant_id",
        ],
    }  # fmt: skip
    products: dict[UUID, Shown] = {}
    while True:
        found = await client.search(index=_INDEX, body=query)
        if not (hits := found["hits"]["hits"]):
            return Books(products)
        products |= {UUID(hit["_id"]): _shown(hit["_source"]["entry"]) for hit in hits}
        query["search_after"] = hits[-1]["sort"]


def _shown(entry: Mapping[str, Any]) -> Shown:
    variants = {each["variant_id"] for each in entry["details"]["variants"]}
    average, count, _ = entry["rating"]
    available = (UUID(each) for each, in_stock, _ in entry["availability"] if in_stock and each in variants)
    return Shown(entry["version"], (average, count), frozenset(available))
