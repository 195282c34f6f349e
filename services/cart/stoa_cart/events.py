"""What the cart service consumes: orders, which empty carts, and what products cost."""

from collections.abc import Mapping

from stoa_cart.service import Carts
from stoa_chassis.kafka import Handler
from stoa_contracts.events import Payload
from stoa_events import OrderPlaced, ProductCreated, ProductDeleted, ProductUpdated


def handlers(carts: Carts) -> Mapping[type[Payload], Handler]:
    """Return the handler of each event."""
    return {
        OrderPlaced: carts.on_order_placed,
        ProductCreated: carts.on_product_changed,
        ProductUpdated: carts.on_product_changed,
        ProductDeleted: carts.on_product_deleted,
    }
