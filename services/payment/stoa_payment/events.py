"""What the payment service consumes: to whom an order belongs now."""

from collections.abc import Mapping

from stoa_chassis.kafka import Handler
from stoa_contracts.events import Payload
from stoa_events import OrderBuyerChanged
from stoa_payment.service import Payments


def handlers(payments: Payments) -> Mapping[type[Payload], Handler]:
    """Return the handler of each event."""
    return {OrderBuyerChanged: payments.on_order_buyer_changed}
