"""Makes the index anew from the catalogue, while searches and events go on: `python -m stoa_search.replay`.

`stoa reindex` runs it, as `stoa replay search` does. It is for a new version of the index's definition, for
new synonyms, and for an index that went wrong. It takes some products at a time, so that a large shop needs
time and no memory.
"""

import asyncio
import os
import sys
from pathlib import Path

import orjson

from stoa.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from stoa.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from stoa_chassis.clients import ClientChannel
from stoa_chassis.opensearch import connect
from stoa_chassis.tls import CertificateFolder
from stoa_search.peers import Catalog, Inventory
from stoa_search.repository import Indices
from stoa_search.service import Rebuilt, Reindexing
from stoa_search.settings import Settings


async def rebuild(settings: Settings, catalog_target: str, inventory_target: str) -> Rebuilt:
    """Make the index anew. Raises EngineUnavailable, RemoteError, IndexMissing."""
    certificates = CertificateFolder(Path(settings.tls_dir)) if settings.tls_dir else None
    channels = [
        ClientChannel("catalog", catalog_target, certificates),
        ClientChannel("inventory", inventory_target, certificates),
    ]
    try:
        async with connect(settings.opensearch_url, settings.connect_timeout_seconds) as client:
            catalog, inventory = channels
            return await Reindexing(
                Indices(client, settings),
                Catalog(catalog.stub(CatalogServiceStub)),
                Inventory(inventory.stub(InventoryServiceStub)),
            ).rebuild()
    finally:
        for channel in channels:
            await channel.close()


async def _main() -> None:
    settings = Settings.load("search")
    targets = (os.environ[f"STOA_{name}_TARGET"] for name in ("CATALOG", "INVENTORY"))
    rebuilt = await rebuild(settings, *targets)
    sys.stdout.write(orjson.dumps({"replayed": rebuilt.products, "differed": []}).decode() + "\n")


if __name__ == "__main__":
    asyncio.run(_main())
