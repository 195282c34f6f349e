"""The composition root of the inventory service."""

from stoa.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from stoa.inventory.v1.inventory_pb2_grpc import add_InventoryServiceServicer_to_server
from stoa_chassis.app import App, run
from stoa_inventory import repository
from stoa_inventory.api import InventoryServicer
from stoa_inventory.events import handlers
from stoa_inventory.peers import Catalog
from stoa_inventory.service import Inventory
from stoa_inventory.settings import Settings


async def compose(app: App[Settings]) -> None:
    """Wire the service."""
    store = await app.postgres(repository.open_tx)
    catalog = Catalog(app.client(CatalogServiceStub, "catalog"))
    inventory = Inventory(store.uow, repository.StockReader(store.database), catalog, app.clock)

    app.serve(add_InventoryServiceServicer_to_server, InventoryServicer(inventory))
    await app.consume(handlers(inventory))
    app.every("availability", app.settings.announce_seconds, inventory.announce)


if __name__ == "__main__":
    run("inventory", Settings, compose)
