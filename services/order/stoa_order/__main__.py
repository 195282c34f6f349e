"""The composition root of the order service."""

from stoa.cart.v1.cart_pb2_grpc import CartServiceStub
from stoa.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from stoa.order.v1.order_pb2_grpc import add_OrderServiceServicer_to_server
from stoa.payment.v1.payment_pb2_grpc import PaymentServiceStub
from stoa.shipping.v1.shipping_pb2_grpc import ShippingServiceStub
from stoa.user.v1.user_pb2_grpc import UserServiceStub
from stoa_chassis.app import App, run
from stoa_order import repository
from stoa_order.api import OrderServicer
from stoa_order.engine import SagaEngine
from stoa_order.events import handlers
from stoa_order.peers import AddressBook, Carts, Catalog, Payments, Shipping
from stoa_order.ports import Peers
from stoa_order.service import Orders
from stoa_order.settings import Settings


async def compose(app: App[Settings]) -> None:
    """Wire the service."""
    settings, clock = app.settings, app.clock
    timeouts, store = settings.timeouts, await app.postgres(repository.open_tx)
    sagas = repository.DueSagas(store.database, timeouts.retry)
    payments = Payments(app.client(PaymentServiceStub, "payment"))
    shipping = Shipping(app.client(ShippingServiceStub, "shipping"))
    engine = SagaEngine(store.uow, sagas, Peers(payments, shipping), clock, timeouts)
    orders = Orders(
        store.uow,
        repository.OrderViews(store.database, await app.replica(store.database)),
        engine,
        clock,
        settings.tariff,
        timeouts,
        settings.links,
        settings.return_window,
        Carts(app.client(CartServiceStub, "cart")),
        Catalog(app.client(CatalogServiceStub, "catalog")),
        AddressBook(app.client(UserServiceStub, "user")),
        shipping,
    )
    app.serve(add_OrderServiceServicer_to_server, OrderServicer(orders))
    await app.consume(handlers(orders))
    app.background("sagas", engine.due.run)


if __name__ == "__main__":
    run("order", Settings, compose)
