"""What the cart service hears: orders, which empty carts, and what products cost."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from stoa_cart.service import Carts
from stoa_chassis.avro import Event
from stoa_events import OrderPlaced, ProductCreated, ProductDeleted, ProductUpdated


def handlers(carts: Carts) -> Mapping[type, Callable[[Event[Any]], Awaitable[None]]]:
    """Return the handler of each event."""

    async def product_changed(event: Event[ProductCreated | ProductUpdated]) -> None:
        product = event.payload
        prices = {variant.variant_id: variant.price for variant in product.variants}
        await carts.product_changed(product.product_id, product.version, prices)

    async def product_deleted(event: Event[ProductDeleted]) -> None:
        await carts.product_changed(event.payload.product_id, event.payload.version, {})

    return {
        OrderPlaced: carts.order_placed,
        ProductCreated: product_changed,
        ProductUpdated: product_changed,
        ProductDeleted: product_deleted,
    }
