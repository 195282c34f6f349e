"""What the inventory service hears."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from stoa_chassis.avro import Event
from stoa_events import (
    OrderCancelled,
    OrderPlaced,
    OrderReturned,
    OrderShipped,
    ProductCreated,
    ProductUpdated,
)
from stoa_inventory.service import Inventory


def handlers(inventory: Inventory) -> Mapping[type, Callable[[Event[Any]], Awaitable[None]]]:
    """Return the handler of each event."""
    return {
        OrderPlaced: inventory.order_placed,
        OrderCancelled: inventory.order_cancelled,
        OrderShipped: inventory.order_shipped,
        OrderReturned: inventory.order_returned,
        ProductCreated: inventory.product_changed,
        ProductUpdated: inventory.product_changed,
    }
