"""The use cases on a store in memory: what is kept, found, refused, and published."""

from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from stoa_catalog.model import Category, Filters, Product, ProductNotFound, Rating, SkuTaken, Withdrawn
from stoa_chassis.avro import Event, new_event
from stoa_chassis.clock import SystemClock
from stoa_chassis.errors import InvalidArgument, Unavailable
from stoa_chassis.ids import new_id
from stoa_contracts.money import Money
from stoa_events import ProductCreated, ProductDeleted, ProductRated, ProductUpdated, ReviewRatingChanged

from .conftest import Catalog, as_drafts, as_it_is, details, draft


async def names(catalog: Catalog[Product], **filters: Any) -> list[str]:
    found = await catalog.browsing.page(Filters(**filters), None, 100)
    return [entry.view.details.name for entry in found]


async def test_a_product_is_read_back_as_it_was_written(catalog: Catalog[Product]) -> None:
    written = await catalog.assortment.create(
        details(
            description="bright",
            subcategory="lights",
            brand="Lux",
            tags=("light", "new"),
            specifications={"socket": "E27"},
        ),
        [
            draft("0.01", attributes={"colour": "red"}, images=("a.jpg",), weight_grams=90),
            draft("9999999.99"),
        ],
    )
    assert await catalog.browsing.get(written.product_id, None) == as_it_is(written)


async def test_each_change_is_published_with_its_version(catalog: Catalog[Product]) -> None:
    product = await catalog.assortment.create(details(), [draft()])
    changed = await catalog.assortment.update(
        product.product_id, details("Better lamp"), as_drafts(product), product.etag
    )
    await catalog.assortment.delete(product.product_id)
    created, updated, deleted = await catalog.store.published(product.product_id)
    assert isinstance(created, ProductCreated)
    assert isinstance(updated, ProductUpdated)
    assert isinstance(deleted, ProductDeleted)
    assert (created.version, updated.version, deleted.version) == (1, 2, 3)
    assert (created.name, updated.name) == ("Lamp", "Better lamp")
    assert changed.etag != product.etag


async def test_a_sku_belongs_to_one_variant_of_the_shop(catalog: Catalog[Product]) -> None:
    taken = await catalog.assortment.create(details(), [draft(), draft()])
    sku = taken.variants[1].sku
    with pytest.raises(SkuTaken) as refused:
        await catalog.assortment.create(details(), [draft(), draft(sku=sku)])
    assert [violation.field for violation in refused.value.violations] == ["product.variants[1].sku"]
    other = await catalog.assortment.create(details(), [draft()])
    with pytest.raises(SkuTaken):
        await catalog.assortment.update(other.product_id, details(), [draft(sku=sku)], other.etag)
    assert (await catalog.browsing.get(other.product_id, None)).version == 1


async def test_a_deleted_product_is_gone_and_frees_its_skus(catalog: Catalog[Product]) -> None:
    product = await catalog.assortment.create(details(), [draft(), draft()])
    ids = [variant.variant_id for variant in product.variants]
    await catalog.assortment.delete(product.product_id)
    await catalog.assortment.delete(product.product_id)
    with pytest.raises(ProductNotFound):
        await catalog.browsing.get(product.product_id, None)
    with pytest.raises(ProductNotFound):
        await catalog.assortment.update(product.product_id, details(), as_drafts(product), "2")
    assert not await catalog.browsing.batch([product.product_id])
    assert await catalog.browsing.with_variants([ids[1], new_id()]) == (
        [],
        [Withdrawn(product.product_id, product.details.name, ids[1])],
    )
    assert len(await catalog.store.published(product.product_id)) == 2
    again = await catalog.assortment.create(details(), [draft(sku=product.variants[0].sku)])
    assert again.product_id != product.product_id


async def test_a_variant_that_was_removed_is_gone_and_frees_its_sku(catalog: Catalog[Product]) -> None:
    product = await catalog.assortment.create(details(), [draft(), draft()])
    removed, kept = product.variants
    changed = await catalog.assortment.update(
        product.product_id, details(), as_drafts(product)[1:], product.etag
    )
    found, withdrawn = await catalog.browsing.with_variants([removed.variant_id, kept.variant_id])
    assert [variant_id for variant_id, _ in found] == [kept.variant_id]
    assert not withdrawn, "its product is still on sale"
    other = await catalog.assortment.create(details(), [draft(sku=removed.sku)])
    assert other.variants[0].variant_id != removed.variant_id
    both = [*as_drafts(changed), draft(sku=removed.sku)]
    with pytest.raises(SkuTaken):
        await catalog.assortment.update(product.product_id, details(), both, changed.etag)
    await catalog.assortment.delete(product.product_id)


