"""`python -m stoa_chassis.migrations SERVICE`: bring the schema of a service's database up to date, and end.

With the service's own settings, as its start does; for a deployment that migrates before it starts anything.
"""

import asyncio
import sys

from stoa_chassis import telemetry
from stoa_chassis.migrations import service_migrations
from stoa_chassis.postgres import Database
from stoa_chassis.settings import PostgresSettings


async def _main(service: str) -> None:
    settings = PostgresSettings.load(service)
    telemetry.configure_logging(service, settings.log_level)
    async with Database.connect(
        settings.database_url,
        service_migrations(service),
        pool_size=1,
        connect_timeout=settings.connect_timeout_seconds,
    ):
        pass


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
