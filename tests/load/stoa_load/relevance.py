"""How well the search finds what shoppers mean: NDCG@10 over the queries of `relevance.toml`.

The measure: https://en.wikipedia.org/wiki/Discounted_cumulative_gain. What a product is worth for a query is
said there by kinds of products and what they have, and looked up in the demo catalogue, not in the answers.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from stoa_stack.demo_catalogue.products import DemoProduct, demo_products

_QUERIES = Path(__file__).with_name("relevance.toml")
_BEST, _GOOD = 3, 1
AT = 10


@dataclass(frozen=True)
class Query:
    """What somebody types, and what each product of the shop is worth then, by its name."""

    text: str
    worth: Mapping[str, int]

    def ndcg(self, found: Sequence[str]) -> float:
        """Judge the names that were found, the best first: 1 if no order would be better, 0 if none is right.

        Where there is nothing to find, nothing is right.
        """
        if not self.worth:
            return 0.0 if found else 1.0
        ideal = sorted(self.worth.values(), reverse=True)
        return _dcg([self.worth.get(name, 0) for name in found]) / _dcg(ideal)


def queries(currency: str = "USD") -> list[Query]:
    """Read the queries, and judge the demo catalogue by them."""
    products = demo_products(currency)
    said = tomllib.loads(_QUERIES.read_text("utf-8"))["queries"]
    return [Query(each["q"], _judged(products, each)) for each in said]


def _judged(products: Sequence[DemoProduct], said: Mapping[str, Any]) -> Mapping[str, int]:
    """Return what products are worth, if anything; ValueError if none is and that was not meant."""
    worth = {each.body["name"]: _worth(each, said) for each in products}
    judged = {name: number for name, number in worth.items() if number}
    if bool(judged) == said.get("nothing", False):
        raise ValueError(f"what is said of {said['q']!r} fits {len(judged)} products")
    return judged


def _worth(product: DemoProduct, said: Mapping[str, Any]) -> int:
    body = product.body
    prices = [_amount(variant["price"]) for variant in body["variants"]]
    values = {value for variant in body["variants"] for value in variant["attributes"].values()}
    if not (
        body["brand"] == said.get("brand", body["brand"])
        and ("attribute" not in said or said["attribute"] in values)
        and any(said.get("min_price", 0) <= price <= said.get("max_price", price) for price in prices)
    ):
        return 0
    if body["name"].endswith(tuple(said.get("best", ()))):
        return _BEST
    return _GOOD if body["name"].endswith(tuple(said.get("good", ()))) else 0


def _amount(price: Mapping[str, Any]) -> Decimal:
    return Decimal(price["units"]) + Decimal(price.get("nanos", 0)).scaleb(-9)


def _dcg(worth: Sequence[int]) -> float:
    return sum((2.0**each - 1) / math.log2(place + 2) for place, each in enumerate(worth[:AT]))
