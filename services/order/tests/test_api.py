"""The order API through the chassis: policy, validation and errors as in production."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.type import money_pb2

from stoa.order.v1 import order_pb2
from stoa.order.v1.order_pb2_grpc import OrderServiceStub, add_OrderServiceServicer_to_server
from stoa.types.v1 import address_pb2
from stoa_chassis.auth import Principal
from stoa_chassis.errors import Code, RemoteError
from stoa_chassis.ids import new_id
from stoa_chassis.money_proto import from_proto
from stoa_chassis.testing import InProcessServer, serve_in_process
from stoa_contracts.money import Money
from stoa_order.api import OrderServicer
from stoa_order.model import Address, Line, Order, OrderNotFound, OrderView
from stoa_order.service import PlaceOrder
from stoa_order.testing import ADDRESS as KEPT_ADDRESS
from stoa_order.testing import NOW, TARIFF, a_confirmed_order

ADDRESS = address_pb2.Address(
    recipient="Ada", line1="1 Engine Row", city="London", postal_code="N1 9GU", country="GB"
)
BUYER = new_id()
KEPT = new_id()


@dataclass
class UseCases:
    """Orders kept in a list, in place of the database."""

    orders: list[Order] = field(default_factory=list)
    commands: list[PlaceOrder] = field(default_factory=list)

    async def place(self, command: PlaceOrder) -> OrderView:
        self.commands.append(command)
        address = command.destination if isinstance(command.destination, Address) else KEPT_ADDRESS
        line = Line(new_id(), new_id(), new_id(), "Lamp", 2, Money(Decimal("19.99"), "USD"))
        order_id = new_id()
        order = Order.place(
            order_id=order_id,
            user_id=command.user_id,
            request_id=command.request_id,
            request=command.request_for(order_id),
            lines=(line,),
            amounts=TARIFF.amounts((line,), command.shipping_method),
            shipping_address=address,
            shipping_method=command.shipping_method,
            now=NOW,
        )
        self.orders.insert(0, order)
        return order.view

    async def get(self, order_id: UUID, caller: Principal) -> OrderView:
        return self._find(order_id, caller).view

    def _find(self, order_id: UUID, caller: Principal) -> Order:
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
    ) -> Sequence[OrderView]:
        found = [order.view for order in self.orders if user_id in (None, order.user_id)]
        return [order for order in found if before is None or order.order_id < before][:limit]

    async def cancel(self, order_id: UUID, reason: str, caller: Principal) -> OrderView:
        order = self._find(order_id, caller)
        order.cancel(reason, NOW)
        return order.view


@pytest.fixture
def use_cases() -> UseCases:
    return UseCases()


@pytest.fixture
async def server(use_cases: Any) -> AsyncIterator[InProcessServer]:
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
    assert (order.total_amount.units, order.total_amount.nanos) == (48, 80_000_000)
    assert order.created_at.ToDatetime(UTC) == NOW
    assert not order.HasField("payment")


@pytest.mark.parametrize(
    ("sent", "meant", "left_out"),
    [
        (
            {
                "shipping_address": address_pb2.Address(
                    recipient="Ada Lovelace",
                    line1="1 Engine Row",
                    line2="Attic",
                    city="London",
                    region="Marylebone",
                    postal_code="N1 9GU",
                    country="GB",
                )
            },
            Address(
                recipient="Ada Lovelace",
                line1="1 Engine Row",
                line2="Attic",
                city="London",
                region="Marylebone",
                postal_code="N1 9GU",
                country="GB",
            ),
            "address_id",
        ),
        ({"address_id": str(KEPT)}, KEPT, "shipping_address"),
    ],
    ids=["an address", "the id of an address"],
)
async def test_every_field_of_a_request_arrives_in_its_place(
    server: InProcessServer, use_cases: UseCases, sent: dict[str, Any], meant: Address | UUID, left_out: str
) -> None:
    message = order_pb2.PlaceOrderRequest(
        request_id="a-request", shipping_method="express", payment_token="tok_mastercard", **sent
    )
    assert empty(message, "request") == {f"request.{left_out}"}  # the other of the two destinations
    await server.stub(OrderServiceStub, as_user=BUYER).PlaceOrder(message)
    assert use_cases.commands == [
        PlaceOrder(
            user_id=BUYER,
            request_id="a-request",
            destination=meant,
            shipping_method="express",
            payment_token="tok_mastercard",
        )
    ]


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"request_id": ""}, {"request_id"}),
        ({"request_id": "two words"}, {"request_id"}),
        ({"payment_token": "4242424242424242"}, {"payment_token"}),
        ({"shipping_method": "teleport"}, {"shipping_method"}),
        ({"shipping_address": None}, {"shipping_address"}),
        (
            {"shipping_address": address_pb2.Address(recipient="Ada", country="England")},
            {"shipping_address.line1", "shipping_address.country"},
        ),
        (
            {"shipping_address": address_pb2.Address(recipient="Ada", line1="1 Engine Row", country="GB")},
            {"shipping_address.city", "shipping_address.postal_code"},
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


async def test_every_field_of_an_order_arrives(server: InProcessServer, use_cases: UseCases) -> None:
    order = a_confirmed_order()
    use_cases.orders.append(order)
    stub = server.stub(OrderServiceStub, as_user=order.user_id)
    answer = (await stub.GetOrder(order_pb2.GetOrderRequest(order_id=str(order.order_id)))).order
    assert empty(answer) == {"order.status_history.reason"}  # only a cancellation has one
    assert shown(answer) >= values(order.view)


def empty(message: Message, path: str = "order") -> set[str]:
    """Return the paths of fields that have no value."""
    present = {descriptor.name for descriptor, _ in message.ListFields()}
    found = {f"{path}.{name}" for name in message.DESCRIPTOR.fields_by_name if name not in present}
    if isinstance(message, money_pb2.Money | Timestamp):
        return set()
    for descriptor, value in message.ListFields():
        inner = value if descriptor.is_repeated else [value]
        for each in inner:
            if isinstance(each, Message):
                found |= empty(each, f"{path}.{descriptor.name}")
    return found


def shown(message: Message) -> set[object]:
    """Return all values in a message, as an order has them."""
    found: set[object] = set()
    for descriptor, value in message.ListFields():
        for each in value if descriptor.is_repeated else [value]:
            if isinstance(each, money_pb2.Money):
                found.add(from_proto(each, descriptor.name))
            elif isinstance(each, Timestamp):
                found.add(each.ToDatetime(UTC))
            elif isinstance(each, Message):
                found |= shown(each)
            else:
                found.add(each)
    return found


def values(entity: Any) -> set[object]:
    """Return all values in an entity, but not the ids of lines, which are not shown."""
    if isinstance(entity, tuple):
        return {value for each in entity for value in values(each)}
    if is_dataclass(entity) and not isinstance(entity, Money):
        names = [each.name for each in fields(entity) if each.name != "item_id"]
        return {value for name in names for value in values(getattr(entity, name))}
    return {str(entity)} if isinstance(entity, UUID) else {entity} - {""}
