"""What the use cases and the read model rely on, of the store in memory and of MongoDB alike."""

import asyncio
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo.asynchronous.collection import AsyncCollection

from stoa_catalog import ports
from stoa_catalog.model import Details, Product, ProductNotFound, Rating, SkuTaken, Variant
from stoa_catalog.repository import bring_up_to_date, open_products
from stoa_chassis.ids import new_id
from stoa_chassis.mongo import PENDING, Document, MongoOutbox
from stoa_chassis.testing import eventually
from stoa_events import ProductRated

from .conftest import NOW, Catalog, Store, a_full_product, as_drafts, details, draft

LATER = NOW + timedelta(hours=1)


async def added(store: Store, product: Product | None = None) -> Product:
    """A product that is in the store."""
    product = product or Product.create(details(), [draft(), draft()], NOW)
    await store.uow.run(lambda tx: tx.products.add(product))
    return product


async def get(store: Store, product_id: UUID) -> Product:
    return await store.uow.run(lambda tx: tx.products.get(product_id))


async def rename(store: Store, product_id: UUID, name: str) -> Product:
    async def work(tx: ports.Tx) -> Product:
        product = await tx.products.get(product_id)
        product.update(details(name), as_drafts(product), product.etag, LATER)
        await tx.products.save(product)
        return product

    return await store.uow.run(work)


async def delete(store: Store, product_id: UUID) -> Product:
    async def work(tx: ports.Tx) -> Product:
        product = await tx.products.get(product_id)
        product.delete(LATER)
        await tx.products.save(product)
        return product

    return await store.uow.run(work)


# ----------------------------------------------------------------------------------------- units of work


async def test_no_field_of_a_product_is_lost(store: Store) -> None:
    gone = a_full_product()
    assert all(getattr(gone, each.name) for each in fields(Product) if each.name != "events")
    assert all(getattr(gone.details, each.name) for each in fields(Details))
    assert all(getattr(variant, each.name) for variant in gone.variants for each in fields(Variant))
    for product in (gone, replace(a_full_product(), deleted_at=None)):
        await added(store, product)
        assert await get(store, product.product_id) == product
        assert await store.reader.batch([product.product_id]) == [product]


async def test_no_field_of_a_change_is_lost(store: Store) -> None:
    product = await added(store)
    asked = a_full_product()

    async def work(tx: ports.Tx) -> Product:
        found = await tx.products.get(product.product_id)
        drafts = [replace(each, variant_id=None) for each in as_drafts(asked)]
        found.update(asked.details, drafts, found.etag, LATER)
        await tx.products.save(found)
        return found

    changed = await store.uow.run(work)
    assert changed.details == asked.details
    assert await get(store, product.product_id) == changed


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=5), max_size=4))
async def test_any_names_of_properties_are_kept(store: Store, texts: dict[str, str]) -> None:
    await any_names_are_kept(store, texts)


async def test_names_that_mean_something_to_the_store_are_kept(store: Store) -> None:
    await any_names_are_kept(
        store, {"a.b": "dot", "$set": "dollar", "100%": "percent", "%2E": "code", "\0": "nothing"}
    )


async def any_names_are_kept(store: Store, texts: dict[str, str]) -> None:
    variant = draft(attributes=texts, images=tuple(texts.values()))
    product = await added(store, Product.create(details(specifications=texts), [variant], NOW))
    assert await get(store, product.product_id) == product


async def test_what_never_was_is_not_found(store: Store) -> None:
    with pytest.raises(ProductNotFound):
        await get(store, new_id())
    assert await store.reader.batch([new_id()]) == []
    assert await store.reader.with_variants([new_id()]) == []


async def test_what_is_stored_publishes_its_events_once_and_in_order(store: Store) -> None:
    product = Product.create(details(), [draft()], NOW)
    expected = [*product.events]
    await added(store, product)
    for change in (rename(store, product.product_id, "New"), delete(store, product.product_id)):
        await change
    published = await store.published(product.product_id)
    assert published[:1] == expected
    assert [event.TOPIC for event in published] == ["product.created", "product.updated", "product.deleted"]


