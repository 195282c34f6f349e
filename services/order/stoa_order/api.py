"""The gRPC servicer: messages to use cases and back."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from stoa.order.v1 import order_pb2, order_pb2_grpc
from stoa_chassis.auth import current_principal
from stoa_chassis.money_proto import to_proto
from stoa_chassis.paging import Page, page
from stoa_chassis.timestamps import to_timestamp
from stoa_order import addresses
from stoa_order.model import Address, OrderView, check_contact
from stoa_order.returns import Return, ReturnItem, ReturnRequest, ReturnView
from stoa_order.service import Orders, PlaceOrder


class OrderServicer(order_pb2_grpc.OrderServiceServicer):
    """stoa.order.v1.OrderService."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders

    async def PlaceOrder(
        self, request: order_pb2.PlaceOrderRequest, context: object
    ) -> order_pb2.PlaceOrderResponse:
        """Order what is in the caller's cart."""
        caller = current_principal()
        order = await self._orders.place(
            PlaceOrder(
                user_id=UUID(caller.user_id),
                request_id=request.request_id,
                destination=_destination(request),
                shipping_method=request.shipping_method or "standard",
                payment_token=request.payment_token,
                contact=check_contact(request.email, request.locale, is_guest=caller.is_guest),
            )
        )
        return order_pb2.PlaceOrderResponse(order=self._message(order))

    async def GetOrder(
        self, request: order_pb2.GetOrderRequest, context: object
    ) -> order_pb2.GetOrderResponse:
        """Read an order."""
        order = await self._orders.get(UUID(request.order_id), current_principal())
        return order_pb2.GetOrderResponse(order=self._message(order))

    async def GetGuestOrder(
        self, request: order_pb2.GetGuestOrderRequest, context: object
    ) -> order_pb2.GetGuestOrderResponse:
        """Read a guest's order by its link."""
        return order_pb2.GetGuestOrderResponse(
            order=_message(await self._orders.get_by_link(request.access_token))
        )

    async def ListUserOrders(
        self, request: order_pb2.ListUserOrdersRequest, context: object
    ) -> order_pb2.ListUserOrdersResponse:
        """List a user's orders."""
        found = await self._page(request, user_id=UUID(request.user_id))
        return order_pb2.ListUserOrdersResponse(
            orders=map(self._message, found.items), next_page_token=found.next_page_token
        )

    async def ListOrders(
        self, request: order_pb2.ListOrdersRequest, context: object
    ) -> order_pb2.ListOrdersResponse:
        """List all orders."""
        found = await self._page(request, status=request.status or None)
        return order_pb2.ListOrdersResponse(
            orders=map(self._message, found.items), next_page_token=found.next_page_token
        )

    async def CancelOrder(
        self, request: order_pb2.CancelOrderRequest, context: object
    ) -> order_pb2.CancelOrderResponse:
        """Cancel an order."""
        caller = current_principal()
        reason = request.reason or f"cancelled by {'staff' if caller.acts_as_staff else 'the customer'}"
        order = await self._orders.cancel(UUID(request.order_id), reason, caller)
        return order_pb2.CancelOrderResponse(order=self._message(order))

    async def CreateReturn(
        self, request: order_pb2.CreateReturnRequest, context: object
    ) -> order_pb2.CreateReturnResponse:
        """Ask to send items back."""
        order_id, items = UUID(request.order_id), tuple(map(_return_item, request.items))
        made = await self._orders.request_return(
            order_id, request.request_id, ReturnRequest(items, request.reason), current_principal()
        )
        return order_pb2.CreateReturnResponse(order_return=_return_message(order_id, made))

    async def ListOrderReturns(
        self, request: order_pb2.ListOrderReturnsRequest, context: object
    ) -> order_pb2.ListOrderReturnsResponse:
        """List the returns of an order."""
        order_id, caller = UUID(request.order_id), current_principal()

        async def read(position: Mapping[str, Any], limit: int) -> Sequence[Return]:
            after = UUID(position["after"]) if position else None
            return await self._orders.list_returns_of(order_id, caller, after=after, limit=limit)

        found = await page(request, {"order_id": order_id}, read, lambda made: {"after": made.return_id})
        return order_pb2.ListOrderReturnsResponse(
            returns=[_return_message(order_id, made) for made in found.items],
            next_page_token=found.next_page_token,
        )

    async def ListReturns(
        self, request: order_pb2.ListReturnsRequest, context: object
    ) -> order_pb2.ListReturnsResponse:
        """List the returns of all orders."""
        status = request.status or None

        async def read(position: Mapping[str, Any], limit: int) -> Sequence[ReturnView]:
            before = UUID(position["before"]) if position else None
            return await self._orders.list_returns(status=status, before=before, limit=limit)

        found = await page(request, {"status": status}, read, lambda view: {"before": view.return_.return_id})
        return order_pb2.ListReturnsResponse(
            returns=[_return_message(view.order_id, view.return_) for view in found.items],
            next_page_token=found.next_page_token,
        )

    async def ApproveReturn(
        self, request: order_pb2.ApproveReturnRequest, context: object
    ) -> order_pb2.ApproveReturnResponse:
        """Let a return come."""
        order_id = UUID(request.order_id)
        made = await self._orders.approve_return(order_id, UUID(request.return_id), request.reason)
        return order_pb2.ApproveReturnResponse(order_return=_return_message(order_id, made))

    async def RejectReturn(
        self, request: order_pb2.RejectReturnRequest, context: object
    ) -> order_pb2.RejectReturnResponse:
        """Refuse a return."""
        order_id = UUID(request.order_id)
        made = await self._orders.reject_return(order_id, UUID(request.return_id), request.reason)
        return order_pb2.RejectReturnResponse(order_return=_return_message(order_id, made))

    async def ReceiveReturn(
        self, request: order_pb2.ReceiveReturnRequest, context: object
    ) -> order_pb2.ReceiveReturnResponse:
        """Take note that a return is here."""
        order_id = UUID(request.order_id)
        made = await self._orders.receive_return(order_id, UUID(request.return_id), request.reason)
        return order_pb2.ReceiveReturnResponse(order_return=_return_message(order_id, made))

    def _message(self, order: OrderView) -> order_pb2.Order:
        """Write an order for somebody who was admitted to it, with its link if it has one."""
        message = _message(order)
        message.access_token = self._orders.access_token(order)
        return message

    async def _page(
        self, request: order_pb2.ListOrdersRequest | order_pb2.ListUserOrdersRequest, **filters: Any
    ) -> Page[OrderView]:
        async def read(after: Mapping[str, Any], limit: int) -> Sequence[OrderView]:
            before = UUID(after["before"]) if after else None
            return await self._orders.list(before=before, limit=limit, **filters)

        return await page(request, filters, read, lambda order: {"before": order.order_id})


