"""The catalogue on a real document store: what is kept, found, refused, and published."""

import asyncio
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoa_catalog.model import EtagMismatch, Filters, Product, ProductNotFound, SkuTaken, VariantDraft
from stoa_chassis.ids import new_id
from stoa_chassis.testing import eventually

from .conftest import Catalog, as_it_is, details, draft

pytestmark = pytest.mark.stack


def as_drafts(product: Product) -> list[VariantDraft]:
    return [VariantDraft(v.variant_id, v.sku, v.price, v.attributes, v.images) for v in product.variants]


async def names(catalog: Catalog, limit: int = 100, **filters: Any) -> list[str]:
    return [listing.view.details.name for listing in catalog.browsing.page(Filters(**filters), None, limit)]


async def test_a_product_is_read_back_as_it_was_written(catalog: Catalog) -> None:
    written = await catalog.assortment.create(
        details(
            description="bright",
            subcategory="lights",
            brand="Lux",
            tags=("light", "new"),
            specifications={
                "socket": "E27",
                "a.b": "dot",
                "$set": "dollar",
                "100%": "percent",
                "%2E": "code",
            },
        ),
        [draft("0.01", attributes={"colour": "red"}, images=("a.jpg",)), draft("9999999.99")],
    )
    assert await catalog.browsing.get(written.product_id, None) == as_it_is(written)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=5), max_size=4))
async def test_any_names_of_properties_are_kept(catalog: Catalog, texts: dict[str, str]) -> None:
    written = await catalog.assortment.create(
        details(specifications=texts), [draft(attributes=texts, images=tuple(texts.values()))]
    )
    assert await catalog.browsing.get(written.product_id, None) == as_it_is(written)


async def test_changes_wait_to_be_published_in_the_document_that_they_changed(catalog: Catalog) -> None:
    product = await catalog.assortment.create(details(), [draft()])
    changed = await catalog.assortment.update(
        product.product_id, details("Better lamp"), as_drafts(product), product.etag
    )
    await catalog.assortment.delete(product.product_id)
    events = await catalog.pending(product.product_id)
    assert [(event.topic, event.payload.version) for event in events] == [
        ("product.created", 1),
        ("product.updated", 2),
        ("product.deleted", 3),
    ]
    assert changed.etag != product.etag


async def test_the_relay_publishes_what_waits(catalog: Catalog) -> None:
    relay = asyncio.create_task(catalog.outbox.run())
    product = await catalog.assortment.create(details(), [draft()])

    async def published() -> bool:
        return not await catalog.pending(product.product_id)

    try:
        await eventually(published)
    finally:
        relay.cancel()


async def test_of_two_writers_who_read_the_same_version_one_is_refused(catalog: Catalog) -> None:
    product = await catalog.assortment.create(details(), [draft()])
    results = await asyncio.gather(
        *(
            catalog.assortment.update(
                product.product_id, details(f"Lamp {number}"), as_drafts(product), product.etag
            )
            for number in range(8)
        ),
        return_exceptions=True,
    )
    (winner,) = [result for result in results if isinstance(result, Product)]
    assert all(isinstance(result, EtagMismatch) for result in results if result is not winner)
    assert (await catalog.browsing.get(product.product_id, None)).details == winner.details
    assert len(await catalog.pending(product.product_id)) == 2


async def test_the_same_update_sent_twice_at_once_succeeds_twice_and_counts_once(catalog: Catalog) -> None:
    product = await catalog.assortment.create(details(), [draft()])
    asked = [*as_drafts(product), draft()]
    first, second = await asyncio.gather(
        *(
            catalog.assortment.update(product.product_id, details("New"), asked, product.etag)
            for _ in range(2)
        )
    )
    assert as_it_is(first) == as_it_is(second)
    assert len(await catalog.pending(product.product_id)) == 2


async def test_a_sku_belongs_to_one_variant_of_the_shop(catalog: Catalog) -> None:
    taken = await catalog.assortment.create(details(), [draft(), draft()])
    sku = taken.variants[1].sku
    with pytest.raises(SkuTaken) as refused:
        await catalog.assortment.create(details(), [draft(), draft(sku=sku)])
    assert [violation.field for violation in refused.value.violations] == ["product.variants[1].sku"]
    other = await catalog.assortment.create(details(), [draft()])
    with pytest.raises(SkuTaken):
        await catalog.assortment.update(other.product_id, details(), [draft(sku=sku)], other.etag)
    assert (await catalog.browsing.get(other.product_id, None)).version == 1


