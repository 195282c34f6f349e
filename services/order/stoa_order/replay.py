"""Rebuilds the projections from the event store: `python -m stoa_order.replay`, while the shop runs.

Each order is rebuilt under a lock of its own, compared with what was there, and written anew if it differed.
The last line of the output is a JSON object: {"replayed": n, "differed": [ids]}.
"""

import asyncio
import sys
from dataclasses import dataclass, field
from uuid import UUID

import orjson

from stoa_chassis.postgres import Database
from stoa_order.repository import EventStore
from stoa_order.settings import Settings

_BATCH = 200


@dataclass(slots=True)
class Report:
    """How many orders were replayed, and which projections differed from their events."""

    replayed: int = 0
    differed: list[UUID] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The report as a line of JSON."""
        return orjson.dumps(self, default=str).decode()  # asyncpg's ids are a subclass, which orjson refuses


async def replay(database: Database) -> Report:
    """Rebuild all projections. An order that is placed meanwhile projects itself."""
    report = Report()
    last = UUID(int=0)
    async with database.dedicated() as connection:
        store = EventStore(connection)
        while ids := await store.ids_after(last, _BATCH):
            for order_id in ids:
                if await store.rebuild(order_id):
                    report.differed.append(order_id)
                report.replayed += 1
            last = ids[-1]
    return report


async def _main() -> None:
    settings = Settings.load("order")
    async with Database.connect(settings.database_url) as database:
        report = await replay(database)
    sys.stdout.write(report.text + "\n")


if __name__ == "__main__":
    asyncio.run(_main())
