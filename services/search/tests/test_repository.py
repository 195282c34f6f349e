"""What the use cases rely on, of indices in memory and of OpenSearch alike."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opensearchpy.exceptions import TransportError

from stoa_chassis.ids import new_id
from stoa_chassis.opensearch import EngineUnavailable, connect
from stoa_chassis.outages import is_outage
from stoa_search import repository
from stoa_search.model import (
    Availability,
    Available,
    Criteria,
    Described,
    Details,
    Entry,
    Found,
    Rated,
    Rating,
    Sort,
    Suggestion,
    Variant,
)
from stoa_search.ports import Stored
from stoa_search.testing import a_variant, some_details

from .conftest import Store


async def add(store: Store, details: Details, *in_stock: Variant, rating: Rating | None = None) -> UUID:
    """Write a product, some of whose variants can be bought."""
    available = [Available(each.variant_id, Availability(True, 1)) for each in in_stock]
    rated = [Rated(rating)] if rating is not None else []
    return await store.write(new_id(), Described(1, details), *rated, *available)


async def search(store: Store, *, limit: int = 100, **criteria: Any) -> Found:
    await store.refresh()
    return await store.index.search(Criteria(**criteria), {}, limit, facets=True)


async def found(store: Store, **criteria: Any) -> set[str]:
    return {hit.name for hit in (await search(store, **criteria)).hits}


async def counts(store: Store, **criteria: Any) -> Mapping[str, Mapping[str, int]]:
    facets = (await search(store, **criteria)).facets
    return {facet.field: {bucket.value: bucket.count for bucket in facet.buckets} for facet in facets}


async def test_every_field_of_an_entry_comes_back_as_it_was(store: Store) -> None:
    variant = a_variant("19.90", **{"color": "blue", "cut.shape": "a:b"})
    entry = Entry(
        new_id(),
        3,
        some_details("Alba", variant),
        Rating(4.5, 2, 7),
        {variant.variant_id: Availability(True, 9)},
    )
    (empty,) = await store.indices.fed.read([entry.product_id])
    assert empty.entry == Entry(entry.product_id)
    assert await store.indices.fed.write([replace(empty, entry=entry)]) in (set(), [], ())
    (again,) = await store.indices.fed.read([entry.product_id])
    assert again.entry == entry


async def test_an_entry_is_written_only_if_nobody_else_has_written_it(store: Store) -> None:
    product_id = new_id()
    for is_new in (True, False):
        (mine,) = await store.indices.fed.read([product_id])
        (theirs,) = await store.indices.fed.read([product_id])
        assert (mine.writing is None) is is_new
        mine.entry.version += 1
        assert set(await store.indices.fed.write([mine])) == set()
        assert set(await store.indices.fed.write([theirs])) == {product_id}


async def test_a_hit_shows_all_of_a_product(store: Store) -> None:
    variant = a_variant("19.90")
    product_id = await add(
        store, some_details("Alba", variant, a_variant("30")), variant, rating=Rating(4.5, 2, 1)
    )
    (hit,) = (await search(store)).hits
    assert (hit.product_id, hit.name, hit.brand, hit.category) == (product_id, "Alba", "Lumora", "Lighting")
    assert (hit.price_from, hit.image, hit.in_stock) == (variant.price, "/a.jpg", True)
    assert hit.rating == Rating(4.5, 2)


async def test_what_is_not_on_sale_is_not_found(store: Store) -> None:
    product_id = await add(store, some_details("Alba"))
    unknown, variant = new_id(), a_variant()
    await store.write(unknown, Available(variant.variant_id, Availability(True, 1)))
    await store.write(product_id, Described(2, None))
    assert await found(store) == set()
    assert await store.index.suggest("alba", 10) == []


async def test_filters_leave_out_what_does_not_match_whatever_its_case(store: Store) -> None:
    await add(store, some_details("Alba", category="Lighting", brand="Lumora", tags=("led", "desk")))
    await add(
        store, some_details("Birk", category="Furniture", subcategory="Chairs", brand="Oak", tags=("desk",))
    )
    for filters, names in (
        ({"category": "lighting"}, {"Alba"}),
        ({"subcategory": "CHAIRS"}, {"Birk"}),
        ({"brand": "Oak"}, {"Birk"}),
        ({"tag": "desk"}, {"Alba", "Birk"}),
        ({"tag": "led"}, {"Alba"}),
        ({"tag": "led", "brand": "oak"}, set()),
        ({"category": "Light"}, set()),
    ):
        assert await found(store, **filters) == names, filters


async def test_price_stock_and_attributes_are_those_of_one_variant(store: Store) -> None:
    blue, red = a_variant("10", color="Blue", size="S"), a_variant("30", color="red", size="L")
    await add(store, some_details("Alba", blue, red), red)
    for criteria, expected in (
        ({"min_price": Decimal(10), "max_price": Decimal(10)}, True),
        ({"min_price": Decimal(11), "max_price": Decimal(29)}, False),
        ({"attributes": {"color": ("blue",)}}, True),
        ({"attributes": {"color": ("green", "blue")}}, True),
        ({"attributes": {"color": ("blue",), "size": ("l",)}}, False),
        ({"attributes": {"color": ("blue",)}, "in_stock": True}, False),
        ({"attributes": {"color": ("red",)}, "in_stock": True}, True),
        ({"attributes": {"color": ("red",)}, "max_price": Decimal(20)}, False),
        ({"in_stock": True, "max_price": Decimal(20)}, False),
    ):
        assert bool(await found(store, **criteria)) is expected, criteria


async def test_ratings_can_be_asked_for(store: Store) -> None:
    await add(store, some_details("good"), rating=Rating(4.5, 2, 1))
    await add(store, some_details("unknown"))
    assert await found(store, min_rating=4.5) == {"good"}
    assert await found(store, min_rating=4.6) == set()


async def test_counts_are_of_what_was_found(store: Store) -> None:
    blue, red = a_variant("10", color="blue"), a_variant("30", color="red")
    await add(store, some_details("Alba", blue, red), red, rating=Rating(4.5, 2, 1))
    await add(store, some_details("Birk", a_variant("12", color="blue"), brand="Oak", tags=("led",)))
    assert await counts(store) == {
        "category": {"Lighting": 2},
        "subcategory": {"Desk lamps": 2},
        "brand": {"Lumora": 1, "Oak": 1},
        "tag": {"lamp": 1, "desk": 1, "led": 1},
        "price": {"10-25": 2, "25-50": 1},
        "min_rating": {"1": 1, "2": 1, "3": 1, "4": 1},
        "in_stock": {"true": 1},
        "attribute:color": {"blue": 2, "red": 1},
    }


async def test_counts_leave_out_their_own_filter_and_keep_the_others(store: Store) -> None:
    for brand, color, price in (
        ("Lumora", "blue", "10"), ("Lumora", "red", "30"), ("Oak", "blue", "30"), ("Oak", "green", "60"),
    ):  # fmt: skip
        variant = a_variant(price, color=color)
        await add(store, some_details(f"{brand} {color}", variant, brand=brand), variant)
    found = await counts(store, brand="oak", attributes={"color": ("blue",)})
    assert found["brand"] == {"Lumora": 1, "Oak": 1}
    assert found["attribute:color"] == {"blue": 1, "green": 1}
    assert found["price"] == {"25-50": 1}
    assert found["category"] == {"Lighting": 1}
    found = await counts(store, max_price=Decimal(20))
    assert found["price"] == {"10-25": 1, "25-50": 2, "50-100": 1}
    assert found["brand"] == {"Lumora": 1}
    assert (await search(store, brand="oak", attributes={"color": ("blue",)})).total_size == 1


async def test_products_come_in_the_order_asked_for_and_equal_ones_by_their_ids(store: Store) -> None:
    now = datetime(2026, 11, 26, 12, tzinfo=UTC)
    ids = [
        await add(
            store,
            some_details(str(number), a_variant(price), created_at=now + timedelta(hours=number)),
            rating=Rating(average, count, 1),
        )
        for number, (price, average, count) in enumerate(
            [("20", 4.0, 2), ("10", 4.0, 3), ("20", 5.0, 1), ("30", 0, 0)]
        )
    ]
    for sort, order in (
        (Sort.PRICE_ASC, [1, 0, 2, 3]),
        (Sort.PRICE_DESC, [3, 0, 2, 1]),
        (Sort.NEWEST, [3, 2, 1, 0]),
        (Sort.RATING, [2, 1, 0, 3]),
        (Sort.RELEVANCE, [0, 1, 2, 3]),
    ):
        hits = (await search(store, sort=sort)).hits
        assert [ids.index(hit.product_id) for hit in hits] == order, sort


async def test_pages_show_the_shop_as_it_was_for_the_first_one(store: Store) -> None:
    ids = [await add(store, some_details("lamp", a_variant(str(price)))) for price in range(1, 8)]
    await store.refresh()
    seen: list[UUID] = []
    after: Mapping[str, Any] = {}
    for _ in range(3):
        page = await store.index.search(Criteria(words="lamp", sort=Sort.PRICE_ASC), after, 3, facets=False)
        seen += [hit.product_id for hit in page.hits]
        after = page.places[-1]
        assert page.total_size == 7
        # What was to come is first now, and what was seen comes last.
        await store.write(ids[6], Described(2 + len(seen), some_details("lamp", a_variant("0.50"))))
        await store.write(ids[0], Described(2 + len(seen), some_details("lamp", a_variant("99"))))
        await add(store, some_details("lamp", a_variant("3.50")))
        await _written(store)
    assert seen == ids


async def _written(store: Store) -> None:
    """Let new searches see what was written; those that page on don't."""
    views = getattr(store.indices, "views", None)
    if views is None:
        await store.refresh()


