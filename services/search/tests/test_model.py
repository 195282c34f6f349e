"""What makes an entry, in whatever order it is heard of, and what a query says of prices."""

from collections.abc import Sequence
from copy import deepcopy
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from stoa_chassis.errors import InvalidArgument
from stoa_chassis.ids import new_id
from stoa_search.model import (
    PRICE_STEPS,
    Availability,
    Available,
    Change,
    Criteria,
    Described,
    Entry,
    PriceWords,
    Rated,
    Rating,
    price_range,
    price_words,
)
from stoa_search.testing import a_variant, some_details

_VARIANTS = [a_variant(), a_variant(), a_variant()]
_PRODUCT = new_id()
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
            assert change.apply(entry)
    before = deepcopy(entry)
    change = data.draw(some.sampled_from([change for history in _HISTORIES for change in history]))
    assert not change.apply(entry)
    assert entry == before


def test_a_product_is_in_stock_if_one_of_its_variants_is() -> None:
    blue, red, gone = a_variant(), a_variant(), a_variant()
    entry = Entry(new_id(), 1, some_details("lamp", blue, red))
    assert not entry.in_stock
    Available(gone.variant_id, Availability(True, 1)).apply(entry)
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


def test_ranges_of_prices_are_named_by_their_bounds() -> None:
    assert [price_range(step) for step in PRICE_STEPS][:2] == ["0-10", "10-25"]
    assert price_range(PRICE_STEPS[-1]) == "1000-"
