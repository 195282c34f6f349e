"""What the use cases do, on indices in memory: whatever is heard of, in any order, and while one is made."""

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any
from uuid import UUID

import pytest

from stoa_chassis.avro import Event, new_event
from stoa_chassis.clock import SystemClock
from stoa_chassis.ids import new_id
from stoa_contracts.events import Payload
from stoa_events import (
    InventoryAvailabilityChanged,
    ProductCreated,
    ProductDeleted,
    ProductRated,
    ProductUpdated,
    ProductVariant,
)
from stoa_search.events import handlers
from stoa_search.model import Availability, Criteria, Described, Entry, IndexMissing, Rated, Rating
from stoa_search.ports import Stored
from stoa_search.service import Contended, Feed, Indexing, Reindexing, Search, write
from stoa_search.testing import (
    FakeCatalog,
    FakeInventory,
    MemoryEntries,
    MemoryIndices,
    a_variant,
    some_details,
)


def described(product_id: UUID, version: int, name: str, *variants: Any) -> ProductUpdated:
    details = some_details(name, *variants)
    return ProductUpdated(
        product_id=product_id,
        version=version,
        name=details.name,
        description=details.description,
        category=details.category,
        subcategory=details.subcategory,
        brand=details.brand,
        tags=details.tags,
        variants=tuple(
            ProductVariant(
                variant_id=each.variant_id, sku=each.sku, attributes=each.attributes, price=each.price,
                images=each.images,
            )
            for each in details.variants
        ),
        specifications=details.specifications,
        created_at=details.created_at,
        updated_at=details.created_at,
    )  # fmt: skip


async def handle(indexing: Indexing, *payloads: Payload) -> None:
    """Hear of all of these at once."""
    events: list[Event[Payload]] = [new_event(payload, SystemClock(), "a-request") for payload in payloads]
    await asyncio.gather(*(handlers(indexing)[type(event.payload)](event) for event in events))


async def names(search: Search) -> list[str]:
    found = await search.search(Criteria(), {}, 100, facets=False)
    return sorted(hit.name for hit in found.hits)


def entry(memory: MemoryIndices, product_id: UUID) -> Entry:
    return next(each for each in memory.entries() if each.product_id == product_id)


async def test_nothing_that_an_event_says_of_a_product_is_lost(
    indexing: Indexing, memory: MemoryIndices
) -> None:
    product_id, details = new_id(), some_details("Alba Desk Lamp", a_variant())
    event = described(product_id, 1, details.name, *details.variants)
    await handle(indexing, ProductCreated(**{name: getattr(event, name) for name in event.__slots__}))
    assert entry(memory, product_id) == Entry(product_id, 1, details)


async def test_all_that_is_heard_of_products_makes_the_same_entries_in_any_order_and_from_many_processes(
    memory: MemoryIndices,
) -> None:
    """The property that makes late, repeated and reordered events harmless, under contention."""
    variants = [a_variant(), a_variant()]
    products = [new_id(), new_id(), new_id()]
    happened: list[Payload] = []
    for product_id in products:
        happened += [
            described(product_id, 1, "first", *variants),
            described(product_id, 2, "second", *variants),
            ProductRated(product_id=product_id, average=5.0, count=1, version=1),
            ProductRated(product_id=product_id, average=4.0, count=2, version=2),
            *(
                InventoryAvailabilityChanged(
                    variant_id=each.variant_id,
                    product_id=product_id,
                    in_stock=version % 2 == 0,
                    version=version,
                )
                for each in variants
                for version in range(1, 5)
            ),
        ]
    gone = products[0]
    happened.append(ProductDeleted(product_id=gone, version=3, variant_ids=()))
    for seed in range(30):
        dice = Random(seed)
        memory.indices.clear()
        memory.used = ""
        await memory.ensure()
        processes = [Indexing(Feed(memory.fed)) for _ in range(3)]
        heard = [*happened, *dice.sample(happened, 10)]
        dice.shuffle(heard)
        await asyncio.gather(*(handle(dice.choice(processes), payload) for payload in heard))
        for product_id in products:
            found = entry(memory, product_id)
            assert found.rating == Rating(4.0, 2, 2)
            assert found.availability == {each.variant_id: Availability(True, 4) for each in variants}
            if product_id == gone:
                assert (found.version, found.details) == (3, None)
            else:
                assert found.details is not None
                assert (found.version, found.details.name, found.in_stock) == (2, "second", True)


