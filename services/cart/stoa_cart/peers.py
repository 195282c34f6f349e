"""The other services, as the use cases see them."""

from uuid import UUID

from stoa.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from stoa.inventory.v1 import inventory_pb2, inventory_pb2_grpc
from stoa_cart.model import Offer
from stoa_chassis.money_proto import from_proto


class Catalog:
    """The catalog service."""

    def __init__(self, stub: catalog_pb2_grpc.CatalogServiceStub) -> None:
        self._stub = stub

    async def offer(self, variant_id: UUID) -> Offer | None:
        """Return today's offer of a variant, None if it is not on sale."""
        response = await self._stub.BatchGetVariants(
            catalog_pb2.BatchGetVariantsRequest(variant_ids=[str(variant_id)])
        )
        for entry in response.variants:
            return Offer(UUID(entry.product_id), variant_id, from_proto(entry.variant.price, "price"))
        return None


class Inventory:
    """The inventory service."""

    def __init__(self, stub: inventory_pb2_grpc.InventoryServiceStub) -> None:
        self._stub = stub

    async def available(self, variant_id: UUID) -> int:
        """Return how many of a variant can still be promised."""
        response = await self._stub.CheckAvailability(
            inventory_pb2.CheckAvailabilityRequest(variant_ids=[str(variant_id)])
        )
        return sum(entry.available for entry in response.variants)
