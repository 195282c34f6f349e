"""The inventory API through the chassis: policy, validation and errors as in production."""

from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from stoa.inventory.v1 import inventory_pb2
from stoa.inventory.v1.inventory_pb2_grpc import (
    InventoryServiceStub,
    add_InventoryServiceServicer_to_server,
)
from stoa_chassis.avro import new_event
from stoa_chassis.clock import SystemClock
from stoa_chassis.errors import Code, FieldViolation, RemoteError
from stoa_chassis.ids import new_id
from stoa_chassis.memory import MemoryStore
from stoa_chassis.testing import InProcessServer, serve_in_process
from stoa_events import ProductDeleted
from stoa_inventory.api import InventoryServicer
from stoa_inventory.service import Inventory
from stoa_inventory.testing import FakeCatalog, Rows


@pytest.fixture
async def server(inventory: Inventory) -> AsyncIterator[InProcessServer]:
    servicer = InventoryServicer(inventory)
    async with serve_in_process(add_InventoryServiceServicer_to_server, servicer, name="inventory") as server:
        yield server


@pytest.fixture
async def lamp(inventory: Inventory, catalog: FakeCatalog) -> str:
    """A variant of which there are ten."""
    return str(await a_variant(inventory, catalog, 10))


async def a_variant(inventory: Inventory, catalog: FakeCatalog, count: int) -> UUID:
    variant_id = new_id()
    catalog.products[variant_id] = new_id()
    await inventory.adjust(variant_id, count, "delivery", "first")
    return variant_id


@pytest.fixture
def staff(server: InProcessServer) -> InventoryServiceStub:
    return server.stub(InventoryServiceStub, as_user=new_id(), staff=True)


def adjustment(variant_id: str, **changes: Any) -> inventory_pb2.AdjustInventoryRequest:
    fields: dict[str, Any] = {"variant_id": variant_id, "delta": 1, "reason": "delivery", "request_id": "r"}
    return inventory_pb2.AdjustInventoryRequest(**{**fields, **changes})


async def refusal(call: Awaitable[object]) -> RemoteError:
    with pytest.raises(RemoteError) as refused:
        await call
    return refused.value


async def test_anyone_may_look(server: InProcessServer, lamp: str) -> None:
    request = inventory_pb2.GetInventoryRequest(variant_id=lamp)
    found = (await server.stub(InventoryServiceStub).GetInventory(request)).inventory
    assert (found.variant_id, found.stock_count, found.reserved_count) == (lamp, 10, 0)
    assert (found.available, found.threshold) == (10, 5)
    assert found.product_id


async def test_nothing_of_a_stock_is_left_out(store: MemoryStore[Rows], server: InProcessServer) -> None:
    variant_id, product_id = new_id(), new_id()
    at = datetime(2026, 11, 26, tzinfo=UTC)
    store.rows = Rows(stocks=((variant_id, (product_id, 9, 2, 5, at, True, True, 3)),))
    request = inventory_pb2.GetInventoryRequest(variant_id=str(variant_id))
    answer = (await server.stub(InventoryServiceStub).GetInventory(request)).inventory
    assert answer == inventory_pb2.Inventory(
        variant_id=str(variant_id),
        product_id=str(product_id),
        stock_count=9,
        reserved_count=2,
        available=7,
        threshold=5,
        on_sale=True,
    )
    assert len(answer.ListFields()) == len(answer.DESCRIPTOR.fields)


async def test_only_staff_may_count(server: InProcessServer, staff: InventoryServiceStub, lamp: str) -> None:
    for stub, code in (
        (server.stub(InventoryServiceStub), Code.UNAUTHENTICATED),
        (server.stub(InventoryServiceStub, as_user=new_id()), Code.PERMISSION_DENIED),
        (server.stub(InventoryServiceStub, as_service="order"), Code.PERMISSION_DENIED),
    ):
        threshold = inventory_pb2.SetThresholdRequest(variant_id=lamp, threshold=1)
        assert (await refusal(stub.AdjustInventory(adjustment(lamp)))).code is code
        assert (await refusal(stub.SetThreshold(threshold))).code is code
        assert (await refusal(stub.ListInventory(inventory_pb2.ListInventoryRequest()))).code is code
    assert (await staff.AdjustInventory(adjustment(lamp))).inventory.stock_count == 11


