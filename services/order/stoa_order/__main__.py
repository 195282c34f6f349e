"""The composition root of the order service."""

from stoa.cart.v1.cart_pb2_grpc import CartServiceStub
from stoa.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from stoa.order.v1.order_pb2_grpc import add_OrderServiceServicer_to_server
from stoa.payment.v1.payment_pb2_grpc import PaymentServiceStub
from stoa.user.v1.user_pb2_grpc import UserServiceStub
from stoa_chassis.app import App, run
from stoa_chassis.avro import EventCodec
from stoa_chassis.clock import SystemClock
from stoa_chassis.kafka import Consumer, Producer
from stoa_chassis.migrations import service_migrations
from stoa_chassis.outbox import OutboxRelay
from stoa_chassis.postgres import Database
from stoa_events import OrderCancelled, OrderConfirmed, OrderPlaced
from stoa_order.api import OrderServicer
from stoa_order.engine import SagaEngine
from stoa_order.events import handlers
from stoa_order.peers import AddressBook, Carts, Catalog, Payments
from stoa_order.repository import OrderReader, unit_of_work
from stoa_order.service import Orders
from stoa_order.settings import Settings


async def compose(app: App[Settings]) -> None:
    """Wire the service."""
    settings, clock = app.settings, SystemClock()
    database = await app.enter(
        Database.connect(settings.database_url, service_migrations("order"), settings.database_pool_size)
    )
    codec = EventCodec(settings.schema_registry_url)
    await codec.load(OrderPlaced, OrderConfirmed, OrderCancelled)
    producer = await app.enter(Producer(settings.kafka_bootstrap))

    uow = unit_of_work(database, codec, settings.patience, settings.saga_retry)
    payments = Payments(app.client(PaymentServiceStub, "payment"))
    engine = SagaEngine(uow, payments, clock)
    orders = Orders(
        uow,
        OrderReader(database),
        engine,
        clock,
        settings.tariff,
        Carts(app.client(CartServiceStub, "cart")),
        Catalog(app.client(CatalogServiceStub, "catalog")),
        AddressBook(app.client(UserServiceStub, "user")),
    )

    app.serve(add_OrderServiceServicer_to_server, OrderServicer(orders))
    app.background("outbox relay", OutboxRelay(database, producer).run)
    app.background(
        "consumer", Consumer("order", settings.kafka_bootstrap, handlers(orders), codec, producer).run
    )
    app.background("saga", engine.run)


if __name__ == "__main__":
    run("order", Settings, compose)