async def test_names_are_completed_with_categories_first(store: Store) -> None:
    lamp = await add(store, some_details("Alba Desk Lamp"))
    await add(store, some_details("Birk Chair", category="Furniture", subcategory="Chairs", brand="Oak"))
    await store.refresh()
    assert await store.index.suggest("desk la", 10) == [
        Suggestion("Desk lamps"), Suggestion("Alba Desk Lamp", lamp),
    ]  # fmt: skip
    assert [each.text for each in await store.index.suggest("lum", 10)] == ["Alba Desk Lamp"]
    assert [each.text for each in await store.index.suggest("LAMP", 10)] == ["Desk lamps", "Alba Desk Lamp"]


async def test_a_new_index_is_written_to_before_it_is_searched(store: Store) -> None:
    deleted, lamp = new_id(), some_details("lamp")
    old = await add(store, some_details("old"))
    await store.write(deleted, Described(2, None))
    new = await store.indices.new()
    known = [entry async for page in new.known() for entry in page]
    assert [(entry.product_id, entry.version, entry.details) for entry in known] == [(deleted, 2, None)]
    added = await add(store, lamp)
    assert await found(store) == {"old", "lamp"}
    assert [each.writing is None for each in await new.entries.read([old])] == [True]
    assert [each.entry.details for each in await new.entries.read([added])] == [lamp]
    assert await store.indices.ensure()
    await new.use()
    assert await found(store) == {"lamp"}
    assert not await store.indices.ensure()


