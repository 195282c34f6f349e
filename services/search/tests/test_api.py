"""What callers get over gRPC, with the policies and constraints of the contract, on an index in memory."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from stoa.search.v1 import search_pb2
from stoa.search.v1.search_pb2_grpc import SearchServiceStub, add_SearchServiceServicer_to_server
from stoa_chassis.errors import Code, RemoteError
from stoa_chassis.ids import new_id
from stoa_chassis.testing import InProcessServer, serve_in_process
from stoa_search.api import SearchServicer
from stoa_search.model import Availability, Available, Described, Rated, Rating
from stoa_search.service import Search
from stoa_search.testing import MemoryIndices, a_variant, some_details

from .conftest import Store


@pytest.fixture
async def server(search: Search) -> AsyncIterator[InProcessServer]:
    """The search service as it is served."""
    async with serve_in_process(
        add_SearchServiceServicer_to_server, SearchServicer(search), name="search"
    ) as running:
        yield running


async def search_for(server: InProcessServer, **request: Any) -> search_pb2.SearchResponse:
    found: search_pb2.SearchResponse = await server.stub(SearchServiceStub).Search(
        search_pb2.SearchRequest(**request)
    )
    return found


async def test_an_answer_has_every_field(server: InProcessServer, in_memory: Store) -> None:
    for number in range(2):
        variant = a_variant("19.90")
        await in_memory.write(
            new_id(),
            Described(1, some_details(f"Alba {number}", variant)),
            Rated(Rating(4.5, 2, 1)),
            Available(variant.variant_id, Availability(True, 1)),
        )
    found = await search_for(server, q="lamp", page_size=1)
    assert {field.name for field, _ in found.ListFields()} == set(found.DESCRIPTOR.fields_by_name)
    (hit,) = found.hits
    assert {field.name for field, _ in hit.ListFields()} == set(hit.DESCRIPTOR.fields_by_name)
    assert (hit.price_from.units, hit.price_from.nanos, hit.price_from.currency_code) == (
        19,
        900_000_000,
        "USD",
    )
    assert {facet.field for facet in found.facets} >= {"category", "price", "attribute:color"}
    assert found.total_size == 2


async def test_every_filter_reaches_the_index(server: InProcessServer, in_memory: Store) -> None:
    variant = a_variant("20", color="blue", size="S")
    await in_memory.write(
        new_id(),
        Described(1, some_details("Alba", variant)),
        Rated(Rating(4.0, 1, 1)),
        Available(variant.variant_id, Availability(True, 1)),
    )
    matching: list[dict[str, Any]] = [
        {"category": "lighting"}, {"subcategory": "desk lamps"}, {"brand": "lumora"}, {"tag": "lamp"},
        {"min_price": "20"}, {"max_price": "20.00"}, {"min_rating": 4}, {"in_stock": True},
        {"attribute": ["color:blue", "Color:red", "size:s"]}, {"q": "alba under 30"}, {"sort": "rating"},
    ]  # fmt: skip
    for request in matching:
        assert len((await search_for(server, **request)).hits) == 1, request
    missing: list[dict[str, Any]] = [
        {"category": "x"}, {"subcategory": "x"}, {"brand": "x"}, {"tag": "x"}, {"min_price": "20.01"},
        {"max_price": "19.99"}, {"min_rating": 4.1}, {"attribute": ["color:red"]}, {"q": "alba under 19"},
    ]  # fmt: skip
    for request in missing:
        assert not (await search_for(server, **request)).hits, request


async def test_pages_follow_each_other_and_only_the_first_has_counts(
    server: InProcessServer, in_memory: Store
) -> None:
    for price in range(1, 6):
        await in_memory.write(new_id(), Described(1, some_details(f"lamp {price}", a_variant(str(price)))))
    seen, token = [], ""
    for number in range(3):
        page = await search_for(server, sort="price_asc", page_size=2, page_token=token)
        seen += [hit.name for hit in page.hits]
        token = page.next_page_token
        assert bool(page.facets) is (number == 0)
        assert page.total_size == 5
    assert seen == [f"lamp {price}" for price in range(1, 6)]
    assert token == ""


async def test_a_token_belongs_to_its_search(server: InProcessServer, in_memory: Store) -> None:
    for _ in range(2):
        await in_memory.write(new_id(), Described(1, some_details("lamp")))
    token = (await search_for(server, q="lamp", page_size=1)).next_page_token
    for request in ({"q": "chair", "page_token": token}, {"page_token": "made-up"}):
        with pytest.raises(RemoteError) as refused:
            await search_for(server, **request)
        assert [each.field for each in refused.value.violations] == ["page_token"]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"q": "x" * 201}, "q"),
        ({"min_price": "cheap"}, "min_price"),
        ({"max_price": "-1"}, "max_price"),
        ({"min_price": "2", "max_price": "1"}, "min_price"),
        ({"min_rating": 5.1}, "min_rating"),
        ({"min_rating": float("nan")}, "min_rating"),
        ({"attribute": ["blue"]}, "attribute[0]"),
        ({"attribute": [":blue"]}, "attribute[0]"),
        ({"attribute": ["a:b"] * 21}, "attribute"),
        ({"sort": "best"}, "sort"),
        ({"page_size": 101}, "page_size"),
        ({"page_size": -1}, "page_size"),
    ],
)
async def test_what_is_wrong_is_named(server: InProcessServer, request_: dict[str, Any], field: str) -> None:
    with pytest.raises(RemoteError) as refused:
        await search_for(server, **request_)
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert [each.field for each in refused.value.violations] == [field]


async def test_suggestions_are_of_categories_and_products(server: InProcessServer, in_memory: Store) -> None:
    product_id = await in_memory.write(new_id(), Described(1, some_details("Desk Lamp")))
    answer = await server.stub(SearchServiceStub).Suggest(search_pb2.SuggestRequest(q="desk"))
    assert list(answer.suggestions) == [
        search_pb2.Suggestion(text="Desk lamps", category="Desk lamps"),
        search_pb2.Suggestion(text="Desk Lamp", product_id=str(product_id)),
    ]
    with pytest.raises(RemoteError) as refused:
        await server.stub(SearchServiceStub).Suggest(search_pb2.SuggestRequest(q=" "))
    assert [each.field for each in refused.value.violations] == ["q"]


async def test_without_an_index_a_shopper_is_asked_to_come_back(
    server: InProcessServer, memory: MemoryIndices
) -> None:
    memory.indices.clear()
    stub = server.stub(SearchServiceStub)
    for call in (
        stub.Search(search_pb2.SearchRequest()),
        stub.Suggest(search_pb2.SuggestRequest(q="lamp")),
    ):
        with pytest.raises(RemoteError) as refused:
            await call
        assert (refused.value.code, refused.value.reason) == (Code.UNAVAILABLE, "INDEX_MISSING")
        assert refused.value.retry_after is not None
