"""A process that relays an outbox until it is killed."""

import asyncio
import os

from stoa_chassis.kafka import Producer
from stoa_chassis.postgres import Database
from stoa_chassis.postgres_relay import OutboxRelay


async def main() -> None:
    async with (
        Database.connect(os.environ["DATABASE_URL"]) as database,
        Producer(os.environ["KAFKA"]) as producer,
    ):
        await OutboxRelay(database, producer).run()


asyncio.run(main())
