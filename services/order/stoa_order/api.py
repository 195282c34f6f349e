"""The gRPC servicer: messages to use cases and back."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from stoa.order.v1 import order_pb2, order_pb2_grpc
from stoa.types.v1 import address_pb2
from stoa_chassis.auth import current_principal
from stoa_chassis.money_proto import to_proto
from stoa_chassis.paging import Page, page
from stoa_chassis.timestamps import to_timestamp
from stoa_order.model import Address, OrderView
from stoa_order.service import Orders, PlaceOrder


class OrderServicer(order_pb2_grpc.OrderServiceServicer):
    """stoa.order.v1.OrderService."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders

    async def PlaceOrder(
        self, request: order_pb2.PlaceOrderRequest, context: object
    ) -> order_pb2.PlaceOrderResponse:
        """Order what is in the caller's cart."""
        order = await self._orders.place(
            PlaceOrder(
                user_id=UUID(current_principal().user_id),
                request_id=request.request_id,
                destination=_destination(request),
                shipping_method=request.shipping_method or "standard",
                payment_token=request.payment_token,
            )
        )
        return order_pb2.PlaceOrderResponse(order=_message(order))

    async def GetOrder(
        self, request: order_pb2.GetOrderRequest, context: object
    ) -> order_pb2.GetOrderResponse:
        """Read an order."""
        order = await self._orders.get(UUID(request.order_id), current_principal())
        return order_pb2.GetOrderResponse(order=_message(order))

    async def ListUserOrders(
        self, request: order_pb2.ListUserOrdersRequest, context: object
    ) -> order_pb2.ListUserOrdersResponse:
        """List a user's orders."""
        found = await self._page(request, user_id=UUID(request.user_id))
        return order_pb2.ListUserOrdersResponse(
            orders=map(_message, found.items), next_page_token=found.next_page_token
        )

    async def ListOrders(
        self, request: order_pb2.ListOrdersRequest, context: object
    ) -> order_pb2.ListOrdersResponse:
        """List all orders."""
        found = await self._page(request, status=request.status or None)
        return order_pb2.ListOrdersResponse(
            orders=map(_message, found.items), next_page_token=found.next_page_token
        )

    async def CancelOrder(
        self, request: order_pb2.CancelOrderRequest, context: object
    ) -> order_pb2.CancelOrderResponse:
        """Cancel an order."""
        caller = current_principal()
        reason = request.reason or f"cancelled by {'staff' if caller.acts_as_staff else 'the customer'}"
        order = await self._orders.cancel(UUID(request.order_id), reason, caller)
        return order_pb2.CancelOrderResponse(order=_message(order))

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
    sent = request.shipping_address
    return Address(
        recipient=sent.recipient,
        line1=sent.line1,
        line2=sent.line2,
        city=sent.city,
        region=sent.region,
        postal_code=sent.postal_code,
        country=sent.country,
    )


def _message(order: OrderView) -> order_pb2.Order:
    address = order.shipping_address
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
        shipping_address=address_pb2.Address(
            recipient=address.recipient,
            line1=address.line1,
            line2=address.line2,
            city=address.city,
            region=address.region,
            postal_code=address.postal_code,
            country=address.country,
        ),
        shipping_method=order.shipping_method,
        created_at=to_timestamp(order.created_at),
    )
