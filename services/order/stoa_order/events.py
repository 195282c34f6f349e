"""What the order service consumes: the answers that the saga's steps wait for."""

from collections.abc import Mapping

from stoa_chassis.kafka import Handler
from stoa_contracts.events import Payload
from stoa_order.saga import reactions
from stoa_order.service import Orders


def handlers(orders: Orders) -> Mapping[type[Payload], Handler]:
    """Return the handler of each event."""
    return dict.fromkeys(reactions(), orders.on_answer)
