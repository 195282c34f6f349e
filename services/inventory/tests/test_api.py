"""The inventory API through the chassis: policy, validation and errors as in production."""

from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import pytest

from stoa.inventory.v1 import inventory_pb2
from stoa.inventory.v1.inventory_pb2_grpc import (
    InventoryServiceStub,
    add_InventoryServiceServicer_to_server,
)
from stoa_chassis.errors import Code, RemoteError
from stoa_chassis.ids import new_id
from stoa_chassis.testing import InProcessServer, serve_in_process
from stoa_inventory.api import InventoryServicer
from stoa_inventory.model import Stock, VariantNotFound

LAMP = Stock(new_id(), new_id(), 10, 3, 5)


class UseCases:
    """One lamp, in place of the database."""

    async def get(self, variant_id: UUID) -> Stock:
        if variant_id != LAMP.variant_id:
            raise VariantNotFound(f"variant {variant_id} not found")
        return LAMP

    async def available(self, variant_ids: Sequence[UUID]) -> dict[UUID, int]:
        return {id_: LAMP.available if id_ == LAMP.variant_id else 0 for id_ in variant_ids}

    async def list(self, *, low_only: bool, after: Any, limit: int) -> Sequence[Stock]:
        return [] if after or low_only else [LAMP] * limit

    async def adjust(self, variant_id: UUID, delta: int, reason: str, request_id: str) -> Stock:
        return await self.get(variant_id)

    async def set_threshold(self, variant_id: UUID, threshold: int) -> Stock:
        return await self.get(variant_id)


@pytest.fixture
async def server() -> AsyncIterator[InProcessServer]:
    use_cases: Any = UseCases()
    servicer = InventoryServicer(use_cases)
    async with serve_in_process(add_InventoryServiceServicer_to_server, servicer) as server:
        yield server


def adjustment(**changes: Any) -> inventory_pb2.AdjustInventoryRequest:
    fields = {"variant_id": str(LAMP.variant_id), "delta": 1, "reason": "delivery", "request_id": "r"}
    return inventory_pb2.AdjustInventoryRequest(**{**fields, **changes})


async def refusal(call: Any) -> RemoteError:
    with pytest.raises(RemoteError) as refused:
        await call
    return refused.value


async def test_anyone_may_look(server: InProcessServer) -> None:
    request = inventory_pb2.GetInventoryRequest(variant_id=str(LAMP.variant_id))
    found = (await server.stub(InventoryServiceStub).GetInventory(request)).inventory
    assert (found.stock_count, found.reserved_count, found.available, found.threshold) == (10, 3, 7, 5)


async def test_only_staff_may_count(server: InProcessServer) -> None:
    for stub, code in (
        (server.stub(InventoryServiceStub), Code.UNAUTHENTICATED),
        (server.stub(InventoryServiceStub, as_user=new_id()), Code.PERMISSION_DENIED),
        (server.stub(InventoryServiceStub, as_service="order"), Code.PERMISSION_DENIED),
    ):
        assert (await refusal(stub.AdjustInventory(adjustment()))).code is code
        assert (await refusal(stub.ListInventory(inventory_pb2.ListInventoryRequest()))).code is code
    staff = server.stub(InventoryServiceStub, as_user=new_id(), staff=True)
    await staff.AdjustInventory(adjustment())


async def test_availability_is_for_services(server: InProcessServer) -> None:
    unknown = str(new_id())
    request = inventory_pb2.CheckAvailabilityRequest(variant_ids=[str(LAMP.variant_id), unknown])
    answer = await server.stub(InventoryServiceStub, as_service="cart").CheckAvailability(request)
    assert [one.available for one in answer.variants] == [7, 0]
    staff = server.stub(InventoryServiceStub, as_user=new_id(), staff=True)
    assert (await refusal(staff.CheckAvailability(request))).code is Code.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"delta": 0}, "delta"),
        ({"delta": 2_000_000}, "delta"),
        ({"reason": ""}, "reason"),
        ({"request_id": ""}, "request_id"),
        ({"variant_id": "lamp"}, "variant_id"),
    ],
)
async def test_what_is_wrong_with_an_adjustment_is_named(
    server: InProcessServer, changes: dict[str, Any], field: str
) -> None:
    staff = server.stub(InventoryServiceStub, as_user=new_id(), staff=True)
    error = await refusal(staff.AdjustInventory(adjustment(**changes)))
    assert error.code is Code.INVALID_ARGUMENT
    assert [violation.field for violation in error.violations] == [field]


async def test_an_unknown_variant_is_not_found(server: InProcessServer) -> None:
    request = inventory_pb2.GetInventoryRequest(variant_id=str(new_id()))
    error = await refusal(server.stub(InventoryServiceStub).GetInventory(request))
    assert (error.code, error.reason) == (Code.NOT_FOUND, "VARIANT_NOT_FOUND")


async def test_a_page_token_belongs_to_its_filter(server: InProcessServer) -> None:
    staff = server.stub(InventoryServiceStub, as_user=new_id(), staff=True)
    page = await staff.ListInventory(inventory_pb2.ListInventoryRequest(page_size=3))
    assert len(page.inventory) == 3
    token = page.next_page_token
    rest = await staff.ListInventory(inventory_pb2.ListInventoryRequest(page_token=token))
    assert not rest.inventory
    other = inventory_pb2.ListInventoryRequest(page_token=token, low_stock=True)
    assert [v.field for v in (await refusal(staff.ListInventory(other))).violations] == ["page_token"]
