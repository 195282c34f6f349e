"""What a process holds stays within its bounds, and never outlives a change."""

import gc
import tracemalloc
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoa_catalog.hot_set import HotSet
from stoa_catalog.model import Category
from stoa_catalog.read_model import Entry
from stoa_chassis.ids import new_id


def an_entry(
    product_id: UUID | None = None, revision: int = 1, variants: int = 1, view: bytes = b"x"
) -> Entry[bytes]:
    return Entry(
        product_id or new_id(), revision, True, "Lamp", tuple(new_id() for _ in range(variants)), view
    )


@pytest.fixture
def hot() -> HotSet[bytes]:
    return HotSet(1, len)


def test_what_is_kept_is_found_by_product_and_by_variant(hot: HotSet[bytes]) -> None:
    entry = an_entry(variants=2)
    hot.keep([entry], hot.ticket)
    assert hot.get(entry.product_id) is entry
    assert [hot.with_variant(each) for each in entry.variant_ids] == [entry, entry]
    assert hot.get(new_id()) is None
    assert hot.with_variant(new_id()) is None


def test_of_two_revisions_the_one_that_came_last_is_held_with_its_variants_alone(hot: HotSet[bytes]) -> None:
    old = an_entry()
    new = an_entry(old.product_id, 2)
    for entry in (old, new):
        hot.keep([entry], hot.ticket)
    assert hot.get(old.product_id) is new
    assert hot.with_variant(old.variant_ids[0]) is None
    assert hot.with_variant(new.variant_ids[0]) is new


def test_a_change_forgets_the_product_and_every_list(hot: HotSet[bytes]) -> None:
    changed, other = an_entry(), an_entry()
    hot.keep([changed, other], hot.ticket)
    hot.keep_page("all", [changed, other], hot.ticket)
    hot.keep_page("others", [other], hot.ticket)
    hot.keep_categories([Category("home", 2, ())], hot.ticket)
    hot.changed(changed.product_id)
    assert hot.get(changed.product_id) is None
    assert hot.with_variant(changed.variant_ids[0]) is None
    assert hot.get(other.product_id) is other
    assert (hot.page("all"), hot.page("others"), hot.categories()) == (None, None, None)


def test_what_changes_while_the_read_model_is_asked_is_not_held(hot: HotSet[bytes]) -> None:
    asked, other = an_entry(), an_entry()
    ticket = hot.ticket
    hot.changed(asked.product_id)
    hot.keep([asked, other], ticket)
    hot.keep_page("all", [asked, other], ticket)
    hot.keep_categories([Category("home", 2, ())], ticket)
    assert hot.get(asked.product_id) is None
    assert hot.get(other.product_id) is other
    assert (hot.page("all"), hot.categories()) == (None, None)
    hot.keep([asked], hot.ticket)
    assert hot.get(asked.product_id) is asked


def test_of_very_many_changes_meanwhile_nothing_is_held(hot: HotSet[bytes]) -> None:
    entry, ticket = an_entry(), hot.ticket
    for _ in range(1001):
        hot.changed(new_id())
    hot.keep([entry], ticket)
    assert hot.get(entry.product_id) is None


def test_when_anything_may_have_changed_everything_is_forgotten(hot: HotSet[bytes]) -> None:
    entry, ticket = an_entry(), hot.ticket
    hot.keep([entry], ticket)
    hot.keep_page("all", [entry], ticket)
    hot.clear()
    hot.keep([entry], ticket)
    assert hot.get(entry.product_id) is None
    assert hot.with_variant(entry.variant_ids[0]) is None
    assert hot.page("all") is None
    assert (len(hot), hot.bytes) == (0, 0)


def test_what_was_not_asked_for_for_long_makes_room(hot: HotSet[bytes]) -> None:
    favourite, first = an_entry(), an_entry()
    hot.keep([first, favourite], hot.ticket)
    for _ in range(2_000):
        hot.keep([an_entry()], hot.ticket)
        assert hot.get(favourite.product_id) is favourite
    assert hot.get(first.product_id) is None
    assert hot.with_variant(first.variant_ids[0]) is None


def test_what_is_too_big_is_not_held_and_drives_nothing_out(hot: HotSet[bytes]) -> None:
    small, big = an_entry(), an_entry(view=b"x" * 2_000_000)
    hot.keep([small, big], hot.ticket)
    hot.keep_page("big", [big], hot.ticket)
    assert (hot.get(small.product_id), hot.get(big.product_id), hot.page("big")) == (small, None, None)
    assert hot.with_variant(big.variant_ids[0]) is None


_steps = st.lists(
    st.tuples(st.sampled_from("kplcx"), st.integers(0, 20), st.integers(0, 40_000)), max_size=80
)


@given(_steps)
def test_the_bytes_are_those_of_what_is_held(steps: list[tuple[str, int, int]]) -> None:
    hot, ids = HotSet[bytes](0.2, len), [new_id() for _ in range(21)]
    for step, number, size in steps:
        entry = an_entry(ids[number], view=bytes(size))
        match step:
            case "k":
                hot.keep([entry], hot.ticket)
            case "p":
                hot.keep_page(number, [entry] * (number % 3), hot.ticket)
            case "l":
                hot.page(number)
            case "c":
                hot.changed(ids[number])
            case _:
                hot.get(ids[number])
        assert hot.bytes <= 200_000
    for each in ids:
        hot.changed(each)
    assert (len(hot), hot.bytes, vars(hot)["_by_variant"]) == (0, 0, {})


def test_as_much_memory_is_taken_as_was_allowed() -> None:
    hot = HotSet[bytes](4, len)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(6_000):
            hot.keep([an_entry(variants=number % 3 + 1, view=bytes(600))], hot.ticket)
            if number % 20 == 0:
                page = [an_entry(view=bytes(600)) for _ in range(21)]
                hot.keep_page(("page", number), page, hot.ticket)
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 2_400_000 < taken < 4_400_000
