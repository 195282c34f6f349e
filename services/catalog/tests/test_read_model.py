"""The read model holds what the documents say, in whatever order their versions come."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoa_catalog.model import Category, Details, Filters, Product, VariantDraft
from stoa_catalog.read_model import Listing, ReadModel
from stoa_contracts.money import Money

NOW = datetime(2026, 11, 24, tzinfo=UTC)

_names = st.sampled_from(["", "a", "b", "c"])
_details = st.builds(
    Details,
    name=st.text(max_size=3),
    category=st.sampled_from(["home", "garden", "a"]),
    subcategory=_names,
    brand=_names,
    tags=st.lists(st.sampled_from(["a", "b", "new"]), unique=True).map(tuple),
)
_prices = st.integers(1, 12).map(lambda cents: Decimal(cents) / 100)
_variants = st.lists(_prices, min_size=1, max_size=3)
_step = st.tuples(st.integers(0, 5), _details, _variants, st.booleans())
_bounds = st.none() | _prices


@st.composite
def histories(draw: st.DrawFn) -> list[Product]:
    """Every version that some products had, in the order in which they came to be."""
    products: dict[int, Product] = {}
    versions: list[Product] = []
    for number, details, prices, deletes in draw(st.lists(_step, max_size=25)):
        drafts = [VariantDraft(None, str(at), Money(price, "USD")) for at, price in enumerate(prices)]
        now = NOW + timedelta(seconds=len(versions))
        product = products.get(number)
        if product is None:
            product = products[number] = Product.create(details, drafts, now)
        elif product.deleted_at is None and deletes:
            product.delete(now)
        elif product.deleted_at is None:
            product.update(details, drafts, product.etag, now)
        versions.append(replace(product, events=[]))
    return versions


@st.composite
def filters(draw: st.DrawFn) -> Filters:
    low, high = draw(_bounds), draw(_bounds)
    if low is not None and high is not None and low > high:
        low, high = high, low
    return Filters(
        category=draw(st.sampled_from(["", "home", "garden", "nowhere"])),
        subcategory=draw(_names),
        brand=draw(_names),
        tag=draw(st.sampled_from(["", "a", "new"])),
        min_price=low,
        max_price=high,
    )


def model_of(versions: Iterable[Product]) -> ReadModel[Product]:
    """A model that was given these versions of products, in this order."""
    model = ReadModel[Product]()
    for product in versions:
        if product.deleted_at is None:
            model.put(Listing.of(product, product))
        else:
            model.take_off(product.product_id, product.revision)
    return model


def on_sale(versions: Iterable[Product]) -> list[Product]:
    """The documents that all these changes leave, newest first."""
    last = {product.product_id: product for product in versions}
    left = [product for product in last.values() if product.deleted_at is None]
    return sorted(left, key=lambda product: product.product_id, reverse=True)


def passes(product: Product, wanted: Filters) -> bool:
    """What a filter means, product by product, without any index."""
    details = product.details
    low, high = wanted.min_price or Decimal(0), wanted.max_price or Decimal(10**9)
    return (
        wanted.category in ("", details.category)
        and wanted.subcategory in ("", details.subcategory)
        and wanted.brand in ("", details.brand)
        and (not wanted.tag or wanted.tag in details.tags)
        and any(low <= variant.price.amount <= high for variant in product.variants)
    )


def walk(model: ReadModel[Product], wanted: Filters, size: int) -> list[Product]:
    """All pages of a list."""
    seen: list[Product] = []
    before: UUID | None = None
    while page := model.page(wanted, before, size):
        assert len(page) <= size
        seen += [listing.view for listing in page]
        before = page[-1].product_id
    return seen


def shelves(products: Sequence[Product]) -> list[Category]:
    names = sorted({product.details.category for product in products})
    found = []
    for name in names:
        parts = [product.details.subcategory for product in products if product.details.category == name]
        found.append(Category(name, len(parts), tuple(sorted(set(parts) - {""}))))
    return found


@given(histories(), st.randoms(use_true_random=False))
def test_the_model_is_what_the_documents_are_in_whatever_order_their_versions_come(
    history: list[Product], chance: Random
) -> None:
    shuffled = [*history, *history[::2]]
    chance.shuffle(shuffled)
    expected = on_sale(history)
    in_order, in_disorder = model_of(history), model_of(shuffled)
    for model in (in_order, in_disorder):
        assert walk(model, Filters(), 2) == expected
        assert model.categories() == shelves(expected)
        assert len(model) == len(expected)
        for product in expected:
            assert model.get(product.product_id) == Listing.of(product, product)
            for variant in product.variants:
                assert model.with_variant(variant.variant_id) == model.get(product.product_id)
    assert in_order.differences(in_disorder) == []
    assert in_order.differences(model_of(on_sale(history))) == []
    gone = {product.product_id for product in history} - {product.product_id for product in expected}
    assert all(in_disorder.is_gone(product_id) for product_id in gone)
    old_variants = {variant.variant_id for product in history for variant in product.variants}
    new_variants = {variant.variant_id for product in expected for variant in product.variants}
    assert not any(in_disorder.with_variant(variant) for variant in old_variants - new_variants)


@given(histories(), filters(), st.integers(1, 4))
def test_a_list_has_what_a_look_at_every_product_finds(
    history: list[Product], wanted: Filters, size: int
) -> None:
    expected = [product for product in on_sale(history) if passes(product, wanted)]
    assert walk(model_of(history), wanted, size) == expected


@given(histories())
def test_nothing_is_left_of_what_is_forgotten(history: list[Product]) -> None:
    model = model_of(product for product in history if product.deleted_at is None)
    for product in history:
        model.forget(product.product_id)
    assert model.categories() == []
    assert walk(model, Filters(), 10) == []
    assert vars(model) == vars(ReadModel[Product]()) | {"_categories": []}


def a_product(*prices: str, **details: Any) -> Product:
    drafts = [VariantDraft(None, str(at), Money(Decimal(price), "USD")) for at, price in enumerate(prices)]
    return Product.create(Details(**{"name": "Lamp", "category": "home", **details}), drafts, NOW)


def listed(*products: Product) -> ReadModel[Product]:
    return model_of(products)


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        ("5", "5", True),
        ("9", "9", True),
        ("4.99", "5", True),
        ("9", "9.01", True),
        ("5.01", "8.99", False),
        ("0", "4.99", False),
        ("9.01", None, False),
        ("9", None, True),
        (None, "5", True),
        (None, "4.99", False),
    ],
)
def test_a_variant_must_cost_something_within_both_bounds_which_are_included(
    low: str | None, high: str | None, found: bool
) -> None:
    product = a_product("9", "5")
    bounds = Filters(min_price=low and Decimal(low), max_price=high and Decimal(high))  # type: ignore[arg-type]
    assert walk(listed(product), bounds, 1) == [product] * found


def test_what_is_free_is_found_without_bounds_and_from_nothing_on() -> None:
    product = a_product("0")
    assert walk(listed(product), Filters(max_price=Decimal(0)), 1) == [product]
    assert walk(listed(product), Filters(min_price=Decimal(0)), 1) == [product]


def test_a_tag_a_brand_and_a_category_of_the_same_name_are_told_apart() -> None:
    tagged, branded = a_product("1", tags=("lux",)), a_product("1", brand="lux")
    in_part, in_category = a_product("1", subcategory="lux"), a_product("1", category="lux")
    model = listed(tagged, branded, in_part, in_category)
    for wanted, product in [
        (Filters(tag="lux"), tagged),
        (Filters(brand="lux"), branded),
        (Filters(subcategory="lux"), in_part),
        (Filters(category="lux"), in_category),
    ]:
        assert walk(model, wanted, 5) == [product]


def test_all_that_narrows_a_list_has_to_be_met() -> None:
    both, one = a_product("1", brand="lux", tags=("new",)), a_product("1", brand="lux")
    assert walk(listed(both, one), Filters(brand="lux", tag="new"), 5) == [both]
    assert walk(listed(both, one), Filters(brand="lux"), 5) == [one, both]
    assert walk(listed(both, one), Filters(brand="none"), 5) == []


def test_a_version_is_known_while_a_product_is_on_sale_and_after() -> None:
    product = a_product("1")
    model = listed(product)
    assert model.version(product.product_id) == product.revision
    gone = product.revision + 5
    model.take_off(product.product_id, gone)
    assert (model.version(product.product_id), model.is_gone(product.product_id)) == (gone, True)
    model.put(Listing.of(replace(product, version=9), product))
    assert model.get(product.product_id) is None
    assert model.version(a_product("1").product_id) == 0


def test_an_older_version_is_passed_over_and_the_same_taken_again() -> None:
    old = a_product("1")
    new = replace(old, version=3, details=replace(old.details, name="New"))
    model = listed(new, old)
    assert walk(model, Filters(), 5) == [new]
    again = replace(new, details=replace(new.details, name="Newer"))
    model.put(Listing.of(again, again))
    assert walk(model, Filters(), 5) == [again]
    assert model.categories() == [Category("home", 1, ())]


def test_two_models_differ_in_what_one_of_them_has_or_has_otherwise() -> None:
    same, mine, others, changed = sorted((a_product("1") for _ in range(4)), key=lambda p: p.product_id)
    newer = replace(changed, version=2)
    one, other = listed(same, mine, changed), listed(same, others, newer)
    assert one.differences(other) == [mine.product_id, others.product_id, changed.product_id]
    assert [listing.view for listing in one] == [same, mine, changed]


def test_categories_are_counted_anew_after_each_change() -> None:
    lamp, spade = a_product("1", subcategory="light"), a_product("1", category="garden")
    model = listed(lamp)
    assert model.categories() == [Category("home", 1, ("light",))]
    model.put(Listing.of(spade, spade))
    assert model.categories() == [Category("garden", 1, ()), Category("home", 1, ("light",))]
    model.take_off(lamp.product_id, 2)
    assert model.categories() == [Category("garden", 1, ())]
    assert model.categories() is model.categories(), "counted once"
