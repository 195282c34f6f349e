"""What makes an entry, in whatever order it is heard of, and what a query says of prices."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from stoa_chassis.errors import InvalidArgument
from stoa_chassis.ids import new_id
from stoa_search.model import (
    PRICE_STEPS,
    RATING_STEPS,
    Availability,
    Available,
    Change,
    Criteria,
    Described,
    Details,
    Entry,
    PriceWords,
    Rated,
    Rating,
    Sort,
    Variant,
    price_range,
    price_words,
)
from stoa_search.testing import a_variant, some_details

_VARIANTS = [a_variant(), a_variant(), a_variant()]
_PRODUCT = new_id()
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
_MANY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
# What each source says, in the order in which it happened: another thing with each version.
_HISTORIES: list[Sequence[Change]] = [
    [
        Described(1, some_details("first", *_VARIANTS[:1])),
        Described(2, some_details("second", *_VARIANTS)),
        Described(3, None),
        Described(4, some_details("fourth", *_VARIANTS[1:])),
    ],
    [Rated(Rating(5.0, 1, 1)), Rated(Rating(4.0, 2, 2)), Rated(Rating(4.5, 3, 3))],
    *(
        [Available(each.variant_id, Availability(version % 2 == 1, version)) for version in range(1, 4)]
        for each in _VARIANTS
    ),
]


@_MANY
@given(some.data())
def test_whatever_comes_late_twice_or_not_in_order_the_latest_of_each_source_is_shown(
    data: some.DataObject,
) -> None:
    happened = [history[: data.draw(some.integers(0, len(history)))] for history in _HISTORIES]
    changes = [change for history in happened for change in history]
    again = data.draw(some.lists(some.sampled_from(changes), max_size=5)) if changes else []
    entry = Entry(_PRODUCT)
    for change in data.draw(some.permutations([*changes, *again])):
        change.apply(entry)
    expected = Entry(_PRODUCT)
    for history in happened:
        if history:
            history[-1].apply(expected)
    assert (entry.version, entry.details, entry.rating) == (
        expected.version, expected.details, expected.rating,
    )  # fmt: skip
    assert entry.availability == expected.availability


@_MANY
@given(some.data())
def test_a_change_that_is_there_already_changes_nothing_and_says_so(data: some.DataObject) -> None:
    entry = Entry(_PRODUCT)
    for history in _HISTORIES:
        for change in history:
            assert change.apply(entry) is True
    before = deepcopy(entry)
    change = data.draw(some.sampled_from([change for history in _HISTORIES for change in history]))
    assert change.apply(entry) is False
    assert entry == before


def test_a_product_is_in_stock_if_one_of_its_variants_is() -> None:
    blue, red, gone = a_variant(), a_variant(), a_variant()
    entry = Entry(new_id(), 1, some_details("lamp", blue, red))
    assert not entry.in_stock
    Available(gone.variant_id, Availability(True, 1)).apply(entry)
    assert not entry.in_stock
    Available(blue.variant_id, Availability(False, 1)).apply(entry)
    assert not entry.in_stock
    Available(red.variant_id, Availability(True, 1)).apply(entry)
    assert entry.in_stock
    Described(2, None).apply(entry)
    assert not entry.in_stock


def test_the_price_is_that_of_the_cheapest_variant() -> None:
    entry = Entry(new_id(), 1, some_details("lamp", a_variant("30.00"), a_variant("19.90")))
    assert entry.price_from is not None
    assert entry.price_from.amount == Decimal("19.90")
    assert Entry(new_id()).price_from is None


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("desk lamp", PriceWords("desk lamp")),
        ("lamp under 30", PriceWords("lamp", None, Decimal(30))),
        ("lamp below $49.90", PriceWords("lamp", None, Decimal("49.90"))),
        ("Chair up to 100 euros", PriceWords("Chair", None, Decimal(100))),
        ("rug over 200", PriceWords("rug", Decimal(200))),
        ("rug more than 200 USD in wool", PriceWords("rug in wool", Decimal(200))),
        ("sofa between 500 and 900", PriceWords("sofa", Decimal(500), Decimal(900))),
        ("sofa from 900 to 500 dollars", PriceWords("sofa", Decimal(500), Decimal(900))),
        ("cheap chair", PriceWords("chair", cheapest_first=True)),
        ("cheap chair under 150", PriceWords("chair", None, Decimal(150), cheapest_first=True)),
        ("lamp over 100 under 50", PriceWords("lamp")),
        ("lamp over 50 under 50", PriceWords("lamp", Decimal(50), Decimal(50))),
        ("Lamp UNDER 49,90 EUR", PriceWords("Lamp", None, Decimal("49.90"))),
        # No prices:
        ("shelf under 90 cm", PriceWords("shelf under 90 cm")),
        ("under the sea", PriceWords("under the sea")),
        ("cheap", PriceWords("cheap", cheapest_first=True)),
        ("", PriceWords("")),
    ],
)
def test_words_about_prices_are_understood(query: str, said: PriceWords) -> None:
    assert price_words(query) == said


@_MANY
@given(some.text(max_size=200))
def test_no_query_is_too_strange(query: str) -> None:
    price_words(query)


def test_no_price_is_more_than_the_most_and_less_than_the_least() -> None:
    with pytest.raises(InvalidArgument) as refused:
        Criteria(min_price=Decimal(2), max_price=Decimal(1))
    assert [each.field for each in refused.value.violations] == ["min_price"]
    Criteria(min_price=Decimal(1), max_price=Decimal(1))


def test_ranges_of_prices_are_named_by_their_bounds_and_ratings_counted_from_the_best() -> None:
    assert [price_range(step) for step in PRICE_STEPS] == [
        *("0-10", "10-25", "25-50", "50-100", "100-250", "250-500", "500-1000", "1000-")
    ]
    assert RATING_STEPS == (4, 3, 2, 1)


def test_a_product_of_which_nothing_was_heard_has_no_version_no_rating_and_no_stock() -> None:
    entry = Entry(_PRODUCT)
    assert (entry.version, entry.details, entry.availability) == (0, None, {})
    assert entry.rating == Rating(average=0.0, count=0, version=0)


def test_who_says_nothing_is_answered_all_that_is_on_sale_by_relevance() -> None:
    criteria = Criteria()
    texts = (criteria.words, criteria.category, criteria.subcategory, criteria.brand, criteria.tag)
    assert texts == ("",) * 5
    assert (criteria.min_price, criteria.max_price, criteria.min_rating) == (None, None, 0.0)
    assert not criteria.in_stock
    assert not criteria.cheapest_first
    assert criteria.sort is Sort.RELEVANCE


def test_a_product_is_shown_by_the_first_image_that_one_of_its_variants_has() -> None:
    plain, pictured, other = (
        replace(a_variant(), images=images) for images in ((), ("a.jpg", "b.jpg"), ("c.jpg",))
    )
    assert some_details("lamp", plain, pictured, other).image == "a.jpg"
    assert some_details("lamp", plain).image == ""


def test_a_product_needs_no_more_than_a_name_a_category_and_variants() -> None:
    details = Details("lamp", "lighting", (a_variant(),), NOW)
    assert (details.description, details.subcategory, details.brand) == ("", "", "")
    assert (details.tags, details.specifications) == ((), {})
    variant = Variant(new_id(), "LAMP-1", details.variants[0].price)
    assert (variant.attributes, variant.images) == ({}, ())


def test_attributes_are_filtered_by_as_name_and_value() -> None:
    variant = replace(a_variant(), attributes={"color": "blue", "ratio": "16:9"})
    assert variant.pairs == ["color:blue", "ratio:16:9"]
