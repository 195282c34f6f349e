"""What the order service consumes: the answers that the saga's steps wait for, and what becomes of buyers."""

from collections.abc import Mapping

from stoa_chassis.kafka import Handler
from stoa_contracts.events import Payload
from stoa_events import UserEmailVerified, UserErased, UserGuestMerged
from stoa_order.saga import reactions
from stoa_order.service import Orders


def handlers(orders: Orders) -> Mapping[type[Payload], Handler]:
    """Return the handler of each event."""
    return {
        **dict.fromkeys(reactions(), orders.on_answer),
        UserGuestMerged: orders.on_guest_merged,
        UserEmailVerified: orders.on_email_verified,
        UserErased: orders.on_user_erased,
    }