def _destination(request: order_pb2.PlaceOrderRequest) -> Address | UUID:
    if request.HasField("address_id"):
        return UUID(request.address_id)
    return addresses.from_message(request.shipping_address)


def _message(order: OrderView) -> order_pb2.Order:
    return order_pb2.Order(
        order_id=str(order.order_id),
        user_id=str(order.user_id),
        status=order.status.value,
        items=[
            order_pb2.OrderItem(
                product_id=str(line.product_id),
                variant_id=str(line.variant_id),
                quantity=line.quantity,
                price=to_proto(line.price),
                name=line.name,
            )
            for line in order.lines
        ],
        subtotal=to_proto(order.amounts.subtotal),
        shipping_amount=to_proto(order.amounts.shipping),
        tax_amount=to_proto(order.amounts.tax),
        total_amount=to_proto(order.amounts.total),
        status_history=[
            order_pb2.StatusChange(
                status=change.status.value, reason=change.reason, at=to_timestamp(change.at)
            )
            for change in order.history
        ],
        payment=order_pb2.PaymentSummary(
            payment_id=str(order.payment.payment_id),
            status=order.payment.status.value,
            brand=order.payment.brand,
            last4=order.payment.last4,
        )
        if order.payment
        else None,
        shipping_address=addresses.to_message(order.shipping_address),
        shipping_method=order.shipping_method,
        created_at=to_timestamp(order.created_at),
        shipment=order_pb2.ShipmentSummary(
            carrier=order.shipment.carrier,
            tracking_id=order.shipment.tracking_id,
            status=order.shipment.status.value,
        )
        if order.shipment
        else None,
        email=order.contact.email,
        cancellation_requested=order.cancellation is not None,
    )


def _return_item(item: order_pb2.ReturnItem) -> ReturnItem:
    return ReturnItem(UUID(item.variant_id), item.quantity)


def _return_message(order_id: UUID, made: Return) -> order_pb2.Return:
    return order_pb2.Return(
        return_id=str(made.return_id),
        order_id=str(order_id),
        status=made.status.value,
        items=[
            order_pb2.ReturnItem(variant_id=str(item.variant_id), quantity=item.quantity)
            for item in made.items
        ],
        reason=made.reason,
        refund_amount=to_proto(made.refund),
        created_at=to_timestamp(made.created_at),
        decision_reason=made.decision,
    )
