"""Rebuilds the read model from the documents: `python -m stoa_catalog.replay`, while the shop runs.

What it has of each product is compared with the document and made anew if it differs; what has no document
is dropped. All processes answer from it meanwhile, and forget at once what was wrong. The last line of the
output is a JSON object: {"replayed": n, "differed": [ids]}; of more than a thousand the first are named.
"""

import asyncio
import sys

import orjson

from stoa_catalog.api import FORM, present
from stoa_catalog.hot_set import HotSet
from stoa_catalog.projector import Projector
from stoa_catalog.repository import ProductReader, products_of
from stoa_catalog.settings import Settings
from stoa_catalog.shared_read_model import SharedReadModel
from stoa_chassis import mongo
from stoa_chassis.postgres import Database


async def _main() -> None:
    settings = Settings.load("catalog")
    async with (
        mongo.connect(settings.mongo_url) as client,
        Database.connect(settings.database_url) as database,
    ):
        documents = products_of(client[settings.mongo_database or "catalog"])
        hot = HotSet[bytes](settings.hot_set_mb, len)  # of this process, whom nobody asks anything
        projector = Projector(ProductReader(documents), SharedReadModel(database), hot, present, FORM)
        rebuilt = await projector.rebuild()
    report = {"replayed": rebuilt.replayed, "differed": sorted(map(str, rebuilt.differed))}
    sys.stdout.write(orjson.dumps(report).decode() + "\n")


if __name__ == "__main__":
    asyncio.run(_main())
