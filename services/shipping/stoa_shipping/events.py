"""What shipping does about events of other services."""

from collections.abc import Mapping

from stoa_chassis.kafka import Handler
from stoa_contracts.events import Payload
from stoa_events import (
    OrderBuyerChanged,
    OrderCancelled,
    OrderConfirmed,
    PaymentSuccessful,
    ProductCreated,
    ProductUpdated,
    UserErased,
)
from stoa_shipping.service import Shipments


def handlers(shipments: Shipments) -> Mapping[type[Payload], Handler]:
    """Return the use case that handles each event."""
    return {
        OrderConfirmed: shipments.on_order_confirmed,
        OrderCancelled: shipments.on_order_cancelled,
        OrderBuyerChanged: shipments.on_buyer_changed,
        PaymentSuccessful: shipments.on_payment_successful,
        UserErased: shipments.on_user_erased,
        ProductCreated: shipments.on_product_changed,
        ProductUpdated: shipments.on_product_changed,
    }
