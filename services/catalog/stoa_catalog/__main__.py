"""The composition root of the catalog service."""

from stoa.catalog.v1.catalog_pb2_grpc import add_CatalogServiceServicer_to_server
from stoa_catalog.api import CatalogServicer, present
from stoa_catalog.events import handlers
from stoa_catalog.projector import Projector
from stoa_catalog.repository import ProductReader, Products, open_products
from stoa_catalog.service import Assortment, Browsing
from stoa_catalog.settings import Settings
from stoa_catalog.views import Views
from stoa_chassis.app import App, run
from stoa_chassis.avro import EventCodec
from stoa_chassis.clock import SystemClock
from stoa_chassis.kafka import Broadcast, Producer
from stoa_chassis.mongo import MongoOutbox, connect
from stoa_events import ProductCreated, ProductDeleted, ProductUpdated, ProductViewed


async def compose(app: App[Settings]) -> None:
    """Wire the service."""
    settings, clock = app.settings, SystemClock()
    mongo = await app.enter(connect(settings.mongo_url, settings.connect_timeout_seconds))
    collection = await open_products(mongo[settings.mongo_database or app.name])
    codec = EventCodec(settings.schema_registry_url)
    await codec.load(ProductCreated, ProductUpdated, ProductDeleted, ProductViewed)
    producer = await app.enter(Producer(settings.kafka_bootstrap))

    outbox = MongoOutbox(collection, codec, producer)
    views = Views(codec, producer, clock)
    projector = Projector(ProductReader(collection), present, settings.reconcile_seconds)
    await projector.load()
    news = Broadcast(settings.kafka_bootstrap, handlers(projector), codec, begin=projector.reconcile)
    browsing = Browsing(projector, views)
    assortment = Assortment(Products(collection, outbox), projector, clock)

    servicer = CatalogServicer(browsing, assortment, projector, settings.workers)
    app.serve(add_CatalogServiceServicer_to_server, servicer)
    app.background("outbox relay", outbox.run)
    app.background("news", news.run)
    app.background("reconciliation", projector.run)
    app.background("views", views.run)


if __name__ == "__main__":
    run("catalog", Settings, compose)
