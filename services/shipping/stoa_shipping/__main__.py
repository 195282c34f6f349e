"""The composition root of the shipping service."""

from stoa.shipping.v1.shipping_pb2_grpc import add_ShippingServiceServicer_to_server
from stoa_chassis.app import App, run
from stoa_shipping import repository
from stoa_shipping.api import ShippingServicer
from stoa_shipping.events import handlers
from stoa_shipping.peers import Dhl, FedEx, Ups
from stoa_shipping.service import Quotes, Shipments
from stoa_shipping.settings import Settings


async def compose(app: App[Settings]) -> None:
    """Wire the service."""
    settings = app.settings
    store = await app.postgres(repository.open_tx)
    carriers = {
        "fedex": await app.enter(FedEx.connect(settings.fedex, settings.carrier_timeout)),
        "ups": await app.enter(Ups.connect(settings.ups, settings.carrier_timeout)),
        "dhl": await app.enter(Dhl.connect(settings.dhl, settings.carrier_timeout)),
    }
    quotes = Quotes(repository.Weights(store.database), settings.scale, settings.tariff, app.clock)
    shipments = Shipments(
        store.uow,
        repository.ShipmentReader(store.database),
        repository.Unfinished(store.database, settings.backoff, settings.retry.lease),
        carriers,
        settings.tariff,
        settings.scale,
        app.clock,
        settings.retry,
        settings.backoff,
        settings.polling,
    )

    app.serve(add_ShippingServiceServicer_to_server, ShippingServicer(quotes, shipments))
    await app.consume(handlers(shipments))
    app.background("unfinished shipments", shipments.unfinished.run)


if __name__ == "__main__":
    run("shipping", Settings, compose)
