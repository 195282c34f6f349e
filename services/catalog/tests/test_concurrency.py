"""Writers at the same moment: conditional updates in MongoDB, and the store in memory."""

import asyncio
from uuid import uuid4

from stoa_catalog.model import EtagMismatch, Product

from .conftest import Catalog, as_drafts, as_it_is, details, draft


async def test_of_two_writers_who_read_the_same_version_one_is_refused(
    catalog_on_each: Catalog[Product],
) -> None:
    catalog = catalog_on_each
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
    assert len(await catalog.store.published(product.product_id)) == 2


async def test_the_same_update_sent_twice_at_once_succeeds_twice_and_counts_once(
    catalog_on_each: Catalog[Product],
) -> None:
    catalog = catalog_on_each
    product = await catalog.assortment.create(details(), [draft()])
    asked = [*as_drafts(product), draft()]
    first, second = await asyncio.gather(
        *(
            catalog.assortment.update(product.product_id, details("New"), asked, product.etag)
            for _ in range(2)
        )
    )
    assert as_it_is(first) == as_it_is(second)
    assert len(await catalog.store.published(product.product_id)) == 2


async def test_of_many_who_want_a_sku_at_once_one_gets_it(catalog_on_each: Catalog[Product]) -> None:
    catalog = catalog_on_each
    sku = uuid4().hex
    results = await asyncio.gather(
        *(catalog.assortment.create(details(), [draft(sku=sku)]) for _ in range(8)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["Product", *["SkuTaken"] * 7]