async def test_what_is_written_to_an_index_that_is_gone_says_so(store: Store) -> None:
    new = await store.indices.new()
    (stored,) = await new.entries.read([new_id()])
    await store.indices.new()
    with pytest.raises(Exception, match="index"):
        await new.entries.write([Stored(stored.entry, stored.index)])


# ------------------------------------------------------------------------------------- of OpenSearch alone


@pytest.mark.parametrize(
    ("status", "error"), [(429, EngineUnavailable), (503, EngineUnavailable), (400, TransportError)]
)
async def test_an_entry_that_the_engine_can_not_write_now_is_an_outage(
    status: int, error: type[Exception]
) -> None:
    async def answer(_: web.Request) -> web.Response:
        outcome = {"_id": str(new_id()), "status": status, "error": {"type": "some_exception"}}
        return web.json_response({"errors": True, "items": [{"index": outcome}]})

    app = web.Application()
    app.router.add_post("/_bulk", answer)
    async with TestServer(app) as server, connect(str(server.make_url("/")), connect_timeout=0) as client:
        with pytest.raises(error) as raised:
            await repository.Entries(client, index="products").write([Stored(Entry(new_id()), "products")])
    assert is_outage(raised.value) is (error is EngineUnavailable)


@pytest.mark.stack
@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("desk lamp", {"Alba Desk Lamp"}),
        ("lamps for desks", {"Alba Desk Lamp"}),
        ("dsk lmap", {"Alba Desk Lamp"}),
        ("light", {"Alba Desk Lamp"}),
        ("lumora brass", {"Alba Desk Lamp"}),
        ("couch", {"Corso Sofa"}),
        ("bouclé", {"Corso Sofa"}),
        ("boucle sofa", {"Corso Sofa"}),
        ("sku-42", {"Corso Sofa"}),
        ("xyzzy", set()),
    ],
)
async def test_words_are_found_misspelt_in_another_form_or_by_what_means_the_same(
    in_opensearch: Store, words: str, names: set[str]
) -> None:
    await add(in_opensearch, some_details("Alba Desk Lamp", a_variant("30", color="brass")))
    sofa = replace(a_variant("900", fabric="sand bouclé"), sku="SKU-42")
    await add(
        in_opensearch,
        some_details(
            "Corso Sofa", sofa, category="Furniture", subcategory="Sofas", brand="Casa", tags=("seating",),
            description="Room for three.", specifications={},
        ),
    )  # fmt: skip
    assert await found(in_opensearch, words=words) == names