async def test_what_another_process_has_written_meanwhile_is_not_lost(
    indexing: Indexing, memory: MemoryIndices
) -> None:
    product_id, variant = new_id(), a_variant()

    def meanwhile() -> None:
        memory.on_write = lambda: None
        index = memory.indices[memory.used]
        index[product_id] = Entry(product_id, availability={variant.variant_id: Availability(True, 1)}), 1

    memory.on_write = meanwhile
    await handle(indexing, described(product_id, 1, "lamp", variant))
    assert entry(memory, product_id).in_stock


async def test_who_loses_again_and_again_says_so(memory: MemoryIndices) -> None:
    await memory.ensure()
    product_id, count = new_id(), 0

    def meanwhile() -> None:
        nonlocal count
        count += 1
        memory.indices[memory.used][product_id] = Entry(product_id), count

    memory.on_write = meanwhile
    with pytest.raises(Contended):
        await write(memory.fed, {product_id: [Described(1, some_details())]})


async def test_changes_that_come_while_others_are_written_share_a_request(
    indexing: Indexing, memory: MemoryIndices
) -> None:
    writes = 0

    def count() -> None:
        nonlocal writes
        writes += 1

    memory.on_write = count
    await handle(indexing, *(described(new_id(), 1, f"lamp {number}") for number in range(200)))
    assert len(memory.entries()) == 200
    assert writes == 1


async def test_an_outage_is_told_to_all_who_wait_and_the_next_one_is_written(
    indexing: Indexing, memory: MemoryIndices, search: Search
) -> None:
    def fail() -> None:
        raise ConnectionError

    memory.on_write = fail
    lamp, chair = described(new_id(), 1, "lamp"), described(new_id(), 1, "chair")
    for payload in (lamp, chair):
        with pytest.raises(ConnectionError):
            await handle(indexing, payload)
    memory.on_write = lambda: None
    await handle(indexing, lamp, chair)
    assert await names(search) == ["chair", "lamp"]


async def test_in_an_outage_all_are_told_by_one_attempt(indexing: Indexing, memory: MemoryIndices) -> None:
    attempts = 0

    def fail() -> None:
        nonlocal attempts
        attempts += 1
        raise ConnectionError

    memory.on_write = fail
    told = await asyncio.gather(
        *(handle(indexing, described(new_id(), 1, f"lamp {number}")) for number in range(20)),
        return_exceptions=True,
    )
    assert [type(error) for error in told] == [ConnectionError] * 20
    assert attempts == 1


@dataclass
class RefusingEntries(MemoryEntries):
    """Entries of which some can't be written, for a reason that stays."""

    refused: Collection[UUID] = ()

    async def write(self, entries: Iterable[Stored]) -> Collection[UUID]:
        """Write entries, unless one of them is refused."""
        each = list(entries)
        if any(stored.entry.product_id in self.refused for stored in each):
            raise ValueError("an entry is refused")
        return await super().write(each)


async def test_an_entry_that_is_refused_keeps_no_other_of_its_batch_back(
    memory: MemoryIndices, search: Search
) -> None:
    await memory.ensure()
    products = {new_id(): f"lamp {number:02}" for number in range(50)}
    refused = list(products)[7:9]
    indexing = Indexing(Feed(RefusingEntries(memory, None, refused)))
    told = await asyncio.gather(
        *(handle(indexing, described(product_id, 1, name)) for product_id, name in products.items()),
        return_exceptions=True,
    )
    assert [product_id for product_id, error in zip(products, told, strict=True) if error] == refused
    assert await names(search) == [name for key, name in products.items() if key not in refused]


