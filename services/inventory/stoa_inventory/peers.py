"""The other services behind their ports."""

from uuid import UUID

from stoa.catalog.v1 import catalog_pb2, catalog_pb2_grpc


class Catalog:
    """What the shop sells, as the catalog service knows it."""

    def __init__(self, stub: catalog_pb2_grpc.CatalogServiceStub) -> None:
        self._stub = stub

    async def product_of(self, variant_id: UUID) -> UUID | None:
        """Return the product of a variant, None if it is not sold."""
        response = await self._stub.BatchGetVariants(
            catalog_pb2.BatchGetVariantsRequest(variant_ids=[str(variant_id)])
        )
        return next((UUID(entry.product_id) for entry in response.variants), None)