async def test_what_never_was_cannot_be_deleted(catalog: Catalog[Product]) -> None:
    with pytest.raises(ProductNotFound):
        await catalog.assortment.delete(new_id())


async def test_prices_are_in_the_currency_of_the_shop(catalog: Catalog[Product]) -> None:
    product = await catalog.assortment.create(details(), [draft()])
    foreign = [draft(), replace(draft(), price=Money(Decimal(1), "EUR"))]
    for refused_call in (
        catalog.assortment.create(details(), foreign),
        catalog.assortment.update(product.product_id, details(), foreign, product.etag),
    ):
        with pytest.raises(InvalidArgument) as refused:
            await refused_call
        assert [violation.field for violation in refused.value.violations] == ["product.variants[1].price"]


async def test_a_look_is_recorded_with_who_it_was_and_one_at_nothing_is_not(
    catalog: Catalog[Product],
) -> None:
    product, viewer = await catalog.assortment.create(details(), [draft()]), new_id()
    for who in (viewer, None):
        await catalog.browsing.get(product.product_id, who)
    with pytest.raises(ProductNotFound):
        await catalog.browsing.get(new_id(), viewer)
    assert catalog.views.recorded == [(product.product_id, viewer), (product.product_id, None)]


async def test_lists_are_narrowed_by_what_is_asked(catalog: Catalog[Product]) -> None:
    shelf = uuid4().hex
    named: dict[str, dict[str, Any]] = {
        "a": {"subcategory": "x", "brand": "Lux"},
        "b": {"subcategory": "y", "brand": "Lux", "tags": ("new", "red")},
        "c": {"subcategory": "x", "tags": ("new",)},
    }
    for name, others in named.items():
        await catalog.assortment.create(details(name, shelf, **others), [draft()])
    assert await names(catalog, category=shelf) == ["c", "b", "a"]
    assert await names(catalog, category=shelf, subcategory="x") == ["c", "a"]
    assert await names(catalog, category=shelf, brand="Lux") == ["b", "a"]
    assert await names(catalog, category=shelf, tag="new", brand="Lux") == ["b"]
    assert await names(catalog, category=shelf, brand="$ne") == []
    assert await names(catalog, category=uuid4().hex) == []


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (None, None, ["gold", "wide", "plain"]),
        ("10", "10", ["plain"]),
        ("10.00", "10.0", ["plain"]),
        ("9.99", "10.01", ["plain"]),
        ("10.01", "89.99", []),  # between the prices of `wide`, of which none is within
        ("5", "5", ["wide"]),
        ("90", None, ["gold", "wide"]),
        (None, "9", ["wide"]),
        ("1000", None, ["gold"]),
        ("1000.51", None, []),
    ],
)
async def test_a_price_range_is_met_by_one_variant_within_both_bounds(
    catalog: Catalog[Product], priced_shelf: str, low: str | None, high: str | None, expected: list[str]
) -> None:
    bounds = {"min_price": low and Decimal(low), "max_price": high and Decimal(high)}
    assert await names(catalog, category=priced_shelf, **bounds) == expected


@pytest.fixture
async def priced_shelf(catalog: Catalog[Product]) -> str:
    shelf = uuid4().hex
    await catalog.assortment.create(details("plain", shelf), [draft("10")])
    await catalog.assortment.create(details("wide", shelf), [draft("5"), draft("90.00")])
    await catalog.assortment.create(details("gold", shelf), [draft("1000.50")])
    return shelf


async def test_pages_follow_each_other_without_gap_or_repetition(catalog: Catalog[Product]) -> None:
    shelf = uuid4().hex
    written = [await catalog.assortment.create(details(str(n), shelf), [draft()]) for n in range(7)]
    seen: list[UUID] = []
    before: UUID | None = None
    while page := await catalog.browsing.page(Filters(category=shelf), before, 3):
        seen += [product.product_id for product in page]
        before = seen[-1]
        # What comes in meanwhile is newer than all that is yet to be shown.
        await catalog.assortment.create(details("late", shelf), [draft()])
    assert seen == [product.product_id for product in reversed(written)]


async def test_batches_keep_the_order_asked_for_and_leave_out_what_is_not_there(
    catalog: Catalog[Product],
) -> None:
    one, two = [
        await catalog.assortment.create(details(name), [draft("1"), draft("2")]) for name in ("one", "two")
    ]
    asked = [two.product_id, new_id(), one.product_id, two.product_id]
    assert [p.details.name for p in await catalog.browsing.batch(asked)] == ["two", "one"]
    first, second = two.variants
    found, withdrawn = await catalog.browsing.with_variants(
        [second.variant_id, new_id(), first.variant_id, one.variants[0].variant_id, second.variant_id]
    )
    assert [(variant_id, product.details.name) for variant_id, product in found] == [
        (second.variant_id, "two"),
        (first.variant_id, "two"),
        (one.variants[0].variant_id, "one"),
    ]
    assert not withdrawn


