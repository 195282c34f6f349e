"""The composition root of the cart service."""

from stoa.cart.v1.cart_pb2_grpc import add_CartServiceServicer_to_server
from stoa.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from stoa.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from stoa_cart.api import CartServicer
from stoa_cart.events import handlers
from stoa_cart.peers import Catalog, Inventory
from stoa_cart.repository import OUTBOX, CartStore, PriceBook
from stoa_cart.service import Carts
from stoa_cart.settings import Settings
from stoa_chassis.app import App, run
from stoa_chassis.avro import EventCodec
from stoa_chassis.clock import SystemClock
from stoa_chassis.kafka import Consumer, Producer
from stoa_chassis.redis import connect
from stoa_chassis.redis_outbox import RedisOutbox
from stoa_events import CartItemAdded


async def compose(app: App[Settings]) -> None:
    """Wire the service."""
    settings, clock = app.settings, SystemClock()
    redis = await app.enter(connect(settings.redis_url, settings.connect_timeout_seconds))
    codec = EventCodec(settings.schema_registry_url)
    await codec.load(CartItemAdded)
    producer = await app.enter(Producer(settings.kafka_bootstrap))

    outbox = RedisOutbox(redis, OUTBOX, codec, producer, clock)
    carts = Carts(
        CartStore(redis, outbox),
        PriceBook(redis),
        Catalog(app.client(CatalogServiceStub, "catalog")),
        Inventory(app.client(InventoryServiceStub, "inventory")),
        clock,
    )
    consumer = Consumer("cart", settings.kafka_bootstrap, handlers(carts), codec, producer)

    app.serve(add_CartServiceServicer_to_server, CartServicer(carts))
    app.background("outbox relay", outbox.run)
    app.background("consumer", consumer.run)


if __name__ == "__main__":
    run("cart", Settings, compose)