async def test_an_entry_that_is_changed_all_the_time_keeps_no_other_of_its_batch_back(
    indexing: Indexing, memory: MemoryIndices
) -> None:
    contended, count = new_id(), 0

    def meanwhile() -> None:
        nonlocal count
        count += 1
        memory.indices[memory.used][contended] = Entry(contended), count

    memory.on_write = meanwhile
    products = [new_id(), contended, new_id()]
    told = await asyncio.gather(
        *(handle(indexing, described(product_id, 1, "lamp")) for product_id in products),
        return_exceptions=True,
    )
    assert [type(error) for error in told] == [type(None), Contended, type(None)]


async def test_without_an_index_nothing_is_found_nor_written_and_both_say_so(
    indexing: Indexing, memory: MemoryIndices, search: Search
) -> None:
    memory.indices.clear()
    with pytest.raises(IndexMissing):
        await names(search)
    with pytest.raises(IndexMissing):
        await handle(indexing, described(new_id(), 1, "lamp"))


async def test_a_new_index_is_filled_once_from_those_who_know(
    reindexing: Reindexing, catalog: FakeCatalog, inventory: FakeInventory, memory: MemoryIndices
) -> None:
    variant, product_id = a_variant(), new_id()
    catalog.said[product_id] = Described(3, some_details("lamp", variant)), Rated(Rating(4.5, 2, 7))
    inventory.said[variant.variant_id] = Availability(True, 9)
    await reindexing.ensure()
    assert entry(memory, product_id) == Entry(
        product_id,
        3,
        some_details("lamp", variant),
        Rating(4.5, 2, 7),
        {variant.variant_id: Availability(True, 9)},
    )
    memory.indices[memory.used].clear()
    await reindexing.ensure()
    assert memory.entries() == []


async def test_an_index_that_is_made_anew_has_what_the_catalogue_has_and_what_happened_meanwhile(
    reindexing: Reindexing, indexing: Indexing, catalog: FakeCatalog, memory: MemoryIndices, search: Search
) -> None:
    kept, changed, deleted, added, wrong = (new_id() for _ in range(5))
    for product_id, name in ((kept, "kept"), (changed, "old"), (deleted, "deleted")):
        catalog.said[product_id] = Described(1, some_details(name)), Rated(Rating())
        await handle(indexing, described(product_id, 1, name))
    await handle(indexing, described(wrong, 1, "which the catalogue does not have"))
    happened: list[Payload] = [
        described(changed, 2, "new"),
        ProductDeleted(product_id=deleted, version=2, variant_ids=()),
        described(added, 1, "added"),
    ]

    walked = asyncio.Event()
    catalog.on_page = walked.set
    rebuilding = asyncio.create_task(reindexing.rebuild())
    await walked.wait()
    await handle(indexing, *happened)
    assert (await rebuilding).products == 3
    assert await names(search) == ["added", "kept", "new"]
    assert len(memory.indices) == 1


async def test_what_was_deleted_before_an_index_is_made_anew_does_not_come_back_by_a_late_event(
    reindexing: Reindexing, indexing: Indexing, search: Search
) -> None:
    product_id = new_id()
    late = described(product_id, 1, "lamp")
    await handle(indexing, ProductDeleted(product_id=product_id, version=2, variant_ids=()))
    await reindexing.rebuild()
    await handle(indexing, late)
    assert await names(search) == []


async def test_what_a_rebuild_that_failed_has_left_is_gone_with_the_next(
    reindexing: Reindexing, catalog: FakeCatalog, memory: MemoryIndices, search: Search
) -> None:
    catalog.said[new_id()] = Described(1, some_details("lamp")), Rated(Rating())

    def fail() -> None:
        raise ConnectionError

    catalog.on_page = fail
    with pytest.raises(ConnectionError):
        await reindexing.rebuild()
    catalog.on_page = lambda: None
    await reindexing.rebuild()
    assert await names(search) == ["lamp"]
    assert len(memory.indices) == 1
