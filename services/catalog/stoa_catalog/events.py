"""What the catalog service consumes: that a product changed, in case who wrote it could not project it."""

from collections.abc import Mapping
from typing import Any

from stoa_catalog.projector import Projector
from stoa_chassis.kafka import Handler
from stoa_contracts.events import Payload
from stoa_events import ProductCreated, ProductDeleted, ProductUpdated


def handlers(projector: Projector[Any]) -> Mapping[type[Payload], Handler]:
    """Return the handler of each event."""
    return {
        ProductCreated: projector.on_product_changed,
        ProductUpdated: projector.on_product_changed,
        ProductDeleted: projector.on_product_changed,
    }
