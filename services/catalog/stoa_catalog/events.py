"""What the catalog service consumes, and what each of its processes follows.

One of the processes takes over what buyers think of a product. Each follows that a product changed, maybe
through another process.
"""

from collections.abc import Mapping
from typing import Any

from stoa_catalog.projector import Projector
from stoa_catalog.service import Assortment
from stoa_chassis.kafka import Handler
from stoa_contracts.events import Payload
from stoa_events import ProductCreated, ProductDeleted, ProductRated, ProductUpdated, ReviewRatingChanged


def handlers(assortment: Assortment[Any]) -> Mapping[type[Payload], Handler]:
    """Return the handler of each event that is consumed."""
    return {ReviewRatingChanged: assortment.on_rating_changed}


def followers(projector: Projector[Any]) -> Mapping[type[Payload], Handler]:
    """Return the handler of each event that is followed."""
    return {
        ProductCreated: projector.on_product_changed,
        ProductUpdated: projector.on_product_changed,
        ProductDeleted: projector.on_product_changed,
        ProductRated: projector.on_product_rated,
    }
