"""The other services, as the use cases see them."""

from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID

from stoa.cart.v1 import cart_pb2, cart_pb2_grpc
from stoa.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from stoa.payment.v1 import payment_pb2, payment_pb2_grpc
from stoa.shipping.v1 import shipping_pb2, shipping_pb2_grpc
from stoa.user.v1 import user_pb2, user_pb2_grpc
from stoa_chassis import postal
from stoa_chassis.errors import Code, InvalidArgument, RemoteError
from stoa_chassis.money_proto import from_proto, to_proto
from stoa_chassis.telemetry import get_logger
from stoa_contracts.money import Money
from stoa_order import addresses
from stoa_order.model import (
    Address,
    CartClaim,
    CartLine,
    Checkout,
    Offer,
    Order,
    ReturnRefundMade,
    ShipmentStopped,
    ShipmentUnderWay,
    Withdrawn,
)
from stoa_order.returns import Return

_log = get_logger(__name__)

# A shopper waits for the quote; without it the order costs what the tariff says.
_QUOTE_SECONDS = 0.5
# Who cancels waits for shipping, which may have to ask a carrier; else she is told that it was asked for.
_STOP_SECONDS = 5
# What payment says of a refund for which there is not enough, or, since what was held has lapsed, nothing.
_NOT_SO_MUCH_LEFT = ("REFUND_TOO_LARGE", "NOTHING_TO_REFUND", "PAYMENT_FAILED")


class Carts:
    """The cart service."""

    def __init__(self, stub: cart_pb2_grpc.CartServiceStub) -> None:
        self._stub = stub

    async def checkout(self, user_id: UUID, request_id: str) -> Checkout:
        """Return the cart at the prices that the owner last saw, as a request to place an order finds it."""
        found = await self._stub.GetCartForCheckout(
            cart_pb2.GetCartForCheckoutRequest(user_id=str(user_id), request_id=request_id)
        )
        return Checkout(
            [
                CartLine(
                    UUID(item.product_id),
                    UUID(item.variant_id),
                    item.quantity,
                    from_proto(item.price, "price"),
                )
                for item in found.cart.items
            ],
            found.version,
            UUID(found.order_id) if found.order_id else None,
            [UUID(order_id) for order_id in found.lapsed_order_ids],
        )

    async def claim(self, user_id: UUID, request_id: str, order_id: UUID, version: str) -> CartClaim:
        """Take out what is in the cart for an order that is about to be placed.

        The same request gets the order that it claimed for first. Raises RemoteError with the reason
        CART_EMPTY, or CART_CHANGED if the cart is of another version.
        """
        claim = await self._stub.ClaimCart(
            cart_pb2.ClaimCartRequest(
                user_id=str(user_id), request_id=request_id, order_id=str(order_id), version=version
            )
        )
        return CartClaim(UUID(claim.order_id), claim.ttl.ToTimedelta())

    async def release(self, user_id: UUID, order_id: UUID) -> None:
        """Give back what was claimed for an order that will not be placed."""
        await self._stub.ReleaseCart(
            cart_pb2.ReleaseCartRequest(user_id=str(user_id), order_id=str(order_id))
        )


class Catalog:
    """The catalog service."""

    def __init__(self, stub: catalog_pb2_grpc.CatalogServiceStub) -> None:
        self._stub = stub

    async def offers(self, variant_ids: Sequence[UUID]) -> Sequence[Offer | Withdrawn]:
        """Return today's offers, and what is known of variants that are not on sale."""
        response = await self._stub.BatchGetVariants(
            catalog_pb2.BatchGetVariantsRequest(variant_ids=[str(variant_id) for variant_id in variant_ids])
        )
        return [
            *(
                Offer(
                    UUID(entry.product_id),
                    UUID(entry.variant.variant_id),
                    entry.product_name,
                    from_proto(entry.variant.price, "price"),
                )
                for entry in response.variants
            ),
            *(Withdrawn(UUID(entry.variant_id), entry.product_name) for entry in response.withdrawn),
        ]


class AddressBook:
    """The user service."""

    def __init__(self, stub: user_pb2_grpc.UserServiceStub) -> None:
        self._stub = stub

    async def address(self, user_id: UUID, address_id: UUID) -> Address:
        """Return one of a user's addresses.

        Raises InvalidArgument if there is no such one, and for one from before addresses were compared with
        what their country wants that does not fit.
        """
        try:
            response = await self._stub.GetAddress(
                user_pb2.GetAddressRequest(user_id=str(user_id), address_id=str(address_id))
            )
        except RemoteError as error:
            if error.code is Code.NOT_FOUND:
                raise InvalidArgument("address_id", "is not in your address book") from error
            raise
        found = response.address
        if wrong := [f"{part.replace('_', ' ')} {complaint}" for part, complaint in postal.complaints(found)]:
            raise InvalidArgument(
                "address_id", f"please correct the address in your address book: {'; '.join(wrong)}"
            )
        return addresses.from_message(found)


