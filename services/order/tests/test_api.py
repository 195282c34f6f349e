"""The order API through the chassis: policy, validation and errors as in production."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from stoa.order.v1 import order_pb2
from stoa.order.v1.order_pb2_grpc import OrderServiceStub, add_OrderServiceServicer_to_server
from stoa.types.v1 import address_pb2
from stoa_chassis.auth import Principal
from stoa_chassis.errors import Code, RemoteError
from stoa_chassis.ids import new_id
from stoa_chassis.testing import InProcessServer, serve_in_process
from stoa_contracts.money import Money
from stoa_order.api import OrderServicer
from stoa_order.model import Address, Line, Order, OrderNotFound, Tariff
from stoa_order.service import PlaceOrder

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TARIFF = Tariff({name: Money(Decimal(5), "USD") for name in ("standard", "express")}, Decimal("0.08"))
ADDRESS = address_pb2.Address(
    recipient="Ada", line1="1 Engine Row", city="London", postal_code="N1", country="GB"
)
BUYER = new_id()


@dataclass
class UseCases:
    """Orders kept in a list, in place of the database."""

    orders: list[Order] = field(default_factory=list)

    async def place(self, command: PlaceOrder) -> Order:
        assert isinstance(command.destination, Address)
        line = Line(new_id(), new_id(), new_id(), "Lamp", 2, Money(Decimal("19.99"), "USD"))
        order = Order.place(
            command.user_id,
            command.request_id,
            (line,),
            TARIFF,
            command.destination,
            command.shipping_method,
            NOW,
        )
        self.orders.insert(0, order)
        return order

    async def get(self, order_id: UUID, caller: Principal) -> Order:
        for order in self.orders:
            if order.order_id == order_id and caller.may_act_for(str(order.user_id)):
                return order
        raise OrderNotFound(f"order {order_id} not found")

    async def list(
        self,
        *,
        user_id: UUID | None = None,
        status: str | None = None,
        before: UUID | None = None,
        limit: int,
    ) -> Sequence[Order]:
        found = [order for order in self.orders if user_id in (None, order.user_id)]
        return [order for order in found if before is None or order.order_id < before][:limit]

    async def cancel(self, order_id: UUID, reason: str, caller: Principal) -> Order:
        order = await self.get(order_id, caller)
        order.cancel(reason, NOW)
        return order


@pytest.fixture
async def server() -> AsyncIterator[InProcessServer]:
    use_cases: Any = UseCases()
    async with serve_in_process(add_OrderServiceServicer_to_server, OrderServicer(use_cases)) as server:
        yield server


def request(**changes: Any) -> order_pb2.PlaceOrderRequest:
    fields = {"request_id": "r", "shipping_address": ADDRESS, "payment_token": "tok_visa", **changes}
    return order_pb2.PlaceOrderRequest(**fields)


async def refusal(call: Any) -> RemoteError:
    with pytest.raises(RemoteError) as refused:
        await call
    return refused.value


async def test_an_order_comes_back_as_the_contract_says(server: InProcessServer) -> None:
    order = (await server.stub(OrderServiceStub, as_user=BUYER).PlaceOrder(request())).order
    assert (order.user_id, order.status, order.shipping_method) == (str(BUYER), "pending", "standard")
    assert (order.total_amount.units, order.total_amount.nanos) == (48, 180_000_000)
    assert order.created_at.ToDatetime(UTC) == NOW
    assert not order.HasField("payment")


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"request_id": ""}, {"request_id"}),
        ({"request_id": "two words"}, {"request_id"}),
        ({"payment_token": "4242424242424242"}, {"payment_token"}),
        ({"shipping_method": "teleport"}, {"shipping_method"}),
        ({"shipping_address": None}, {"destination"}),
        (
            {"shipping_address": address_pb2.Address(recipient="Ada", country="England")},
            {"shipping_address.line1", "shipping_address.city", "shipping_address.country"},
        ),
    ],
)
async def test_what_is_wrong_with_a_request_is_named(
    server: InProcessServer, changes: dict[str, Any], fields: set[str]
) -> None:
    error = await refusal(server.stub(OrderServiceStub, as_user=BUYER).PlaceOrder(request(**changes)))
    assert error.code is Code.INVALID_ARGUMENT
    assert fields <= {violation.field for violation in error.violations}


async def test_nobody_can_order_without_signing_in(server: InProcessServer) -> None:
    error = await refusal(server.stub(OrderServiceStub).PlaceOrder(request()))
    assert error.code is Code.UNAUTHENTICATED


async def test_another_buyers_order_looks_like_none(server: InProcessServer) -> None:
    order = (await server.stub(OrderServiceStub, as_user=BUYER).PlaceOrder(request())).order
    stranger = server.stub(OrderServiceStub, as_user=new_id())
    for call in (
        stranger.GetOrder(order_pb2.GetOrderRequest(order_id=order.order_id)),
        stranger.CancelOrder(order_pb2.CancelOrderRequest(order_id=order.order_id)),
    ):
        assert (await refusal(call)).code is Code.NOT_FOUND
    staff = server.stub(OrderServiceStub, as_user=new_id(), staff=True)
    found = await staff.GetOrder(order_pb2.GetOrderRequest(order_id=order.order_id))
    assert found.order.status == "pending"


async def test_only_staff_lists_all_orders_and_only_the_owner_or_staff_a_users(
    server: InProcessServer,
) -> None:
    buyer = server.stub(OrderServiceStub, as_user=BUYER)
    assert (await refusal(buyer.ListOrders(order_pb2.ListOrdersRequest()))).code is Code.PERMISSION_DENIED
    others = order_pb2.ListUserOrdersRequest(user_id=str(new_id()))
    assert (await refusal(buyer.ListUserOrders(others))).reason == "NOT_OWNER"
    await server.stub(OrderServiceStub, as_user=new_id(), staff=True).ListUserOrders(others)


async def test_pages_follow_each_other_and_a_made_up_token_is_refused(server: InProcessServer) -> None:
    buyer = server.stub(OrderServiceStub, as_user=BUYER)
    placed = [(await buyer.PlaceOrder(request(request_id=str(n)))).order.order_id for n in range(3)]
    query = order_pb2.ListUserOrdersRequest(user_id=str(BUYER), page_size=2)
    first = await buyer.ListUserOrders(query)
    query.page_token = first.next_page_token
    second = await buyer.ListUserOrders(query)
    assert [order.order_id for order in (*first.orders, *second.orders)] == placed[::-1]
    assert not second.next_page_token
    query.page_token = "bWFkZSB1cA"
    error = await refusal(buyer.ListUserOrders(query))
    assert [violation.field for violation in error.violations] == ["page_token"]


async def test_the_reason_of_a_cancellation_is_kept(server: InProcessServer) -> None:
    buyer = server.stub(OrderServiceStub, as_user=BUYER)
    order = (await buyer.PlaceOrder(request())).order
    cancel = order_pb2.CancelOrderRequest(order_id=order.order_id)
    cancelled = (await buyer.CancelOrder(cancel)).order
    assert cancelled.status_history[-1].reason == "cancelled by the customer"
