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
from stoa_order.returns import Return, ReturnRequest, ReturnView
from stoa_order.service import PlaceOrder
from stoa_order.testing import ADDRESS as KEPT_ADDRESS
from stoa_order.testing import (
    GUEST,
    LINKS,
    NOW,
    TARIFF,
    WINDOW,
    a_confirmed_order,
    a_delivered_order,
    a_line,
    parcel,
)

ADDRESS = address_pb2.Address(
    recipient="Ada", line1="1 Engine Row", city="London", postal_code="N1 9GU", country="GB"
)
BUYER = new_id()
KEPT = new_id()
STAFF = Principal("staff", acts_as_staff=True)


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
            contact=command.contact,
        )
        self.orders.insert(0, order)
        return order.view

    async def get_by_link(self, secret: str) -> OrderView:
        order_id = LINKS.order_of(secret, NOW)
        for order in self.orders:
            if order.order_id == order_id:
                return order.view
        raise OrderNotFound("no such link")

    def access_token(self, order: OrderView) -> str:
        return LINKS.secret(order.order_id, order.created_at) if order.contact.email else ""

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

    async def request_return(
        self, order_id: UUID, request_id: str, request: ReturnRequest, caller: Principal
    ) -> Return:
        return self._find(order_id, caller).request_return(request_id, request, WINDOW, NOW)

    async def list_returns_of(
        self, order_id: UUID, caller: Principal, *, after: UUID | None = None, limit: int
    ) -> Sequence[Return]:
        found = self._find(order_id, caller).returns
        return [made for made in found if after is None or made.return_id > after][:limit]

    async def list_returns(
        self, *, status: str | None = None, before: UUID | None = None, limit: int
    ) -> Sequence[ReturnView]:
        views = [ReturnView(order.order_id, made) for order in self.orders for made in order.returns[::-1]]
        return [
            view
            for view in views
            if status in (None, view.return_.status.value)
            and (before is None or view.return_.return_id < before)
        ][:limit]

    async def approve_return(self, order_id: UUID, return_id: UUID, reason: str) -> Return:
        return self._find(order_id, STAFF).approve_return(return_id, reason, NOW)

    async def reject_return(self, order_id: UUID, return_id: UUID, reason: str) -> Return:
        return self._find(order_id, STAFF).reject_return(return_id, reason, NOW)

    async def receive_return(self, order_id: UUID, return_id: UUID, reason: str) -> Return:
        return self._find(order_id, STAFF).receive_return(return_id, reason, NOW)


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
    # The other of the two destinations, and what only guests give.
    assert empty(message, "request") == {f"request.{left_out}", "request.email", "request.locale"}
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
        ({"email": "ann@example.com"}, {"email"}),
        ({"locale": "de"}, {"locale"}),
        ({"locale": "tlh"}, {"locale"}),
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
    order = a_confirmed_order(contact=GUEST)
    order.on_shipment_created(parcel(order), NOW)
    order.cancel("changed my mind", NOW)
    use_cases.orders.append(order)
    stub = server.stub(OrderServiceStub, as_user=order.user_id)
    answer = (await stub.GetOrder(order_pb2.GetOrderRequest(order_id=str(order.order_id)))).order
    assert empty(answer) == {"order.status_history.reason"}  # only a cancelled order has one
    assert answer.cancellation_requested
    assert answer.access_token == LINKS.secret(order.order_id, order.created_at)
    assert shown(answer) >= values(order.view) - {None, "changed my mind", GUEST.locale}


async def test_a_guest_orders_with_an_address_to_write_to_and_anybody_reads_it_by_its_link(
    server: InProcessServer, use_cases: UseCases
) -> None:
    guest = server.stub(OrderServiceStub, as_user=BUYER, guest=True)
    for email in ("", "nowhere"):
        error = await refusal(guest.PlaceOrder(request(email=email)))
        assert [violation.field for violation in error.violations] == ["email"]
    order = (await guest.PlaceOrder(request(email=GUEST.email, locale="de"))).order
    assert use_cases.commands[-1].contact == GUEST
    assert order.email == GUEST.email
    nobody = server.stub(OrderServiceStub)
    query = order_pb2.GetGuestOrderRequest(access_token=order.access_token)
    found = (await nobody.GetGuestOrder(query)).order
    assert (found.order_id, found.access_token) == (order.order_id, "")
    for made_up in ("bWFkZSB1cA", "two words"):
        error = await refusal(nobody.GetGuestOrder(order_pb2.GetGuestOrderRequest(access_token=made_up)))
        assert error.code in (Code.NOT_FOUND, Code.INVALID_ARGUMENT)


