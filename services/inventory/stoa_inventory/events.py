"""What inventory does about events of other services."""

from collections.abc import Mapping

from stoa_chassis.kafka import Handler
from stoa_contracts.events import Payload
from stoa_events import (
    OrderCancelled,
    OrderPlaced,
    OrderReturned,
    OrderShipped,
    ProductCreated,
    ProductDeleted,
    ProductUpdated,
)
from stoa_inventory.service import Inventory


def handlers(inventory: Inventory) -> Mapping[type[Payload], Handler]:
    """Return the use case that handles each event."""
    return {
        OrderPlaced: inventory.on_order_placed,
        OrderCancelled: inventory.on_order_cancelled,
        OrderShipped: inventory.on_order_shipped,
        OrderReturned: inventory.on_order_returned,
        ProductCreated: inventory.on_product_changed,
        ProductUpdated: inventory.on_product_changed,
        ProductDeleted: inventory.on_product_deleted,
    }
