"""The products of the demo shop, made from `shelves.toml`: the same ones on every machine, every time."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import product as combinations
from pathlib import Path
from random import Random
from typing import Any

from stoa_rest import Product, Variant
from stoa_stack.shopping import money

_SHELVES = Path(__file__).with_name("shelves.toml")
_PRODUCTS_OF_A_KIND = 3
_NOVELTIES = ["new", "bestseller", "gift idea", "last season"]


@dataclass(frozen=True)
class DemoProduct:
    """A product as CreateProduct takes it, and how many of each SKU the warehouse gets."""

    body: Product
    stock: dict[str, int]


def demo_products(currency: str) -> list[DemoProduct]:
    """All products, a shelf after the other, with the same numbers as prices in any currency."""
    shelves = tomllib.loads(_SHELVES.read_text("utf-8"))
    return [
        product
        for category in shelves["categories"]
        for shelf in category["subcategories"]
        for kind, opening in shelf["kinds"]
        for product in _products_of(category, shelf, kind, opening, currency)
    ]


def slug(text: str) -> str:
    """Turn a name into what may stand in a path or a SKU: "Arête Day Pack" → "arete-day-pack"."""
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", ascii_only.replace("'", "")).strip("-")


def _products_of(
    category: dict[str, Any], shelf: dict[str, Any], kind: str, opening: str, currency: str
) -> Iterator[DemoProduct]:
    # Seeded by kind, so that a change to one shelf leaves the products of the others as they were.
    random = Random(f"{category['name']}/{shelf['name']}/{kind}")
    for series in random.sample(category["series"], _PRODUCTS_OF_A_KIND):
        yield _product(random, category, shelf, f"{series} {kind}", opening, currency)


def _product(
    random: Random, category: dict[str, Any], shelf: dict[str, Any], name: str, opening: str, currency: str
) -> DemoProduct:
    material = random.choice(shelf["materials"])
    detail = random.choice(shelf["details"]).format(
        material=material, Material=material[0].upper() + material[1:]
    )
    variants = list(_variants(random, category["code"], shelf, name, currency))
    body: Product = {
        "name": name,
        "description": f"{opening} {detail} {random.choice(shelf['closings'])}",
        "category": category["name"],
        "subcategory": shelf["name"],
        "brand": random.choice(category["brands"]),
        "tags": [*shelf["tags"], *random.sample(_NOVELTIES, random.choice([0, 0, 1]))],
        "variants": variants,
        "specifications": {
            "Material": material[0].upper() + material[1:],
            **{title: random.choice(choices) for title, choices in shelf["specifications"].items()},
        },
    }
    # Most is plentiful, and now and then something is nearly sold out.
    stock = {
        variant["sku"]: random.choice([random.randint(2, 6), *(random.randint(40, 250) for _ in range(9))])
        for variant in variants
    }
    return DemoProduct(body, stock)


def _variants(
    random: Random, code: str, shelf: dict[str, Any], name: str, currency: str
) -> Iterator[Variant]:
    attributes: dict[str, Sequence[str]] = shelf["attributes"]
    # Where there are two attributes, two values of each make four variants already.
    count = 2 if len(attributes) > 1 else random.choice([1, 2, 3])
    offered = [_some(random, values, count) for values in attributes.values()]
    cheapest, dearest = shelf["price"]
    # Cheaper ones are more frequent, as in any shop.
    base = Decimal(int(random.triangular(cheapest, dearest, cheapest))) + random.choice(
        [Decimal("0"), Decimal("0.50"), Decimal("0.90")]
    )
    weight = _weight(shelf, name)
    for values in combinations(*offered):
        step = offered[-1].index(values[-1]) * Decimal(shelf.get("step", 0))
        yield {
            "sku": f"{code}-{slug(name)}-{slug(' '.join(values))}".upper(),
            "attributes": dict(zip(attributes, values, strict=True)),
            "price": money(base + step, currency),
            "images": [f"/media/demo/{slug(name)}.jpg"],
            "weight_grams": weight,
        }


def _weight(shelf: dict[str, Any], name: str) -> int:
    """Weigh a product: to ten grams, and by dice of its own, so that nothing else of the catalogue moves."""
    lightest, heaviest = shelf["weight"]
    return Random(f"weight/{name}").randrange(lightest, heaviest + 1, 10)


def _some(random: Random, values: Sequence[str], count: int) -> list[str]:
    chosen = random.sample(values, min(count, len(values)))
    return sorted(chosen, key=values.index)
