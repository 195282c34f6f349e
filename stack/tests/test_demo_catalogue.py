"""What the demo shop sells."""

import re
from collections import defaultdict

import protovalidate
from google.protobuf.json_format import ParseDict

from stoa.catalog.v1 import catalog_pb2
from stoa_stack.demo_catalogue import demo_products
from stoa_stack.demo_catalogue.products import slug

PRODUCTS = demo_products("USD")
BODIES = [product.body for product in PRODUCTS]


def test_there_are_200_products_on_shelves_of_8_categories() -> None:
    shelves = defaultdict(set)
    for body in BODIES:
        shelves[body["category"]].add(body["subcategory"])
    assert len(BODIES) >= 200
    assert len(shelves) == 8
    assert all(2 <= len(subcategories) <= 4 for subcategories in shelves.values())
    assert any("lamp" in body["tags"] for body in BODIES)


def test_every_product_is_what_the_contract_takes() -> None:
    for body in BODIES:
        request = catalog_pb2.CreateProductRequest(product=ParseDict(dict(body), catalog_pb2.Product()))
        assert not protovalidate.collect_violations(request), body["name"]


def test_names_and_skus_are_unique_and_every_sku_has_stock() -> None:
    skus = [variant["sku"] for body in BODIES for variant in body["variants"]]
    assert len(set(skus)) == len(skus)
    assert len({body["name"] for body in BODIES}) == len(BODIES)
    assert {sku for product in PRODUCTS for sku in product.stock} == set(skus)
    assert all(n > 0 for product in PRODUCTS for n in product.stock.values())
    assert all(re.fullmatch(r"[A-Z0-9-]{5,64}", sku) for sku in skus)


def test_descriptions_are_whole_sentences() -> None:
    for body in BODIES:
        assert re.fullmatch(r"([A-ZÀ-Þ0-9][^{}<>]+[.?] ?){3,5}", body["description"]), body["description"]


def test_variants_of_a_product_differ_in_their_attributes() -> None:
    for body in BODIES:
        attributes = [tuple(variant["attributes"].items()) for variant in body["variants"]]
        assert 1 <= len(set(attributes)) == len(attributes) <= 4


def test_the_catalogue_is_the_same_every_time() -> None:
    assert demo_products("USD") == PRODUCTS


def test_prices_are_in_the_currency_of_the_shop() -> None:
    bodies = [product.body for product in demo_products("EUR")]
    assert {variant["price"]["currency_code"] for body in bodies for variant in body["variants"]} == {"EUR"}


def test_everything_was_weighed() -> None:
    assert all(variant["weight_grams"] >= 30 for body in BODIES for variant in body["variants"])


def test_a_slug_is_plain_ascii() -> None:
    assert slug("Arête Chef's Knife, 24 cm") == "arete-chefs-knife-24-cm"