async def test_a_unit_of_work_that_fails_changes_and_publishes_nothing(store: Store) -> None:
    product, never = await added(store), Product.create(details(), [draft()], NOW)

    async def fail_to_add(tx: ports.Tx) -> None:
        await tx.products.add(never)
        raise LookupError

    async def fail_to_save(tx: ports.Tx) -> None:
        found = await tx.products.get(product.product_id)
        found.delete(LATER)
        await tx.products.save(found)
        raise LookupError

    for fail in (fail_to_add, fail_to_save):
        with pytest.raises(LookupError):
            await store.uow.run(fail)
    assert await get(store, product.product_id) == product
    assert await store.reader.batch([never.product_id]) == []
    assert len(await store.published(product.product_id)) == 1


async def test_what_did_not_change_is_not_written(store: Store) -> None:
    product = await added(store)

    async def work(tx: ports.Tx) -> None:
        found = await tx.products.get(product.product_id)
        found.details = details("Not a version of its own")
        await tx.products.save(found)

    await store.uow.run(work)
    assert await get(store, product.product_id) == product


async def test_who_was_overtaken_begins_again_with_what_the_other_stored(store: Store) -> None:
    product, seen = await added(store), list[str]()

    async def work(tx: ports.Tx) -> None:
        found = await tx.products.get(product.product_id)
        seen.append(found.details.name)
        if len(seen) == 1:
            await rename(store, product.product_id, "Theirs")
        found.update(details("Mine"), as_drafts(found), found.etag, LATER)
        await tx.products.save(found)

    await store.uow.run(work)
    assert seen == ["Lamp", "Theirs"]
    assert (await get(store, product.product_id)).details.name == "Mine"
    published = await store.published(product.product_id)
    assert [event.TOPIC for event in published] == ["product.created", "product.updated", "product.updated"]


async def test_a_sku_belongs_to_one_variant_of_the_shop(store: Store) -> None:
    taken, other = await added(store), await added(store)
    sku = taken.variants[1].sku
    with pytest.raises(SkuTaken) as refused:
        await added(store, Product.create(details(), [draft(), draft(sku=sku)], NOW))
    assert [violation.field for violation in refused.value.violations] == ["product.variants[1].sku"]

    async def work(tx: ports.Tx) -> None:
        found = await tx.products.get(other.product_id)
        found.update(details(), [draft(sku=sku)], found.etag, LATER)
        await tx.products.save(found)

    with pytest.raises(SkuTaken) as refused:
        await store.uow.run(work)
    assert [violation.field for violation in refused.value.violations] == ["product.variants[0].sku"]
    assert await get(store, other.product_id) == other
    assert len(await store.published(other.product_id)) == 1


async def test_a_deletion_frees_the_skus_and_does_not_forget_them(store: Store) -> None:
    product = await added(store)
    gone = await delete(store, product.product_id)
    again = await added(store, Product.create(details(), [draft(sku=product.variants[0].sku)], NOW))
    assert await get(store, product.product_id) == gone
    assert (await get(store, again.product_id)).variants[0].sku == gone.variants[0].sku


async def test_a_sku_is_the_same_however_it_is_capitalised(store: Store) -> None:
    sku = uuid4().hex
    taken = await added(store, Product.create(details(), [draft(), draft(sku=f"Lamp-\u00c9-{sku}")], NOW))
    with pytest.raises(SkuTaken) as refused:
        await added(store, Product.create(details(), [draft(), draft(sku=f"lAMP-\u00e9-{sku.upper()}")], NOW))
    assert [violation.field for violation in refused.value.violations] == ["product.variants[1].sku"]

    async def recapitalise(tx: ports.Tx) -> None:
        found = await tx.products.get(taken.product_id)
        drafts = [replace(each, sku=each.sku.upper()) for each in as_drafts(found)]
        found.update(found.details, drafts, found.etag, LATER)
        await tx.products.save(found)

    await store.uow.run(recapitalise)
    assert (await get(store, taken.product_id)).variants[1].sku == f"LAMP-\u00c9-{sku.upper()}"