def a_return(order: Order, **changes: Any) -> order_pb2.CreateReturnRequest:
    item = order_pb2.ReturnItem(variant_id=str(order.lines[0].variant_id), quantity=1)
    fields = {"order_id": str(order.order_id), "request_id": "back", "items": [item], "reason": "too dark"}
    return order_pb2.CreateReturnRequest(**{**fields, **changes})


async def test_a_return_goes_from_the_buyer_to_support_and_to_the_warehouse(
    server: InProcessServer, use_cases: UseCases
) -> None:
    order = a_delivered_order()
    use_cases.orders.append(order)
    buyer = server.stub(OrderServiceStub, as_user=order.user_id)
    support = server.stub(OrderServiceStub, as_user=new_id(), staff_roles=("support",))
    warehouse = server.stub(OrderServiceStub, as_user=new_id(), staff_roles=("warehouse",))
    made = (await buyer.CreateReturn(a_return(order))).order_return
    assert (made.status, made.reason, made.order_id) == ("requested", "too dark", str(order.order_id))
    assert from_proto(made.refund_amount, "") == order.returns[0].refund
    ids = {"order_id": made.order_id, "return_id": made.return_id}
    for refused in (
        buyer.ApproveReturn(order_pb2.ApproveReturnRequest(**ids)),
        buyer.ReceiveReturn(order_pb2.ReceiveReturnRequest(**ids)),
        warehouse.ApproveReturn(order_pb2.ApproveReturnRequest(**ids)),
        warehouse.RejectReturn(order_pb2.RejectReturnRequest(**ids)),
    ):
        assert (await refusal(refused)).code is Code.PERMISSION_DENIED
    approved = await support.ApproveReturn(order_pb2.ApproveReturnRequest(**ids, reason="sorry"))
    assert (approved.order_return.status, approved.order_return.decision_reason) == ("approved", "sorry")
    received = (await warehouse.ReceiveReturn(order_pb2.ReceiveReturnRequest(**ids))).order_return
    assert (received.status, empty(received, "return")) == ("received", set())
    error = await refusal(support.RejectReturn(order_pb2.RejectReturnRequest(**ids)))
    assert error.reason == "RETURN_NOT_OPEN"
    for lister in (
        buyer.ListOrderReturns(order_pb2.ListOrderReturnsRequest(order_id=made.order_id)),
        warehouse.ListReturns(order_pb2.ListReturnsRequest(status="received")),
    ):
        assert [each.return_id for each in (await lister).returns] == [made.return_id]


