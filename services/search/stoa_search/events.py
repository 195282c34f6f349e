"""What search does about events of other services."""

from collections.abc import Mapping

from stoa_chassis.kafka import Handler
from stoa_contracts.events import Payload
from stoa_events import (
    InventoryAvailabilityChanged,
    ProductCreated,
    ProductDeleted,
    ProductRated,
    ProductUpdated,
)
from stoa_search.service import Indexing


def handlers(indexing: Indexing) -> Mapping[type[Payload], Handler]:
    """Return the use case that handles each event."""
    return {
        ProductCreated: indexing.on_product_changed,
        ProductUpdated: indexing.on_product_changed,
        ProductDeleted: indexing.on_product_deleted,
        ProductRated: indexing.on_product_rated,
        InventoryAvailabilityChanged: indexing.on_availability_changed,
    }
