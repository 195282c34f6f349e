"""The composition root of the catalog service."""

from stoa.catalog.v1.catalog_pb2_grpc import add_CatalogServiceServicer_to_server
from stoa_catalog.api import CatalogServicer, present
from stoa_catalog.events import followers, handlers
from stoa_catalog.projector import Projector
from stoa_catalog.repository import ProductReader, open_products, open_tx
from stoa_catalog.service import Assortment, Browsing
from stoa_catalog.settings import Settings
from stoa_catalog.views import Views
from stoa_chassis.app import App, run


async def compose(app: App[Settings]) -> None:
    """Wire the service. Once the read model is loaded it answers readers without the store."""
    settings = app.settings
    store = await app.mongo(open_products, open_tx, required=False)
    views = Views(await app.events(), await app.producer(), app.clock)
    projector = Projector(ProductReader(store.collection), present)
    await projector.load()

    browsing = Browsing(projector, views)
    assortment = Assortment(store.uow, projector, app.clock, settings.currency)
    servicer = CatalogServicer(browsing, assortment, projector, settings.workers)
    app.serve(add_CatalogServiceServicer_to_server, servicer)
    await app.consume(handlers(assortment))
    await app.follow(followers(projector), begin=projector.reconcile)
    app.every("reconciliation", settings.reconcile_seconds, projector.reconcile)
    app.background("views", views.run)


if __name__ == "__main__":
    run("catalog", Settings, compose)
