"""The gRPC servicer: messages to use cases and back."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from stoa.inventory.v1 import inventory_pb2, inventory_pb2_grpc
from stoa_chassis.paging import page
from stoa_inventory.model import Stock
from stoa_inventory.service import Inventory


class InventoryServicer(inventory_pb2_grpc.InventoryServiceServicer):
    """stoa.inventory.v1.InventoryService."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory

    async def CheckAvailability(
        self, request: inventory_pb2.CheckAvailabilityRequest, context: object
    ) -> inventory_pb2.CheckAvailabilityResponse:
        """Tell how many of some variants can still be promised."""
        stocks = await self._inventory.batch([UUID(variant_id) for variant_id in request.variant_ids])
        return inventory_pb2.CheckAvailabilityResponse(
            variants=[_availability(each, stocks.get(UUID(each))) for each in request.variant_ids]
        )

    async def GetInventory(
        self, request: inventory_pb2.GetInventoryRequest, context: object
    ) -> inventory_pb2.GetInventoryResponse:
        """Read the stock of a variant."""
        stock = await self._inventory.get(UUID(request.variant_id))
        return inventory_pb2.GetInventoryResponse(inventory=_message(stock))

    async def ListInventory(
        self, request: inventory_pb2.ListInventoryRequest, context: object
    ) -> inventory_pb2.ListInventoryResponse:
        """List stock, the scarcest first."""

        async def read(after: Mapping[str, Any], limit: int) -> Sequence[Stock]:
            place = (after["available"], UUID(after["variant_id"])) if after else None
            return await self._inventory.list(low_only=request.low_stock, after=place, limit=limit)

        found = await page(request, {"low_stock": request.low_stock}, read, _cursor)
        return inventory_pb2.ListInventoryResponse(
            inventory=[_message(stock) for stock in found.items], next_page_token=found.next_page_token
        )

    async def AdjustInventory(
        self, request: inventory_pb2.AdjustInventoryRequest, context: object
    ) -> inventory_pb2.AdjustInventoryResponse:
        """Add to the stock of a variant or take from it."""
        stock = await self._inventory.adjust(
            UUID(request.variant_id), request.delta, request.reason, request.request_id
        )
        return inventory_pb2.AdjustInventoryResponse(inventory=_message(stock))

    async def SetThreshold(
        self, request: inventory_pb2.SetThresholdRequest, context: object
    ) -> inventory_pb2.SetThresholdResponse:
        """Set below how many available a variant counts as low."""
        stock = await self._inventory.set_threshold(UUID(request.variant_id), request.threshold)
        return inventory_pb2.SetThresholdResponse(inventory=_message(stock))


def _cursor(stock: Stock) -> Mapping[str, Any]:
    return {"available": stock.available, "variant_id": stock.variant_id}


def _availability(
    variant_id: str, stock: Stock | None
) -> inventory_pb2.CheckAvailabilityResponse.Availability:
    if stock is None:
        return inventory_pb2.CheckAvailabilityResponse.Availability(variant_id=variant_id)
    return inventory_pb2.CheckAvailabilityResponse.Availability(
        variant_id=variant_id,
        available=stock.available,
        in_stock=stock.announced,
        version=stock.availability_version,
    )


def _message(stock: Stock) -> inventory_pb2.Inventory:
    return inventory_pb2.Inventory(
        variant_id=str(stock.variant_id),
        product_id=str(stock.product_id),
        stock_count=stock.stock_count,
        reserved_count=stock.reserved_count,
        available=stock.available,
        threshold=stock.threshold,
        on_sale=stock.on_sale,
    )
