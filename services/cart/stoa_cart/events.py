"""What the cart service consumes: what becomes of orders and of guests, and what products cost."""

from collections.abc import Mapping

from stoa_cart.service import Carts
from stoa_chassis.kafka import Handler
from stoa_contracts.events import Payload
from stoa_events import (
    OrderCancelled,
    OrderConfirmed,
    OrderPlaced,
    ProductCreated,
    ProductDeleted,
    ProductUpdated,
    UserGuestMerged,
)


def handlers(carts: Carts) -> Mapping[type[Payload], Handler]:
    """Return the handler of each event."""
    return {
        OrderPlaced: carts.on_order_placed,
        OrderConfirmed: carts.on_order_confirmed,
        OrderCancelled: carts.on_order_cancelled,
        ProductCreated: carts.on_product_changed,
        ProductUpdated: carts.on_product_changed,
        ProductDeleted: carts.on_product_deleted,
        UserGuestMerged: carts.on_guest_merged,
    }
