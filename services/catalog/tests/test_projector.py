"""The read model follows the documents however events come, and what is wrong with it is mended."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from random import Random
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from bson import Decimal128
from pymongo.asynchronous.collection import AsyncCollection

from stoa_catalog import projector, testing
from stoa_catalog.api import FORM, present
from stoa_catalog.events import handlers
from stoa_catalog.hot_set import HotSet
from stoa_catalog.model import Filters, Product, ProductNotFound, Rating
from stoa_catalog.projector import Projector
from stoa_catalog.service import Assortment, Browsing
from stoa_catalog.shared_read_model import SharedReadModel
from stoa_chassis.avro import Event, new_event
from stoa_chassis.errors import Unavailable
from stoa_chassis.ids import new_id
from stoa_chassis.memory import MemoryStore
from stoa_chassis.mongo import Document
from stoa_chassis.postgres import Database
from stoa_chassis.testing import SettableClock, eventually
from stoa_contracts.events import Payload
from stoa_events import ProductRated, ReviewRatingChanged

from .conftest import CURRENCY, Catalog, Store, as_drafts, as_it_is, details, draft

Process = Catalog[Product]


async def shown(process: Process, product: Product) -> Product | None:
    with suppress(ProductNotFound):
        return await process.browsing.get(product.product_id, None)
    return None


def has(process: Process, product: Product) -> Product | None:
    """What the read model itself has of a product on sale."""
    listing = process.read_model.kept.get(product.product_id)
    return listing.entry.view if listing and listing.entry.on_sale else None


async def consume(process: Process, payloads: Sequence[Payload]) -> None:
    """What the consumer group does with events."""
    for payload in payloads:
        event: Event[Any] = new_event(payload, SettableClock(), str(new_id()))
        await handlers(process.projector, process.assortment)[type(payload)](event)


async def rename(process: Process, product: Product, name: str = "New") -> Product:
    return await process.assortment.update(
        product.product_id, details(name), as_drafts(product), product.etag
    )


# ------------------------------------------------------------------------------------------- what is written


async def test_what_one_process_writes_all_processes_show_at_once(catalog: Process) -> None:
    other = catalog.another_process()
    product = await catalog.assortment.create(details(), [draft()])
    for process in (catalog, other):
        assert await shown(process, product) == as_it_is(product)
    changed = await rename(catalog, product)
    for process in (catalog, other):
        assert await shown(process, product) == as_it_is(changed)
    await catalog.assortment.delete(product.product_id)
    for process in (catalog, other):
        assert await shown(process, product) is None


async def test_a_change_that_could_not_be_projected_is_shown_here_and_elsewhere_when_its_event_came(
    catalog: Process,
) -> None:
    product = await catalog.assortment.create(details(), [draft()])
    other = catalog.another_process()
    assert await shown(other, product) == as_it_is(product)
    catalog.read_model.down = True
    changed = await rename(catalog, product)
    assert await shown(catalog, product) == as_it_is(changed)
    assert await shown(other, product) == as_it_is(product), "which it holds and knows no better of"
    events = await catalog.store.published(product.product_id)
    with pytest.raises(Unavailable):
        await consume(other, events)
    catalog.read_model.down = False
    await consume(other, events)
    for process in (catalog, other):
        assert await shown(process, product) == as_it_is(changed)


async def test_what_was_added_is_found_before_it_was_projected(catalog: Process) -> None:
    catalog.read_model.down = True
    product = await catalog.assortment.create(details(), [draft()])
    catalog.read_model.down = False
    other = catalog.another_process()
    assert await other.browsing.get(product.product_id, None) == as_it_is(product)
    assert has(other, product) == as_it_is(product)


async def test_events_that_come_late_twice_or_in_disorder_do_no_harm(catalog: Process) -> None:
    product = await catalog.assortment.create(details(), [draft()])
    changed = await rename(catalog, product)
    gone = await catalog.assortment.create(details(), [draft()])
    await catalog.assortment.delete(gone.product_id)
    events = [
        *await catalog.store.published(product.product_id),
        *await catalog.store.published(gone.product_id),
    ]
    kept = dict(catalog.read_model.kept)
    for disorder in (events[::-1], events, events[1::2]):
        await consume(catalog, disorder)
    assert catalog.read_model.kept == kept
    catalog.read_model.kept.clear()
    await consume(catalog, [*events[::-1], *events])
    assert catalog.read_model.kept == kept
    assert await shown(catalog, product) == as_it_is(changed)
    assert await shown(catalog, gone) is None


async def test_an_event_of_what_is_known_reads_no_document(
    catalog: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = await catalog.assortment.create(details(), [draft()])
    await consume(catalog, [ReviewRatingChanged(product_id=product.product_id, total=9, count=2, version=3)])
    await rename(catalog, product)

    async def read(_: object) -> Sequence[Product]:
        raise AssertionError("a document was read")

    monkeypatch.setattr(testing.ProductReader, "batch", lambda self, ids: read(ids))
    await consume(catalog, await catalog.store.published(product.product_id))


async def test_a_rating_that_a_later_version_was_projected_without_is_shown_when_its_event_comes(
    catalog: Process, memory: MemoryStore[testing.Rows]
) -> None:
    product = await catalog.assortment.create(details(), [draft()])
    await consume(catalog, [ReviewRatingChanged(product_id=product.product_id, total=9, count=2, version=3)])
    changed = await rename(catalog, product)
    await catalog.read_model.put([catalog.projector.listing(replace(changed, rating=Rating(), version=7))])
    rated = replace(memory.rows.products[product.product_id], version=7)
    memory.rows = testing.Rows({product.product_id: rated})
    assert (await shown(catalog, product)) == replace(rated, rating=Rating())
    events = await catalog.store.published(product.product_id)
    await consume(catalog, [event for event in events if isinstance(event, ProductRated)])
    assert (await shown(catalog, product)) == rated


async def test_a_deletion_is_for_ever(catalog: Process) -> None:
    product = await catalog.assortment.create(details(), [draft()])
    await catalog.assortment.delete(product.product_id)
    await catalog.read_model.put([catalog.projector.listing(product)])
    assert await shown(catalog, product) is None


# ------------------------------------------------------------------------------------------------- comparing


async def wronged(catalog: Process) -> list[Product]:
    """Four products of which the read model has one otherwise, one ahead, one not at all, and one right."""
    products = [await catalog.assortment.create(details(), [draft()]) for _ in range(4)]
    wrong, ahead, lost, _ = products
    kept = catalog.read_model.kept
    of_wrong, of_ahead = kept[wrong.product_id], kept[ahead.product_id]
    kept[wrong.product_id] = replace(of_wrong, entry=replace(of_wrong.entry, view=as_it_is(lost)))
    kept[ahead.product_id] = replace(of_ahead, entry=replace(of_ahead.entry, revision=7 << 40))
    del kept[lost.product_id]
    for product in products:
        catalog.hot.changed(product.product_id)
    return products


async def test_a_rebuild_mends_what_is_wrong_and_says_so(
    catalog: Process, memory: MemoryStore[testing.Rows]
) -> None:
    products = await wronged(catalog)
    removed = await catalog.assortment.create(details(), [draft()])
    gone = await catalog.assortment.create(details(), [draft()])
    await catalog.assortment.delete(gone.product_id)
    memory.rows = testing.Rows(  # by hand, past the service
        {key: each for key, each in memory.rows.products.items() if key != removed.product_id}
    )
    other = catalog.another_process()
    assert await shown(other, removed) == as_it_is(removed)
    rebuilt = await catalog.projector.rebuild()
    assert set(rebuilt.differed) == {*(each.product_id for each in products[:3]), removed.product_id}
    assert rebuilt.replayed == 4
    for process in (catalog, other):
        assert [await shown(process, product) for product in products] == list(map(as_it_is, products))
        assert await shown(process, removed) is None
    assert (await catalog.projector.rebuild()).differed == []


async def test_a_rebuild_of_more_than_fits_on_a_page_sees_everything_once(
    catalog: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector, "_PAGE", 3)
    monkeypatch.setattr(projector, "_SUSPECTS", 4)
    products = [await catalog.assortment.create(details(), [draft()]) for _ in range(9)]
    for on_sale in (9, 8):
        catalog.read_model.kept.clear()
        rebuilt = await catalog.projector.rebuild()
        assert (rebuilt.replayed, len(rebuilt.differed)) == (on_sale, 9)
        await catalog.assortment.delete(products.pop().product_id)
    assert (await catalog.projector.rebuild()).differed == []


async def test_however_much_the_model_has_without_a_document_it_is_found_in_parts(
    catalog: Process, memory: MemoryStore[testing.Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector, "_PAGE", 2)
    products = [await catalog.assortment.create(details(), [draft()]) for _ in range(11)]
    left = {product.product_id: as_it_is(product) for product in (products[0], products[7])}
    memory.rows = testing.Rows(left)  # by hand, past the service
    rebuilt = await catalog.projector.rebuild()
    assert (rebuilt.replayed, len(rebuilt.differed)) == (2, 9)
    assert catalog.read_model.kept.keys() == left.keys()


async def test_of_very_many_that_differ_the_first_are_named(
    catalog: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector, "_TOLD", 2)
    for _ in range(5):
        await catalog.assortment.create(details(), [draft()])
    catalog.read_model.kept.clear()
    rebuilt = await catalog.projector.rebuild()
    assert (rebuilt.mended, len(rebuilt.differed)) == (5, 2)


async def test_writes_during_a_rebuild_are_no_difference(catalog: Process) -> None:
    kept = [await catalog.assortment.create(details(), [draft()]) for _ in range(20)]

    async def write() -> None:
        for at, product in enumerate(kept):
            if at % 3 == 0:
                await catalog.assortment.delete(product.product_id)
            else:
                await rename(catalog, product, f"New {at}")
            await catalog.assortment.create(details(), [draft()])

    rebuilt, _ = await asyncio.gather(catalog.projector.rebuild(), write())
    assert rebuilt.differed == []
    assert (await catalog.projector.rebuild()).differed == []


async def test_what_is_still_under_way_at_the_second_look_is_no_difference(
    catalog: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = await catalog.assortment.create(details(), [draft()])
    catalog.read_model.down = True
    changed = await rename(catalog, product)
    catalog.read_model.down = False

    async def meanwhile(_: float) -> None:
        """Let the change arrive before the second look, while the next one has begun."""
        await catalog.projector.fetch([product.product_id])
        catalog.read_model.down = True
        await rename(catalog, changed, "Newest")
        catalog.read_model.down = False

    monkeypatch.setattr(projector, "asyncio", SimpleNamespace(sleep=meanwhile))
    assert (await catalog.projector.rebuild()).differed == []


async def test_a_page_is_compared_now_and_then_and_in_the_end_everything_was(catalog: Process) -> None:
    products = await wronged(catalog)
    for _ in range(3):
        await catalog.projector.reconcile(0, 2)
    assert [has(catalog, product) for product in products] == list(map(as_it_is, products))
    await wronged(catalog)
    for _ in range(5):
        await catalog.projector.reconcile(0, 2)
    assert (await catalog.projector.rebuild()).differed == []


async def test_of_several_processes_one_compares_at_a_time(catalog: Process) -> None:
    await wronged(catalog)
    await catalog.another_process().projector.reconcile(60, 1)
    reads = catalog.read_model.reads
    await catalog.projector.reconcile(60, 1)
    assert catalog.read_model.reads == reads


async def test_the_first_of_several_processes_that_start_fills_the_read_model(catalog: Process) -> None:
    products = [await catalog.assortment.create(details(), [draft()]) for _ in range(3)]
    catalog.read_model.kept.clear()  # as an older version leaves it
    others = [catalog.another_process() for _ in range(3)]
    reads = catalog.read_model.reads
    assert await asyncio.gather(*(each.projector.prepare() for each in others)) == [True] * 3
    assert [has(catalog, product) for product in products] == list(map(as_it_is, products))
    once = catalog.read_model.reads - reads
    assert await catalog.another_process().projector.prepare()
    assert once < 20, "the others had nothing to do but to see that"


async def test_after_an_upgrade_views_are_made_anew_once_while_reads_go_on(catalog: Process) -> None:
    product = await catalog.assortment.create(details(), [draft()])
    assert await catalog.projector.prepare()

    def other_views(product: Product) -> Product:
        return replace(as_it_is(product), details=replace(product.details, name="In capitals"))

    upgraded = Catalog(catalog.store, other_views, catalog.read_model, "capitals")
    assert not await upgraded.projector.prepare()
    assert await shown(upgraded, product) == as_it_is(product)
    await asyncio.gather(upgraded.projector.upgrade(), upgraded.projector.upgrade())
    assert await shown(upgraded, product) == other_views(product)
    assert await upgraded.projector.prepare()
    assert not await catalog.projector.prepare(), "whoever goes back makes them anew as well"


# --------------------------------------------------------------------------------------- on the real stores


class RealProcess:
    """A process of the service on MongoDB and PostgreSQL, without its network and its consumer."""

    def __init__(self, store: Store, database: Database) -> None:
        self.read_model = SharedReadModel(database)
        self.hot = HotSet[bytes](1, len)
        self.projector = Projector(store.reader, self.read_model, self.hot, present, FORM, 0.01)
        self.browsing = Browsing(self.hot, self.read_model, store.reader, self.projector, testing.Views())
        self.assortment = Assortment(store.uow, self.projector, SettableClock(), CURRENCY)


@pytest.mark.stack
async def test_a_change_by_one_process_is_forgotten_by_the_others(
    in_mongo: Store, database: Database
) -> None:
    writer, other = RealProcess(in_mongo, database), RealProcess(in_mongo, database)
    cleared = asyncio.Event()

    def anything() -> None:
        other.hot.clear()
        cleared.set()

    following = asyncio.create_task(other.read_model.follow(other.hot.changed, anything))
    try:
        await cleared.wait()
        product = await writer.assortment.create(details(), [draft()])
        assert await other.browsing.get(product.product_id, None) == present(product)
        await eventually(lambda: other.hot.ticket > 1001)  # of the creation itself
        await other.browsing.get(product.product_id, None)
        changed = await writer.assortment.update(
            product.product_id, details("New"), as_drafts(product), product.etag
        )
        assert await writer.browsing.get(product.product_id, None) == present(changed)
        await eventually(lambda: other.hot.get(product.product_id) is None)
        assert await other.browsing.get(product.product_id, None) == present(changed)
        cleared.clear()
        await database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        )
        await cleared.wait()
        assert other.hot.get(product.product_id) is None
    finally:
        following.cancel()


@pytest.mark.stack
async def test_lists_are_those_that_the_documents_themselves_would_give(
    in_mongo: Store, database: Database, collection: AsyncCollection[Document]
) -> None:
    process = RealProcess(in_mongo, database)
    random = Random(5)
    shelves = [uuid4().hex for _ in range(2)]
    parts, brands, tags = ["", "x", "y"], ["", "Lux", "Nox"], ["new", "red", "gift"]
    for _ in range(60):
        await process.assortment.create(
            details(
                category=random.choice(shelves),
                subcategory=random.choice(parts),
                brand=random.choice(brands),
                tags=tuple(random.sample(tags, random.randint(0, 3))),
            ),
            [draft(f"{random.randint(1, 40)}.{random.choice(['0', '50', '99'])}") for _ in range(2)],
        )
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
        expected = await asked_of_the_documents(collection, wanted)
        found = [entry.product_id for entry in await process.browsing.page(wanted, None, 1000)]
        assert found == expected
        page = await process.browsing.page(wanted, expected[0], 5) if expected else []
        assert [entry.product_id for entry in page] == expected[1:6]


async def asked_of_the_documents(collection: AsyncCollection[Document], wanted: Filters) -> Sequence[UUID]:
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
