"""The read models of several processes follow one store, by real events, and catch up with what they miss."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID, uuid4

import pytest
from bson import Decimal128
from pymongo.asynchronous.collection import AsyncCollection

from stoa_catalog import testing
from stoa_catalog.events import followers
from stoa_catalog.model import Filters, Product, ProductNotFound
from stoa_chassis.avro import EventCodec
from stoa_chassis.ids import new_id
from stoa_chassis.kafka import Broadcast
from stoa_chassis.memory import MemoryStore
from stoa_chassis.mongo import Document, MongoOutbox
from stoa_chassis.testing import eventually

from .conftest import Catalog, as_drafts, as_it_is, details, draft

Process = Catalog[Product]


@asynccontextmanager
async def running(*work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(each()) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def follow(process: Process, bootstrap: str, codec: EventCodec) -> tuple[Broadcast, asyncio.Event]:
    """What brings a process the events of the others, and says when it has begun to."""
    following = asyncio.Event()

    async def begin() -> None:
        await process.projector.reconcile()
        following.set()

    return Broadcast(bootstrap, followers(process.projector), codec, begin), following


def shown(process: Process, product: Product) -> Product | None:
    listing = process.projector.model.get(product.product_id)
    return listing.view if listing else None


@pytest.mark.stack
async def test_what_one_process_writes_the_others_show(
    catalog_on_mongo: Process, kafka_bootstrap: str, codec: EventCodec, outbox: MongoOutbox
) -> None:
    catalog = catalog_on_mongo
    other = await catalog.another_process()
    broadcast, following = follow(other, kafka_bootstrap, codec)
    async with running(broadcast.run, outbox.run):
        await following.wait()
        product = await catalog.assortment.create(details(category=uuid4().hex), [draft()])
        assert shown(catalog, product) == as_it_is(product)
        await eventually(lambda: shown(other, product) == as_it_is(product))
        changed = await catalog.assortment.update(
            product.product_id, details("New", "elsewhere"), [draft()], product.etag
        )
        assert shown(catalog, product) == as_it_is(changed)
        await eventually(lambda: shown(other, product) == as_it_is(changed))
        assert await other.browsing.with_variants([product.variants[0].variant_id]) == ([], [])
        await catalog.assortment.delete(product.product_id)
        assert shown(catalog, product) is None
        await eventually(lambda: shown(other, product) is None)
        with pytest.raises(ProductNotFound):
            await other.browsing.get(product.product_id, None)


async def test_a_process_that_starts_shows_what_there_is(catalog: Process) -> None:
    kept = await catalog.assortment.create(details(), [draft()])
    dropped = await catalog.assortment.create(details(), [draft()])
    await catalog.assortment.delete(dropped.product_id)
    started = await catalog.another_process()
    assert shown(started, kept) == as_it_is(kept)
    assert shown(started, dropped) is None
    assert len(started.projector.model) == 1


async def test_what_was_added_a_moment_ago_is_found_before_its_event_comes(catalog: Process) -> None:
    other = await catalog.another_process()
    products = [await catalog.assortment.create(details(), [draft()]) for _ in range(3)]
    first, second, third = products
    assert await other.browsing.get(first.product_id, None) == as_it_is(first)
    assert await other.browsing.batch([second.product_id]) == [as_it_is(second)]
    variant_id = third.variants[0].variant_id
    assert await other.browsing.with_variants([variant_id]) == ([(variant_id, as_it_is(third))], [])


async def test_changes_whose_events_never_come_are_found_by_comparing(
    catalog: Process, memory: MemoryStore[testing.Rows]
) -> None:
    changed = await catalog.assortment.create(details(), [draft()])
    dropped = await catalog.assortment.create(details(), [draft()])
    removed = await catalog.assortment.create(details(), [draft()])
    other = await catalog.another_process()
    added = await catalog.assortment.create(details(), [draft()])
    changed = await catalog.assortment.update(
        changed.product_id, details("New"), as_drafts(changed), changed.etag
    )
    await catalog.assortment.delete(dropped.product_id)
    kept = {key: each for key, each in memory.rows.products.items() if key != removed.product_id}
    memory.rows = testing.Rows(kept)  # by hand, past the service
    before = shown(other, changed)
    assert before is not None
    assert before.details.name == "Lamp"
    await other.projector.reconcile()
    assert shown(other, changed) == as_it_is(changed)
    assert shown(other, added) == as_it_is(added)
    assert shown(other, dropped) is None
    assert shown(other, removed) is None


async def test_without_kafka_reads_go_on_and_comparing_goes_on(catalog: Process) -> None:
    other = await catalog.another_process()
    broadcast, following = follow(other, "127.0.0.1:1", EventCodec("http://127.0.0.1:1"))
    async with running(broadcast.run):
        product = await catalog.assortment.create(details(), [draft()])
        await other.projector.reconcile()
        assert shown(other, product) == as_it_is(product)
        assert not following.is_set()


async def test_a_rebuild_mends_what_is_wrong_and_says_so(catalog: Process) -> None:
    products = [await catalog.assortment.create(details(), [draft()]) for _ in range(4)]
    wrong, ahead, lost, right = products
    projector = catalog.projector
    await projector.load()
    model = projector.model
    right_listing, behind = model.get(wrong.product_id), model.get(ahead.product_id)
    assert right_listing is not None
    assert behind is not None
    model.put(replace(right_listing, view=as_it_is(lost)))
    model.put(replace(behind, version=behind.version + 7))
    model.forget(lost.product_id)
    rebuilt = await projector.rebuild(run := new_id())
    assert set(rebuilt.differed) == {wrong.product_id, ahead.product_id, lost.product_id}
    assert [shown(catalog, product) for product in products] == list(map(as_it_is, products))
    assert await projector.rebuild(run) is rebuilt
    assert (await projector.rebuild(new_id())).differed == []
    assert shown(catalog, right) == as_it_is(right)


async def test_writes_during_a_rebuild_are_in_the_new_model_and_no_difference(catalog: Process) -> None:
    kept = [await catalog.assortment.create(details(), [draft()]) for _ in range(20)]
    await catalog.projector.load()

    async def write() -> None:
        for at, product in enumerate(kept):
            if at % 3 == 0:
                await catalog.assortment.delete(product.product_id)
            else:
                await catalog.assortment.update(
                    product.product_id, details(f"New {at}"), as_drafts(product), product.etag
                )
            await catalog.assortment.create(details(), [draft()])

    rebuilt, _ = await asyncio.gather(catalog.projector.rebuild(new_id()), write())
    assert rebuilt.differed == []
    assert (await catalog.projector.rebuild(new_id())).differed == []


@pytest.mark.stack
async def test_lists_are_those_that_the_store_itself_would_give(
    catalog_on_mongo: Process, collection: AsyncCollection[Document]
) -> None:
    catalog = catalog_on_mongo
    random = Random(5)
    shelves = [uuid4().hex for _ in range(2)]
    parts, brands, tags = ["", "x", "y"], ["", "Lux", "Nox"], ["new", "red", "gift"]
    for _ in range(60):
        await catalog.assortment.create(
            details(
                category=random.choice(shelves),
                subcategory=random.choice(parts),
                brand=random.choice(brands),
                tags=tuple(random.sample(tags, random.randint(0, 3))),
            ),
            [draft(f"{random.randint(1, 40)}.{random.choice(['0', '50', '99'])}") for _ in range(2)],
        )
    other = await catalog.another_process()
    for _ in range(60):
        low, high = sorted(random.sample(range(1, 42), 2))
        wanted = Filters(
            category=random.choice(shelves),
            subcategory=random.choice(parts),
            brand=random.choice(brands),
            tag=random.choice(["", *tags]),
            min_price=random.choice([None, Decimal(low)]),
            max_price=random.choice([None, Decimal(high), Decimal(f"{high}.5")]),
        )
        expected = await asked_of_the_store(collection, wanted)
        for process in (catalog, other):
            found = [listing.product_id for listing in process.browsing.page(wanted, None, 1000)]
            assert found == expected
            page = process.browsing.page(wanted, expected[0], 5) if expected else []
            assert [listing.product_id for listing in page] == expected[1:6]


async def asked_of_the_store(collection: AsyncCollection[Document], wanted: Filters) -> Sequence[UUID]:
    """A list as a query finds it: what the read model must agree with."""
    fields = {
        "category": wanted.category,
        "subcategory": wanted.subcategory,
        "brand": wanted.brand,
        "tags": wanted.tag,
    }
    query: dict[str, Any] = {"deleted_at": None} | {name: value for name, value in fields.items() if value}
    bounds = {"$gte": wanted.min_price, "$lte": wanted.max_price}
    if within := {name: Decimal128(bound) for name, bound in bounds.items() if bound is not None}:
        query["variants"] = {"$elemMatch": {"price.amount": within}}
    found = collection.find(query, {"_id": 1}).sort("_id", -1)
    return [document["_id"] async for document in found]
