"""The composition root of the catalog service."""

from functools import partial

from stoa.catalog.v1.catalog_pb2_grpc import add_CatalogServiceServicer_to_server
from stoa_catalog.api import FORM, CatalogServicer, present
from stoa_catalog.events import handlers
from stoa_catalog.hot_set import HotSet
from stoa_catalog.projector import Projector
from stoa_catalog.repository import ProductReader, open_products, open_tx
from stoa_catalog.service import Assortment, Browsing
from stoa_catalog.settings import Settings
from stoa_catalog.shared_read_model import SharedReadModel
from stoa_catalog.views import Views
from stoa_chassis.app import App, run


async def compose(app: App[Settings]) -> None:
    """Wire the service. It answers readers without the documents, and some of them without the read model."""
    settings = app.settings
    store = await app.mongo(open_products, open_tx, required=False)
    read_model = SharedReadModel(await app.postgres_read_model())
    reader, hot = ProductReader(store.collection), HotSet[bytes](settings.hot_set_mb, len)
    projector = Projector(reader, read_model, hot, present, FORM)
    if not await projector.prepare():
        app.background("new views", projector.upgrade)

    views = Views(await app.events(), await app.producer(), app.clock)
    browsing = Browsing(hot, read_model, reader, projector, views)
    assortment = Assortment(store.uow, projector, app.clock, settings.currency)
    app.serve(add_CatalogServiceServicer_to_server, CatalogServicer(browsing, assortment))
    await app.consume(handlers(projector, assortment))
    app.background("changes", partial(read_model.follow, hot.changed, hot.clear))
    seconds = settings.reconcile_seconds
    app.every("reconciliation", seconds, partial(projector.reconcile, seconds, settings.reconcile_products))
    app.background("views", views.run)


if __name__ == "__main__":
    run("catalog", Settings, compose)
