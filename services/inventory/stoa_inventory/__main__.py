"""The composition root of the inventory service."""

from stoa.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from stoa.inventory.v1.inventory_pb2_grpc import add_InventoryServiceServicer_to_server
from stoa_chassis.app import App, run
from stoa_chassis.avro import EventCodec
from stoa_chassis.clock import SystemClock
from stoa_chassis.kafka import Consumer, Producer
from stoa_chassis.migrations import service_migrations
from stoa_chassis.outbox import OutboxRelay
from stoa_chassis.postgres import Database
from stoa_events import InventoryLowStock, InventoryOutOfStock, InventoryReserved
from stoa_inventory.api import InventoryServicer
from stoa_inventory.events import handlers
from stoa_inventory.peers import Catalog
from stoa_inventory.repository import StockReader, unit_of_work
from stoa_inventory.service import Inventory
from stoa_inventory.settings import Settings


async def compose(app: App[Settings]) -> None:
    """Wire the service."""
    settings, clock = app.settings, SystemClock()
    database = await app.enter(
        Database.connect(settings.database_url, service_migrations("inventory"), settings.database_pool_size)
    )
    codec = EventCodec(settings.schema_registry_url)
    await codec.load(InventoryReserved, InventoryOutOfStock, InventoryLowStock)
    producer = await app.enter(Producer(settings.kafka_bootstrap))

    inventory = Inventory(
        unit_of_work(database, codec, clock),
        StockReader(database),
        Catalog(app.client(CatalogServiceStub, "catalog", settings.catalog_target)),
        clock,
    )

    app.serve(add_InventoryServiceServicer_to_server, InventoryServicer(inventory))
    app.background("outbox relay", OutboxRelay(database, producer).run)
    consumer = Consumer("inventory", settings.kafka_bootstrap, handlers(inventory), codec, producer)
    app.background("consumer", consumer.run)


if __name__ == "__main__":
    run("inventory", Settings, compose)
