"""Finding products through the edge, and that finding them is all that stops without the search engine."""

from uuid import uuid4

import pytest

from stoa_rest import SEARCH, SearchResponse
from stoa_stack.shopping import new_product, put_on_sale
from tests.e2e.shop import Shop, eventually
from tests.shell import stoa


async def found(shop: Shop, words: str, **filters: object) -> SearchResponse:
    return await shop.nobody().search(q=words, **filters)  # type: ignore[arg-type]  # whatever a test asks


async def test_what_staff_sells_is_found_with_its_stock_and_no_more_when_it_is_taken_off_sale(
    shop: Shop,
) -> None:
    name = f"Xylo{uuid4().hex[:12]}"
    (item,) = await put_on_sale(shop.staff, {**new_product(price="20"), "name": name}, 1)

    async def in_stock() -> bool:
        hits = (await found(shop, name))["hits"]
        return [(hit["product_id"], hit["in_stock"]) for hit in hits] == [(item.product_id, True)]

    assert await eventually(in_stock)
    assert (await found(shop, name, in_stock=True, max_price="19.99"))["hits"] == []
    shopper = await shop.shopper()
    await shopper.buy(item)

    async def sold_out() -> bool:
        return not (await found(shop, name, in_stock=True))["hits"]

    assert await eventually(sold_out)
    assert (await found(shop, name))["hits"]
    await shop.staff.delete_product(item.product_id)

    async def gone() -> bool:
        return not (await found(shop, name))["hits"]

    assert await eventually(gone)


@pytest.mark.slow
@pytest.mark.local("kills the search engine by `stoa`")
@pytest.mark.timeout(240)
async def test_without_the_search_engine_all_else_is_sold_and_it_catches_up(shop: Shop) -> None:
    name = f"Xylo{uuid4().hex[:12]}"
    code, output = await stoa("kill", "opensearch")
    assert code == 0, output
    refused = await shop.nobody().send("GET", SEARCH.target(q="lamp"))
    if not refused.is_success:  # it may be back already
        assert refused.status_code == 503, refused.text
        assert "RetryInfo" in refused.text
    (item,) = await put_on_sale(shop.staff, {**new_product(price="20"), "name": name}, 1)
    shopper = await shop.shopper()
    assert (await shopper.buy(item))["status"] == "confirmed"

    async def caught_up() -> bool:
        return [hit["in_stock"] for hit in (await found(shop, name))["hits"]] == [False]

    assert await eventually(caught_up, within=120)
    code, output = await stoa("reindex")
    assert code == 0, output
    assert await caught_up()