async def test_categories_count_what_is_on_sale(catalog: Catalog[Product]) -> None:
    shelf = uuid4().hex

    async def counted() -> Any:
        found = [each for each in await catalog.browsing.categories() if each.name == shelf]
        return [(each.product_count, each.subcategories) for each in found]

    assert await counted() == []
    for part in ("x", "", "w", "x"):
        product = await catalog.assortment.create(details("a", shelf, subcategory=part), [draft()])
    assert await counted() == [(4, ("w", "x"))]
    await catalog.assortment.delete(product.product_id)
    assert await counted() == [(3, ("w", "x"))]


async def test_what_was_asked_for_is_answered_from_memory_until_it_changes(catalog: Catalog[Product]) -> None:
    product = await catalog.assortment.create(details(), [draft()])
    (variant,) = product.variants

    async def read() -> list[Any]:
        return [
            await catalog.browsing.get(product.product_id, None),
            await catalog.browsing.batch([product.product_id]),
            await catalog.browsing.with_variants([variant.variant_id]),
            [entry.view for entry in await catalog.browsing.page(Filters(category="home"), None, 5)],
            await catalog.browsing.categories(),
        ]

    first = await read()
    asked = catalog.read_model.reads
    assert await read() == first
    assert catalog.read_model.reads == asked
    other = catalog.another_process()
    changed = await other.assortment.update(
        product.product_id, details("New", "garden"), as_drafts(product), product.etag
    )
    new = as_it_is(changed)
    assert await read() == [
        new, [new], ([(variant.variant_id, new)], []), [], [Category("garden", 1, ())],
    ]  # fmt: skip


async def test_while_the_read_model_is_down_products_come_from_the_documents(
    catalog: Catalog[Product],
) -> None:
    held, cold = [await catalog.assortment.create(details(), [draft()]) for _ in range(2)]
    await catalog.browsing.get(held.product_id, None)
    catalog.read_model.down = True
    other = catalog.another_process()
    gone = await catalog.assortment.create(details("Gone"), [draft()])
    await catalog.assortment.delete(gone.product_id)
    added = await catalog.assortment.create(details("Added"), [draft()])
    for process in (catalog, other):
        for product in (held, cold, added):
            assert await process.browsing.get(product.product_id, None) == as_it_is(product)
        found, withdrawn = await process.browsing.with_variants(
            [each.variants[0].variant_id for each in (cold, gone)]
        )
        assert [view for _, view in found] == [as_it_is(cold)]
        assert [each.product_name for each in withdrawn] == ["Gone"]
        with pytest.raises(ProductNotFound):
            await process.browsing.get(gone.product_id, None)
        with pytest.raises(Unavailable):
            await process.browsing.page(Filters(), None, 5)
        with pytest.raises(Unavailable):
            await process.browsing.categories()


async def test_a_list_that_is_held_is_shown_while_the_read_model_is_down(catalog: Catalog[Product]) -> None:
    product = await catalog.assortment.create(details(), [draft()])
    assert await names(catalog) == ["Lamp"]
    catalog.read_model.down = True
    assert await names(catalog) == ["Lamp"]
    assert (await catalog.browsing.batch([product.product_id])) == [as_it_is(product)]


async def test_readers_see_the_rating_that_buyers_have_given_whichever_order_its_changes_come_in(
    catalog: Catalog[Product],
) -> None:
    product = await catalog.assortment.create(details(), [draft()])
    for total, count, version in ((5, 1, 1), (12, 3, 4), (9, 2, 3), (12, 3, 4)):
        await catalog.assortment.on_rating_changed(
            rating_changed(product.product_id, total=total, count=count, version=version)
        )
    shown = await catalog.browsing.get(product.product_id, None)
    assert (shown.rating, shown.etag) == (Rating(4.0, 3, 4), product.etag)
    published = await catalog.store.published(product.product_id)
    assert [event.version for event in published if isinstance(event, ProductRated)] == [1, 4]


async def test_a_rating_of_a_product_that_is_not_there_is_passed_over(catalog: Catalog[Product]) -> None:
    await catalog.assortment.on_rating_changed(rating_changed(new_id(), total=5, count=1, version=1))


def rating_changed(product_id: UUID, **change: int) -> Event[ReviewRatingChanged]:
    payload = ReviewRatingChanged(product_id=product_id, **change)
    return new_event(payload, SystemClock(), str(new_id()))
