"""What each process of the catalog service hears: that a product changed, maybe through another process."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from stoa_catalog.projector import Projector
from stoa_chassis.avro import Event
from stoa_events import ProductCreated, ProductDeleted, ProductUpdated


def handlers(projector: Projector[Any]) -> Mapping[type, Callable[[Event[Any]], Awaitable[None]]]:
    """Return the handler of each event."""
    return dict.fromkeys((ProductCreated, ProductUpdated, ProductDeleted), projector.product_changed)
