"""The gRPC servicer: messages to use cases and back."""

from uuid import UUID

from google.protobuf.empty_pb2 import Empty

from stoa.cart.v1 import cart_pb2, cart_pb2_grpc
from stoa_cart.model import Cart
from stoa_cart.service import Carts
from stoa_chassis.money_proto import to_proto
from stoa_chassis.timestamps import to_timestamp


class CartServicer(cart_pb2_grpc.CartServiceServicer):
    """stoa.cart.v1.CartService."""

    def __init__(self, carts: Carts) -> None:
        self._carts = carts

    async def GetCart(self, request: cart_pb2.GetCartRequest, context: object) -> cart_pb2.GetCartResponse:
        """Show a cart to its owner."""
        cart = await self._carts.get(UUID(request.user_id))
        return cart_pb2.GetCartResponse(cart=_message(cart))

    async def GetCartForCheckout(
        self, request: cart_pb2.GetCartForCheckoutRequest, context: object
    ) -> cart_pb2.GetCartForCheckoutResponse:
        """Read a cart with the prices that its owner last saw."""
        checkout = await self._carts.for_checkout(UUID(request.user_id), request.request_id)
        return cart_pb2.GetCartForCheckoutResponse(
            cart=_message(checkout.cart),
            version=checkout.version,
            order_id=str(checkout.order_id or ""),
            lapsed_order_ids=map(str, checkout.lapsed),
        )

    async def ClaimCart(
        self, request: cart_pb2.ClaimCartRequest, context: object
    ) -> cart_pb2.ClaimCartResponse:
        """Take out what is in a cart for an order."""
        claim, ttl = await self._carts.claim(
            UUID(request.user_id), request.request_id, UUID(request.order_id), request.version
        )
        response = cart_pb2.ClaimCartResponse(order_id=str(claim.order_id))
        response.ttl.FromTimedelta(ttl)
        return response

    async def ReleaseCart(
        self, request: cart_pb2.ReleaseCartRequest, context: object
    ) -> cart_pb2.ReleaseCartResponse:
        """Give back what an order claimed that will not be placed."""
        await self._carts.release(UUID(request.user_id), UUID(request.order_id))
        return cart_pb2.ReleaseCartResponse()

    async def AddCartItem(
        self, request: cart_pb2.AddCartItemRequest, context: object
    ) -> cart_pb2.AddCartItemResponse:
        """Put a variant into a cart."""
        item = request.item
        cart = await self._carts.add(
            UUID(request.user_id), UUID(item.product_id), UUID(item.variant_id), item.quantity
        )
        return cart_pb2.AddCartItemResponse(cart=_message(cart))

    async def UpdateCartItem(
        self, request: cart_pb2.UpdateCartItemRequest, context: object
    ) -> cart_pb2.UpdateCartItemResponse:
        """Change the quantity of an item."""
        cart = await self._carts.update(UUID(request.user_id), UUID(request.item_id), request.item.quantity)
        return cart_pb2.UpdateCartItemResponse(cart=_message(cart))

    async def RemoveCartItem(
        self, request: cart_pb2.RemoveCartItemRequest, context: object
    ) -> cart_pb2.RemoveCartItemResponse:
        """Take an item out."""
        cart = await self._carts.remove(UUID(request.user_id), UUID(request.item_id))
        return cart_pb2.RemoveCartItemResponse(cart=_message(cart))

    async def ClearCart(self, request: cart_pb2.ClearCartRequest, context: object) -> Empty:
        """Take everything out."""
        await self._carts.clear(UUID(request.user_id))
        return Empty()


def _message(cart: Cart) -> cart_pb2.Cart:
    return cart_pb2.Cart(
        user_id=str(cart.user_id),
        items=(
            cart_pb2.CartItem(
                item_id=str(item.item_id),
                product_id=str(item.product_id),
                variant_id=str(item.variant_id),
                quantity=item.quantity,
                price=to_proto(item.price),
                available=item.available,
            )
            for item in cart.items
        ),
        subtotal=to_proto(cart.subtotal),
        updated_at=to_timestamp(cart.updated_at) if cart.updated_at else None,
    )