async def test_a_request_id_that_comes_again_with_another_return_is_a_conflict_that_names_the_difference(
    server: InProcessServer, use_cases: UseCases
) -> None:
    order = a_delivered_order(a_line(quantity=3))
    use_cases.orders.append(order)
    buyer = server.stub(OrderServiceStub, as_user=order.user_id)
    made = (await buyer.CreateReturn(a_return(order))).order_return
    assert (await buyer.CreateReturn(a_return(order))).order_return == made
    error = await refusal(buyer.CreateReturn(a_return(order, reason="too bright")))
    assert (error.code, error.reason) == (Code.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert [each.field for each in error.violations] == ["reason"]


async def test_ids_are_the_same_in_capitals(server: InProcessServer, use_cases: UseCases) -> None:
    buyer = server.stub(OrderServiceStub, as_user=BUYER)
    await buyer.PlaceOrder(request(address_id=str(KEPT).upper()))
    assert use_cases.commands[-1].destination == KEPT
    query = order_pb2.ListUserOrdersRequest(user_id=str(BUYER), page_size=1)
    await buyer.PlaceOrder(request(request_id="again"))
    query.page_token = (await buyer.ListUserOrders(query)).next_page_token
    query.user_id = str(BUYER).upper()
    (placed,) = (await buyer.ListUserOrders(query)).orders
    cancel = order_pb2.CancelOrderRequest(order_id=placed.order_id.upper())
    assert (await buyer.CancelOrder(cancel)).order.order_id == placed.order_id

    order = a_delivered_order(a_line(quantity=3))
    use_cases.orders.append(order)
    buyer = server.stub(OrderServiceStub, as_user=order.user_id)
    asked = a_return(order)
    made = (await buyer.CreateReturn(asked)).order_return
    order_id = asked.order_id = asked.order_id.upper()
    asked.items[0].variant_id = asked.items[0].variant_id.upper()
    assert (await buyer.CreateReturn(asked)).order_return == made
    assert (await buyer.GetOrder(order_pb2.GetOrderRequest(order_id=order_id))).order.user_id == str(
        order.user_id
    )
    listed = await buyer.ListOrderReturns(order_pb2.ListOrderReturnsRequest(order_id=order_id))
    assert list(listed.returns) == [made]
    staff = server.stub(OrderServiceStub, as_user=new_id(), staff=True)
    ids = {"order_id": order_id, "return_id": made.return_id.upper()}
    approved = (await staff.ApproveReturn(order_pb2.ApproveReturnRequest(**ids))).order_return
    assert (approved.return_id, approved.status) == (made.return_id, "approved")
    received = (await staff.ReceiveReturn(order_pb2.ReceiveReturnRequest(**ids))).order_return
    assert (received.return_id, received.status) == (made.return_id, "received")
    other = (await buyer.CreateReturn(a_return(order, request_id="more"))).order_return
    ids["return_id"] = other.return_id.upper()
    rejected = (await staff.RejectReturn(order_pb2.RejectReturnRequest(**ids))).order_return
    assert (rejected.return_id, rejected.status) == (other.return_id, "rejected")


async def test_what_is_wrong_with_a_return_is_named(server: InProcessServer, use_cases: UseCases) -> None:
    order = a_delivered_order()
    use_cases.orders.append(order)
    buyer = server.stub(OrderServiceStub, as_user=order.user_id)
    variant_id = str(order.lines[0].variant_id)

    def items(*wrong: dict[str, Any]) -> dict[str, Any]:
        return {"items": [order_pb2.ReturnItem(**item) for item in wrong]}

    for changes, named in (
        ({"request_id": ""}, "request_id"),
        ({"items": []}, "items"),
        (items({"variant_id": "it", "quantity": 1}), "items[0].variant_id"),
        (items({"variant_id": variant_id}), "items[0].quantity"),
        (items({"variant_id": variant_id, "quantity": 0}), "items[0].quantity"),
        (items({"variant_id": variant_id, "quantity": 3}), "items[0].quantity"),
        (items({"variant_id": str(new_id()), "quantity": 1}), "items[0].variant_id"),
        (items(*[{"variant_id": variant_id, "quantity": 1}] * 2), "items[1].variant_id"),
    ):
        error = await refusal(buyer.CreateReturn(a_return(order, **changes)))
        assert (error.code, [each.field for each in error.violations]) == (Code.INVALID_ARGUMENT, [named])
    assert not order.returns
    stranger = server.stub(OrderServiceStub, as_user=new_id())
    assert (await refusal(stranger.CreateReturn(a_return(order)))).reason == "ORDER_NOT_FOUND"


async def test_returns_are_read_page_by_page(server: InProcessServer, use_cases: UseCases) -> None:
    order = a_delivered_order(a_line(quantity=3))
    use_cases.orders.append(order)
    buyer = server.stub(OrderServiceStub, as_user=order.user_id)
    staff = server.stub(OrderServiceStub, as_user=new_id(), staff=True)
    made = [(await buyer.CreateReturn(a_return(order, request_id=str(n)))).order_return for n in range(3)]
    of_order = order_pb2.ListOrderReturnsRequest(order_id=str(order.order_id), page_size=2)
    of_all = order_pb2.ListReturnsRequest(page_size=2)
    cases: tuple[tuple[Any, Any, Any], ...] = (
        (buyer.ListOrderReturns, of_order, made),
        (staff.ListReturns, of_all, made[::-1]),
    )
    for ask, query, all_of_them in cases:
        first = await ask(query)
        query.page_token = first.next_page_token
        second = await ask(query)
        assert [*first.returns, *second.returns] == all_of_them
        assert not second.next_page_token


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
