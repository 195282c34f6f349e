"""What the cart service hears: orders, which empty carts, and the prices of products."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from stoa_cart.service import Carts
from stoa_chassis.avro import Event
from stoa_chassis.money import Money
from stoa_events import OrderPlaced, ProductCreated, ProductDeleted, ProductUpdated


def handlers(carts: Carts) -> Mapping[type, Callable[[Event[Any]], Awaitable[None]]]:
    """Return the handler of each event."""

    async def on_product(event: Event[ProductCreated | ProductUpdated]) -> None:
        product = event.payload
        prices = {
            variant.variant_id: Money(variant.price.amount, variant.price.currency_code)
            for variant in product.variants
        }
        await carts.learn_prices(product.product_id, product.version, prices)

    async def on_deletion(event: Event[ProductDeleted]) -> None:
        await carts.learn_prices(event.payload.product_id, event.payload.version, {})

    return {
        OrderPlaced: carts.take_ordered,
        ProductCreated: on_product,
        ProductUpdated: on_product,
        ProductDeleted: on_deletion,
    }