class Shipping:
    """The shipping service."""

    def __init__(self, stub: shipping_pb2_grpc.ShippingServiceStub) -> None:
        self._stub = stub

    async def quote(self, lines: Sequence[CartLine], address: Address, shipping_method: str) -> Money | None:
        """Return what shipping quotes; None if it does not answer soon.

        Raises InvalidArgument if nobody brings it there so, RemoteError if nobody brings it at all.
        """
        try:
            answer = await self._stub.QuoteShipping(
                shipping_pb2.QuoteShippingRequest(
                    items=[
                        shipping_pb2.QuoteShippingRequest.Item(
                            variant_id=str(line.variant_id), quantity=line.quantity
                        )
                        for line in lines
                    ],
                    address=addresses.to_message(address),
                ),
                timeout=_QUOTE_SECONDS,
            )
        except RemoteError as error:
            if error.code is Code.FAILED_PRECONDITION:
                raise
            _log.warning(
                "shipping quotes nothing, the tariff counts", reason=error.reason, error=error.message
            )
            return None
        for quote in answer.quotes:
            if quote.shipping_method == shipping_method:
                return from_proto(quote.amount, "amount")
        raise InvalidArgument("shipping_method", "is not how anybody brings this there; choose another")

    async def stop(self, order: Order) -> ShipmentStopped | ShipmentUnderWay:
        """See to it that no parcel of the order leaves the warehouse, now or later."""
        try:
            await self._stub.StopShipment(
                shipping_pb2.StopShipmentRequest(order_id=str(order.order_id)), timeout=_STOP_SECONDS
            )
        except RemoteError as error:
            if error.reason == "SHIPMENT_UNDER_WAY":
                return ShipmentUnderWay()
            raise
        return ShipmentStopped()


class Payments:
    """The payment service: what the saga asks of it. The outcomes come as events."""

    def __init__(self, stub: payment_pb2_grpc.PaymentServiceStub) -> None:
        self._stub = stub

    async def charge(self, order: Order, payment_token: str) -> None:
        """Charge the order's total, once however often it is asked."""
        await self._stub.ProcessPayment(
            payment_pb2.ProcessPaymentRequest(
                order_id=str(order.order_id),
                user_id=str(order.user_id),
                amount=to_proto(order.amounts.total),
                payment_token=payment_token,
            ),
            # The gateway takes its time; the saga's own deadline is what counts.
            timeout=10,
        )

    async def capture(self, order: Order) -> None:
        """Take what is held for the order, once however often it is asked."""
        assert order.payment is not None
        await self._stub.CapturePayment(
            payment_pb2.CapturePaymentRequest(payment_id=str(order.payment.payment_id)), timeout=10
        )

    async def refund(self, order: Order) -> None:
        """Give back all that is left of the order's payment, once however often it is asked."""
        assert order.payment is not None
        await self._stub.RefundPayment(
            payment_pb2.RefundPaymentRequest(
                payment_id=str(order.payment.payment_id),
                request_id=f"cancel-{order.order_id}",
                reason=order.history[-1].reason[:500],
            ),
            timeout=10,
        )

    async def refund_return(self, order: Order, return_: Return) -> ReturnRefundMade | None:
        """Give back what is owed for a return, once however often it is asked; None if it is not made yet.

        If less is left of the payment, since staff has given money back before, that is given back.
        """
        made = await self._refund_part(order, return_, return_.refund)
        if made is None:
            # What is left can only become less: under a key of its own the answer is always the same.
            made = await self._refund_part(order, return_, None)
        if made is None:
            return ReturnRefundMade(return_.return_id, Money(Decimal(0), return_.refund.currency))
        if made.status != "succeeded":
            return None
        return ReturnRefundMade(return_.return_id, from_proto(made.amount, "amount"))

    async def _refund_part(
        self, order: Order, return_: Return, amount: Money | None
    ) -> payment_pb2.Refund | None:
        """Ask for a refund, without an amount of all that is left; return None if not so much is left."""
        assert order.payment is not None
        try:
            answer = await self._stub.RefundPayment(
                payment_pb2.RefundPaymentRequest(
                    payment_id=str(order.payment.payment_id),
                    request_id=f"{return_.return_id}{'-rest' if amount is None else ''}",
                    amount=None if amount is None else to_proto(amount),
                    reason=f"return {return_.return_id}",
                ),
                timeout=10,
            )
        except RemoteError as error:
            if error.reason in _NOT_SO_MUCH_LEFT:
                return None
            raise
        return answer.refund
