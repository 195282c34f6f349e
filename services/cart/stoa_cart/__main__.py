"""The composition root of the cart service."""

from stoa.cart.v1.cart_pb2_grpc import add_CartServiceServicer_to_server
from stoa.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from stoa.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from stoa_cart.api import CartServicer
from stoa_cart.events import handlers
from stoa_cart.model import CartBusy
from stoa_cart.peers import Catalog, Inventory
from stoa_cart.repository import CartReader, PriceBook, open_tx
from stoa_cart.service import Carts
from stoa_cart.settings import Settings
from stoa_chassis.app import App, run


async def compose(app: App[Settings]) -> None:
    """Wire the service."""
    currency = app.settings.currency
    store = await app.redis(open_tx(currency), busy=CartBusy)
    carts = Carts(
        store.uow,
        CartReader(store.redis, currency),
        PriceBook(store.redis),
        Catalog(app.client(CatalogServiceStub, "catalog")),
        Inventory(app.client(InventoryServiceStub, "inventory")),
        app.clock,
        app.settings.claim_for,
    )
    app.serve(add_CartServiceServicer_to_server, CartServicer(carts))
    await app.consume(handlers(carts))


if __name__ == "__main__":
    run("cart", Settings, compose)
