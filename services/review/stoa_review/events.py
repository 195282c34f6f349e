"""What the review service consumes: who has received what, who is forgotten, and what changed of reviews."""

from collections.abc import Mapping

from stoa_chassis.kafka import Handler
from stoa_contracts.events import Payload
from stoa_events import (
    OrderBuyerChanged,
    OrderDelivered,
    ReviewCreated,
    ReviewUpdated,
    ReviewVoted,
    UserErased,
    UserGuestMerged,
)
from stoa_review.service import Buying, Reviewing


def handlers(buying: Buying, reviewing: Reviewing) -> Mapping[type[Payload], Handler]:
    """Return the handler of each event."""
    return {
        OrderDelivered: buying.on_order_delivered,
        OrderBuyerChanged: buying.on_order_buyer_changed,
        UserGuestMerged: buying.on_guest_merged,
        UserErased: reviewing.on_user_erased,
        ReviewVoted: reviewing.on_review_voted,
        ReviewCreated: reviewing.on_review_changed,
        ReviewUpdated: reviewing.on_review_changed,
    }