async def test_no_sku_of_another_product_keeps_one_from_being_deleted(store: Store) -> None:
    product = await added(store)
    ids = [variant.variant_id for variant in product.variants]
    skus = [f"withdrawn/{ids[0]}", str(ids[1])]
    others = [await added(store, Product.create(details(), [draft(sku=sku)], NOW)) for sku in skus]
    gone = await delete(store, product.product_id)
    assert await get(store, product.product_id) == gone
    for other in others:
        await rename(store, other.product_id, "Still to be changed")
        await delete(store, other.product_id)
        await added(store, Product.create(details(), [draft(sku=other.variants[0].sku)], NOW))


async def rate(store: Store, product_id: UUID, *change: int) -> None:
    async def work(tx: ports.Tx) -> None:
        found = await tx.products.get(product_id)
        found.rate(*change)
        await tx.products.save(found)

    await store.uow.run(work)


async def test_a_rating_is_kept_and_published_with_its_version_and_leaves_the_etag_as_it_is(
    store: Store,
) -> None:
    product = await added(store)
    await rate(store, product.product_id, 9, 2, 3)
    rated = await get(store, product.product_id)
    assert (rated.rating, rated.etag) == (Rating(4.5, 2, 3), product.etag)
    assert rated.revision > product.revision
    assert (await store.published(product.product_id))[-1] == ProductRated(
        product_id=product.product_id, average=4.5, count=2, version=3
    )


async def test_an_update_and_a_change_of_the_rating_at_once_both_stay(store: Store) -> None:
    product = await added(store)

    async def update(tx: ports.Tx) -> None:
        found = await tx.products.get(product.product_id)
        if found.rating == Rating():
            await rate(store, product.product_id, 9, 2, 3)
        found.update(details("New"), as_drafts(found), found.etag, LATER)
        await tx.products.save(found)

    await store.uow.run(update)
    both = await get(store, product.product_id)
    assert (both.details.name, both.rating) == ("New", Rating(4.5, 2, 3))


async def test_a_unit_of_work_writes_one_product(store: Store) -> None:
    products = [Product.create(details(), [draft()], NOW) for _ in range(2)]

    async def work(tx: ports.Tx) -> None:
        for product in products:
            await tx.products.add(product)

    with pytest.raises(RuntimeError, match="writes one"):
        await store.uow.run(work)
    assert await store.reader.batch(product.product_id for product in products) == []


# -------------------------------------------------------------------------------- what the read model reads


async def test_what_there_is_is_walked_through_oldest_first_also_from_the_middle(store: Store) -> None:
    products = [await added(store) for _ in range(4)]
    products[1] = await delete(store, products[1].product_id)
    ids = {product.product_id for product in products}
    assert [product async for product in store.reader.walk() if product.product_id in ids] == products
    assert [product async for product in store.reader.walk(products[1].product_id)] == products[2:]
    assert [product async for product in store.reader.walk(products[0].product_id, 2)] == products[1:3]
    assert [product async for product in store.reader.walk(products[3].product_id)] == []


async def test_what_is_asked_for_is_read_on_sale_or_not(store: Store) -> None:
    one, two = await added(store), await added(store)
    gone = await delete(store, two.product_id)
    ids = [two.product_id, new_id(), one.product_id, two.product_id]
    found = {product.product_id: product for product in await store.reader.batch(ids)}
    assert found == {one.product_id: one, two.product_id: gone}
    first, second = (variant.variant_id for variant in one.variants)
    assert await store.reader.with_variants([first, new_id(), second]) == [one]
    assert await store.reader.with_variants([two.variants[0].variant_id]) == [gone]


# --------------------------------------------------------------------------------------- MongoDB on its own


async def as_older_versions_wrote(collection: AsyncCollection[Document], *products: Product) -> None:
    """Leave documents as they were before SKUs were compared without case."""
    await collection.database["upgrades"].delete_many({})
    for product in products:
        document = await collection.find_one({"_id": product.product_id})
        assert document is not None
        for variant in document["variants"]:
            if product.deleted_at is not None:
                variant["sku"] = f"withdrawn/{variant['variant_id']}"
        change = {"$unset": {"sku_keys": ""}, "$set": {"variants": document["variants"]}}
        await collection.update_one({"_id": product.product_id}, change)


