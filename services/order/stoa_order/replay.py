"""Rebuilds the projections from the event store: `python -m stoa_order.replay`, while the shop runs.

Each order is rebuilt under a lock of its own, compared with what was there, and written anew if it differed.
The last line of the output is a JSON object: {"replayed": n, "differed": [ids]}.
"""

import asyncio
import sys
from dataclasses import dataclass, field
from uuid import UUID

import orjson

from stoa_chassis.avro import EventCodec
from stoa_chassis.postgres import Database
from stoa_chassis.uow import UnitOfWork
from stoa_order.repository import OrderReader, Tx, unit_of_work
from stoa_order.settings import Settings

_BATCH = 200


@dataclass(slots=True)
class Report:
    """How many orders were replayed, and which projections differed from their events."""

    replayed: int = 0
    differed: list[UUID] = field(default_factory=list)


async def replay(uow: UnitOfWork[Tx], reader: OrderReader) -> Report:
    """Rebuild all projections. An order that is placed meanwhile projects itself."""
    report = Report()
    last = UUID(int=0)
    while ids := await reader.ids_after(last, _BATCH):
        for order_id in ids:
            async with uow.begin() as tx:
                # The lock comes before the facts are read, so that none is added between the two.
                before = await tx.orders.projected(order_id)
                order = await tx.orders.get(order_id)
                if before != order:
                    await tx.orders.project(order)
                    report.differed.append(order_id)
            report.replayed += 1
        last = ids[-1]
    return report


async def _main() -> None:
    settings = Settings()
    async with Database.connect(settings.database_url) as database:
        codec = EventCodec(settings.schema_registry_url)  # never used: a replay publishes nothing
        uow = unit_of_work(database, codec, settings.patience, settings.saga_retry)
        report = await replay(uow, OrderReader(database))
    sys.stdout.write(orjson.dumps(report).decode() + "\n")


if __name__ == "__main__":
    asyncio.run(_main())
