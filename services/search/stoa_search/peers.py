"""The other services behind their ports."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC
from uuid import UUID

from stoa.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from stoa.inventory.v1 import inventory_pb2, inventory_pb2_grpc
from stoa_chassis.money_proto import from_proto
from stoa_search.model import Availability, Described, Details, Rated, Rating, Variant

_PAGE = 100
_VARIANTS = 200  # that the warehouse is asked of at once


class Catalog:
    """What the shop sells, as the catalog service knows it."""

    def __init__(self, stub: catalog_pb2_grpc.CatalogServiceStub) -> None:
        self._stub = stub

    async def products(self) -> AsyncIterator[Sequence[tuple[UUID, Described, Rated]]]:
        """Walk through all products on sale, some at a time."""
        token = ""
        while True:
            answer = await self._stub.ListProducts(
                catalog_pb2.ListProductsRequest(page_size=_PAGE, page_token=token)
            )
            if answer.products:
                yield [_product(each) for each in answer.products]
            if not (token := answer.next_page_token):
                return


class Inventory:
    """What can be bought, as the inventory service knows it."""

    def __init__(self, stub: inventory_pb2_grpc.InventoryServiceStub) -> None:
        self._stub = stub

    async def availability(self, variant_ids: Sequence[UUID]) -> Mapping[UUID, Availability]:
        """Tell of variants whether they can be bought; those of which nothing was ever said are left out."""
        found = {}
        for start in range(0, len(variant_ids), _VARIANTS):
            asked = map(str, variant_ids[start : start + _VARIANTS])
            answer = await self._stub.CheckAvailability(
                inventory_pb2.CheckAvailabilityRequest(variant_ids=asked)
            )
            for each in answer.variants:
                if each.version:
                    found[UUID(each.variant_id)] = Availability(each.in_stock, each.version)
        return found


def _product(product: catalog_pb2.Product) -> tuple[UUID, Described, Rated]:
    details = Details(
        name=product.name,
        category=product.category,
        variants=tuple(map(_variant, product.variants)),
        created_at=product.created_at.ToDatetime(UTC),
        description=product.description,
        subcategory=product.subcategory,
        brand=product.brand,
        tags=tuple(product.tags),
        specifications=dict(product.specifications),
    )
    rating = Rating(product.rating.average, product.rating.count, product.rating.version)
    return UUID(product.product_id), Described(product.version, details), Rated(rating)


def _variant(variant: catalog_pb2.Variant) -> Variant:
    return Variant(
        variant_id=UUID(variant.variant_id),
        sku=variant.sku,
        price=from_proto(variant.price, "price"),
        attributes=dict(variant.attributes),
        images=tuple(variant.images),
    )