async def test_of_many_who_want_a_sku_at_once_one_gets_it(catalog: Catalog) -> None:
    sku = uuid4().hex
    results = await asyncio.gather(
        *(catalog.assortment.create(details(), [draft(sku=sku)]) for _ in range(8)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["Product", *["SkuTaken"] * 7]


async def test_a_deleted_product_is_gone_and_frees_its_skus(catalog: Catalog) -> None:
    product = await catalog.assortment.create(details(), [draft(), draft()])
    ids = [variant.variant_id for variant in product.variants]
    await catalog.assortment.delete(product.product_id)
    await catalog.assortment.delete(product.product_id)
    with pytest.raises(ProductNotFound):
        await catalog.browsing.get(product.product_id, None)
    with pytest.raises(ProductNotFound):
        await catalog.assortment.update(product.product_id, details(), as_drafts(product), "2")
    assert not await catalog.browsing.batch([product.product_id])
    assert not await catalog.browsing.with_variants(ids)
    assert len(await catalog.pending(product.product_id)) == 2
    again = await catalog.assortment.create(details(), [draft(sku=product.variants[0].sku)])
    assert again.product_id != product.product_id


async def test_what_never_was_cannot_be_deleted(catalog: Catalog) -> None:
    with pytest.raises(ProductNotFound):
        await catalog.assortment.delete(new_id())


async def test_an_update_leaves_the_rating_as_it_is(catalog: Catalog) -> None:
    product = await catalog.assortment.create(details(), [draft()])
    await catalog.collection.update_one(
        {"_id": product.product_id}, {"$set": {"rating": {"average": 4.5, "count": 2}}}
    )
    await catalog.assortment.update(product.product_id, details("New"), as_drafts(product), product.etag)
    rating = (await catalog.browsing.get(product.product_id, None)).rating
    assert (rating.average, rating.count) == (4.5, 2)


async def test_lists_are_narrowed_by_what_is_asked(catalog: Catalog) -> None:
    shelf = uuid4().hex
    for name, others in {
        "a": {"subcategory": "x", "brand": "Lux"},
        "b": {"subcategory": "y", "brand": "Lux", "tags": ("new", "red")},
        "c": {"subcategory": "x", "tags": ("new",)},
    }.items():
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
    catalog: Catalog, priced_shelf: str, low: str | None, high: str | None, expected: list[str]
) -> None:
    bounds = {"min_price": low and Decimal(low), "max_price": high and Decimal(high)}
    assert await names(catalog, category=priced_shelf, **bounds) == expected


@pytest.fixture
async def priced_shelf(catalog: Catalog) -> str:
    shelf = uuid4().hex
    await catalog.assortment.create(details("plain", shelf), [draft("10")])
    await catalog.assortment.create(details("wide", shelf), [draft("5"), draft("90.00")])
    await catalog.assortment.create(details("gold", shelf), [draft("1000.50")])
    return shelf


async def test_pages_follow_each_other_without_gap_or_repetition(catalog: Catalog) -> None:
    shelf = uuid4().hex
    written = [await catalog.assortment.create(details(str(n), shelf), [draft()]) for n in range(7)]
    seen: list[UUID] = []
    before: UUID | None = None
    while page := catalog.browsing.page(Filters(category=shelf), before, 3):
        seen += [product.product_id for product in page]
        before = seen[-1]
        # What comes in meanwhile is newer than all that is yet to be shown.
        await catalog.assortment.create(details("late", shelf), [draft()])
    assert seen == [product.product_id for product in reversed(written)]


async def test_batches_keep_the_order_asked_for_and_leave_out_what_is_not_there(catalog: Catalog) -> None:
    one, two = [
        await catalog.assortment.create(details(name), [draft("1"), draft("2")]) for name in ("one", "two")
    ]
    asked = [two.product_id, new_id(), one.product_id, two.product_id]
    assert [p.details.name for p in await catalog.browsing.batch(asked)] == ["two", "one"]
    first, second = two.variants
    found = await catalog.browsing.with_variants(
        [second.variant_id, new_id(), first.variant_id, one.variants[0].variant_id, second.variant_id]
    )
    assert [(variant_id, product.details.name) for variant_id, product in found] == [
        (second.variant_id, "two"),
        (first.variant_id, "two"),
        (one.variants[0].variant_id, "one"),
    ]


async def test_categories_count_what_is_on_sale(catalog: Catalog) -> None:
    shelf = uuid4().hex

    def counted() -> Any:
        found = [each for each in catalog.browsing.categories() if each.name == shelf]
        return [(each.product_count, each.subcategories) for each in found]

    assert counted() == []
    for part in ("x", "", "w", "x"):
        product = await catalog.assortment.create(details("a", shelf, subcategory=part), [draft()])
    assert counted() == [(4, ("w", "x"))]
    await catalog.assortment.delete(product.product_id)
    assert counted() == [(3, ("w", "x"))]
