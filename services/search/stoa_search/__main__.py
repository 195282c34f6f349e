"""The composition root of the search service."""

from stoa.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from stoa.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from stoa.search.v1.search_pb2_grpc import add_SearchServiceServicer_to_server
from stoa_chassis.app import App, run
from stoa_search.api import SearchServicer
from stoa_search.events import handlers
from stoa_search.peers import Catalog, Inventory
from stoa_search.repository import Indices, ProductIndex
from stoa_search.service import Feed, Indexing, Reindexing, Search
from stoa_search.settings import Settings

_AT_ONCE = 100  # events of a partition: what they say has versions of its own


async def compose(app: App[Settings]) -> None:
    """Wire the service. Without the search engine it runs, and says that it can't search."""
    settings = app.settings
    client = await app.opensearch(required=False)
    catalog = Catalog(app.client(CatalogServiceStub, "catalog"))
    inventory = Inventory(app.client(InventoryServiceStub, "inventory"))
    indices = Indices(client, settings)

    app.serve(add_SearchServiceServicer_to_server, SearchServicer(Search(ProductIndex(client, settings))))
    reindexing = Reindexing(indices, catalog, inventory)
    app.every("index", settings.look_seconds, reindexing.ensure)
    await app.consume(handlers(Indexing(Feed(indices.fed))), at_once=_AT_ONCE)


if __name__ == "__main__":
    run("search", Settings, compose)