@pytest.mark.stack
async def test_a_slip_is_forgiven_in_suggestions(in_opensearch: Store) -> None:
    await add(in_opensearch, some_details("Alba Desk Lamp"))
    await in_opensearch.refresh()
    assert [each.text for each in await in_opensearch.index.suggest("dsek", 10)] == [
        "Desk lamps",
        "Alba Desk Lamp",
    ]


@pytest.mark.stack
async def test_who_pages_on_over_a_rebuild_goes_on_at_the_same_place(in_opensearch: Store) -> None:
    store = in_opensearch
    said = {new_id(): some_details("lamp", a_variant(str(price))) for price in range(1, 7)}
    for product_id, details in said.items():
        await store.write(product_id, Described(1, details))
    first = await search(store, words="lamp", sort=Sort.PRICE_ASC, limit=3)
    new = await store.indices.new()
    for product_id, details in said.items():
        await store.write(product_id, Described(2, details))
    await new.use()
    criteria = Criteria(words="lamp", sort=Sort.PRICE_ASC)
    second = await store.index.search(criteria, first.places[-1], 10, facets=False)
    assert [hit.product_id for hit in (*first.hits, *second.hits)] == list(said)


@pytest.mark.stack
@pytest.mark.parametrize("name", ["a[b]>c", "x.*", "größe", '"~#@&<>', "n" * 50])
async def test_no_name_of_an_attribute_is_too_strange(in_opensearch: Store, name: str) -> None:
    await add(
        in_opensearch, some_details("lamp", a_variant("1", **{name: "a"}), a_variant("1", **{name: "b"}))
    )
    found = await counts(in_opensearch, attributes={name: ("a",)})
    assert found[f"attribute:{name}"] == {"a": 1, "b": 1}