async def test_an_adjustment_answers_with_the_stock_after_it_and_counts_once(
    staff: InventoryServiceStub, lamp: str
) -> None:
    for _ in range(2):
        changed = (await staff.AdjustInventory(adjustment(lamp, delta=-3))).inventory
        assert (changed.stock_count, changed.available) == (7, 7)
    other = await refusal(staff.AdjustInventory(adjustment(lamp, delta=-4, reason="theft")))
    assert (other.code, other.reason) == (Code.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert other.violations == (
        FieldViolation("delta", "was -3 the first time, now it is -4"),
        FieldViolation("reason", "is not what it was the first time"),
    )
    too_many = await refusal(staff.AdjustInventory(adjustment(lamp, delta=-8, request_id="r2")))
    assert (too_many.code, too_many.reason) == (Code.FAILED_PRECONDITION, "STOCK_RESERVED")


async def test_a_number_that_is_absent_is_not_zero(staff: InventoryServiceStub, lamp: str) -> None:
    for call, field in (
        (staff.SetThreshold(inventory_pb2.SetThresholdRequest(variant_id=lamp)), "threshold"),
        (staff.AdjustInventory(adjustment(lamp, delta=None)), "delta"),
    ):
        error = await refusal(call)
        assert error.code is Code.INVALID_ARGUMENT
        assert [violation.field for violation in error.violations] == [field]
    found = (await staff.GetInventory(inventory_pb2.GetInventoryRequest(variant_id=lamp))).inventory
    assert (found.threshold, found.stock_count) == (5, 10)
    never = inventory_pb2.SetThresholdRequest(variant_id=lamp, threshold=0)
    assert (await staff.SetThreshold(never)).inventory.threshold == 0


async def test_a_threshold_makes_a_variant_scarce(staff: InventoryServiceStub, lamp: str) -> None:
    request = inventory_pb2.SetThresholdRequest(variant_id=lamp, threshold=11)
    assert (await staff.SetThreshold(request)).inventory.threshold == 11
    listed = await staff.ListInventory(inventory_pb2.ListInventoryRequest(low_stock=True, page_size=100))
    assert lamp in {stock.variant_id for stock in listed.inventory}


async def test_availability_is_for_services(
    server: InProcessServer, staff: InventoryServiceStub, lamp: str
) -> None:
    unknown = str(new_id())
    request = inventory_pb2.CheckAvailabilityRequest(variant_ids=[lamp, unknown, lamp])
    answer = await server.stub(InventoryServiceStub, as_service="cart").CheckAvailability(request)
    assert [(one.variant_id, one.available) for one in answer.variants] == [
        (lamp, 10),
        (unknown, 0),
        (lamp, 10),
    ]
    assert (await refusal(staff.CheckAvailability(request))).code is Code.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"delta": 0}, "delta"),
        ({"delta": 2_000_000}, "delta"),
        ({"reason": ""}, "reason"),
        ({"reason": "\x00"}, "reason"),
        ({"request_id": ""}, "request_id"),
        ({"variant_id": "lamp"}, "variant_id"),
    ],
)
async def test_what_is_wrong_with_an_adjustment_is_named(
    staff: InventoryServiceStub, lamp: str, changes: dict[str, Any], field: str
) -> None:
    error = await refusal(staff.AdjustInventory(adjustment(**{"variant_id": lamp, **changes})))
    assert error.code is Code.INVALID_ARGUMENT
    assert {violation.field for violation in error.violations} == {field}


async def test_an_unknown_variant_is_not_found(server: InProcessServer, staff: InventoryServiceStub) -> None:
    unknown = str(new_id())
    for call in (
        server.stub(InventoryServiceStub).GetInventory(inventory_pb2.GetInventoryRequest(variant_id=unknown)),
        staff.AdjustInventory(adjustment(unknown)),
        staff.SetThreshold(inventory_pb2.SetThresholdRequest(variant_id=unknown, threshold=1)),
    ):
        error = await refusal(call)
        assert (error.code, error.reason) == (Code.NOT_FOUND, "VARIANT_NOT_FOUND")


async def test_a_variant_that_is_not_sold_any_more_is_read_and_not_counted(
    inventory: Inventory, server: InProcessServer, staff: InventoryServiceStub, lamp: str
) -> None:
    read = inventory_pb2.GetInventoryRequest(variant_id=lamp)
    product_id = UUID((await staff.GetInventory(read)).inventory.product_id)
    deleted = ProductDeleted(product_id=product_id, version=2, variant_ids=(UUID(lamp),))
    await inventory.on_product_deleted(new_event(deleted, SystemClock(), "a-request"))
    for call in (
        staff.AdjustInventory(adjustment(lamp)),
        staff.SetThreshold(inventory_pb2.SetThresholdRequest(variant_id=lamp, threshold=11)),
    ):
        error = await refusal(call)
        assert (error.code, error.reason) == (Code.FAILED_PRECONDITION, "VARIANT_WITHDRAWN")
    found = (await server.stub(InventoryServiceStub).GetInventory(read)).inventory
    assert (found.stock_count, found.threshold, found.on_sale) == (10, 5, False)


async def test_a_page_token_belongs_to_its_filter(
    inventory: Inventory, catalog: FakeCatalog, staff: InventoryServiceStub
) -> None:
    for _ in range(4):
        await a_variant(inventory, catalog, 1)
    page = await staff.ListInventory(inventory_pb2.ListInventoryRequest(page_size=3))
    assert len(page.inventory) == 3
    token = page.next_page_token
    rest = await staff.ListInventory(inventory_pb2.ListInventoryRequest(page_token=token))
    seen, further = ({stock.variant_id for stock in one.inventory} for one in (page, rest))
    assert further
    assert not seen & further
    for wrong in (
        inventory_pb2.ListInventoryRequest(page_token=token, low_stock=True),
        inventory_pb2.ListInventoryRequest(page_token="made-up"),
    ):
        error = await refusal(staff.ListInventory(wrong))
        assert [violation.field for violation in error.violations] == ["page_token"]
