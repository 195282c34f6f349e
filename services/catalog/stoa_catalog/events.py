"""What the catalog service consumes: what buyers think, and that a product changed, if it was not projected
yet.

Whoever changes a product projects it; its event is for when that could not be done.
"""

from collections.abc import Mapping
from typing import Any

from stoa_catalog.projector import Projector
from stoa_catalog.service import Assortment
from stoa_chassis.kafka import Handler
from stoa_contracts.events import Payload
from stoa_events import ProductCreated, ProductDeleted, ProductRated, ProductUpdated, ReviewRatingChanged


def handlers(projector: Projector[Any], assortment: Assortment[Any]) -> Mapping[type[Payload], Handler]:
    """Return the handler of each event."""
    return {
        ProductCreated: projector.on_product_changed,
        ProductUpdated: projector.on_product_changed,
        ProductDeleted: projector.on_product_changed,
        ProductRated: projector.on_product_rated,
        ReviewRatingChanged: assortment.on_rating_changed,
    }