@pytest.mark.stack
async def test_what_an_older_version_wrote_gets_what_skus_are_compared_by(
    in_mongo: Store, collection: AsyncCollection[Document]
) -> None:
    on_sale, sold = await added(in_mongo), await added(in_mongo)
    gone = await delete(in_mongo, sold.product_id)
    await as_older_versions_wrote(collection, on_sale, gone)
    await open_products(collection.database)
    taken = on_sale.variants[0].sku.upper()
    with pytest.raises(SkuTaken):
        await added(in_mongo, Product.create(details(), [draft(sku=taken)], NOW))
    assert [await get(in_mongo, each.product_id) for each in (on_sale, gone)] == [on_sale, gone]
    for free in (f"withdrawn/{gone.variants[0].variant_id}", gone.variants[1].sku):
        await added(in_mongo, Product.create(details(), [draft(sku=free)], NOW))


@pytest.mark.stack
async def test_skus_that_an_older_version_let_differ_in_case_alone_stay(
    in_mongo: Store, collection: AsyncCollection[Document]
) -> None:
    sku = uuid4().hex + "a"
    lower = await added(in_mongo, Product.create(details(), [draft(sku=sku), draft()], NOW))
    await as_older_versions_wrote(collection, lower)
    upper = await added(in_mongo, Product.create(details(), [draft(sku=sku.upper())], NOW))
    await as_older_versions_wrote(collection, upper)
    for _ in range(2):  # starts
        await open_products(collection.database)
    for product in (lower, upper):
        await rename(in_mongo, product.product_id, "Still to be changed")
    with pytest.raises(SkuTaken):
        await added(in_mongo, Product.create(details(), [draft(sku=sku.capitalize())], NOW))
    with pytest.raises(SkuTaken):
        await added(in_mongo, Product.create(details(), [draft(sku=lower.variants[1].sku.upper())], NOW))
    await delete(in_mongo, upper.product_id)
    await delete(in_mongo, lower.product_id)
    await added(in_mongo, Product.create(details(), [draft(sku=sku)], NOW))


@pytest.mark.stack
async def test_products_are_looked_through_until_a_day_after_an_upgrade(
    in_mongo: Store, collection: AsyncCollection[Document]
) -> None:
    database = collection.database

    async def is_mended(at: timedelta) -> bool:
        product = await added(in_mongo)
        note = await database["upgrades"].find_one({})
        await as_older_versions_wrote(collection, product)
        if note is not None:
            await database["upgrades"].insert_one(note)
        await bring_up_to_date(database, NOW + at)
        document = await collection.find_one({"_id": product.product_id})
        return document is not None and "sku_keys" in document

    await database["upgrades"].delete_many({})
    hours = [0, 1, 23, 25, 26]
    assert [await is_mended(timedelta(hours=hour)) for hour in hours] == [True, True, True, True, False]


@pytest.mark.stack
async def test_changes_wait_in_the_document_that_they_changed_until_they_are_published(
    catalog_on_mongo: Catalog[Product], collection: AsyncCollection[Document], outbox: MongoOutbox
) -> None:
    assortment = catalog_on_mongo.assortment
    product = await assortment.create(details(), [draft()])
    await assortment.update(product.product_id, details("New"), as_drafts(product), product.etag)
    await assortment.delete(product.product_id)

    async def waiting() -> list[Any]:
        document = await collection.find_one({"_id": product.product_id})
        assert document is not None
        return [(entry["topic"], entry["key"]) for entry in document[PENDING]]

    key = str(product.product_id)
    assert await waiting() == [(f"product.{what}", key) for what in ("created", "updated", "deleted")]
    relay = asyncio.create_task(outbox.run())

    async def published() -> bool:
        return not await waiting()

    try:
        await eventually(published)
    finally:
        relay.cancel()
