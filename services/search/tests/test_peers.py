"""What the other services say, as search takes it."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from stoa.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from stoa.inventory.v1 import inventory_pb2, inventory_pb2_grpc
from stoa_chassis.ids import new_id
from stoa_chassis.money_proto import to_proto
from stoa_chassis.testing import serve_in_process
from stoa_chassis.timestamps import to_timestamp
from stoa_search.model import Availability, Described, Rated, Rating
from stoa_search.peers import Catalog, Inventory
from stoa_search.testing import some_details

_DETAILS = some_details()
_IDS = [new_id() for _ in range(3)]


class FakeCatalogService(catalog_pb2_grpc.CatalogServiceServicer):
    """A catalogue with a page for each product."""

    async def ListProducts(self, request: catalog_pb2.ListProductsRequest, context: object) -> Any:
        at = int(request.page_token or 0)
        return catalog_pb2.ListProductsResponse(
            products=[_message(_IDS[at])], next_page_token=str(at + 1) if at + 1 < len(_IDS) else ""
        )


class FakeInventoryService(inventory_pb2_grpc.InventoryServiceServicer):
    """A warehouse that has said something of each second variant."""

    async def CheckAvailability(
        self, request: inventory_pb2.CheckAvailabilityRequest, context: object
    ) -> Any:
        assert len(request.variant_ids) <= 200
        return inventory_pb2.CheckAvailabilityResponse(
            variants=[
                inventory_pb2.CheckAvailabilityResponse.Availability(
                    variant_id=each, in_stock=True, version=5 if at % 2 == 0 else 0
                )
                for at, each in enumerate(request.variant_ids)
            ]
        )


def _message(product_id: UUID) -> catalog_pb2.Product:
    return catalog_pb2.Product(
        product_id=str(product_id),
        name=_DETAILS.name,
        description=_DETAILS.description,
        category=_DETAILS.category,
        subcategory=_DETAILS.subcategory,
        brand=_DETAILS.brand,
        tags=_DETAILS.tags,
        variants=[
            catalog_pb2.Variant(
                variant_id=str(each.variant_id), sku=each.sku, attributes=each.attributes,
                price=to_proto(each.price), images=each.images,
            )
            for each in _DETAILS.variants
        ],
        specifications=_DETAILS.specifications,
        rating=catalog_pb2.Rating(average=4.5, count=2, version=7),
        etag="3",
        version=3,
        created_at=to_timestamp(_DETAILS.created_at),
    )  # fmt: skip


@pytest.fixture
async def catalog() -> AsyncIterator[Catalog]:
    add = catalog_pb2_grpc.add_CatalogServiceServicer_to_server
    servicer = FakeCatalogService()  # type: ignore[abstract]
    async with serve_in_process(add, servicer, name="catalog") as server:
        yield Catalog(server.stub(catalog_pb2_grpc.CatalogServiceStub, as_service="search"))


@pytest.fixture
async def inventory() -> AsyncIterator[Inventory]:
    add = inventory_pb2_grpc.add_InventoryServiceServicer_to_server
    servicer = FakeInventoryService()  # type: ignore[abstract]
    async with serve_in_process(add, servicer, name="inventory") as server:
        yield Inventory(server.stub(inventory_pb2_grpc.InventoryServiceStub, as_service="search"))


async def test_all_products_are_walked_through_with_all_that_is_said_of_them(catalog: Catalog) -> None:
    walked = [each async for page in catalog.products() for each in page]
    assert walked == [(each, Described(3, _DETAILS), Rated(Rating(4.5, 2, 7))) for each in _IDS]


async def test_of_many_variants_the_warehouse_is_asked_in_parts(inventory: Inventory) -> None:
    variants = [new_id() for _ in range(500)]
    found = await inventory.availability(variants)
    assert found == dict.fromkeys(variants[::2], Availability(True, 5))
    assert await inventory.availability([]) == {}
