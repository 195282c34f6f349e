"""`python -m stoa_chassis.migrations SERVICE`: bring the schema of a service's database up to date, and end.

With the service's own settings, as its start does; for a deployment that migrates before it starts anything.
Ends with 1, and the cause in the log, if that can't be done.
"""

import asyncio
import sys

from stoa_chassis import telemetry
from stoa_chassis.errors import Unavailable
from stoa_chassis.migrations import MigrationError, service_migrations
from stoa_chassis.postgres import bring_up_to_date
from stoa_chassis.settings import PostgresSettings

_log = telemetry.get_logger(__name__)


def _main(service: str) -> int:
    settings = PostgresSettings.load(service)
    telemetry.configure_logging(service, settings.log_level)
    folder, timeout = service_migrations(service), settings.connect_timeout_seconds
    try:
        if not settings.database_url:
            raise MigrationError("STOA_DATABASE_URL is not set, nor a file of it in STOA_SECRETS_DIR")
        applied = asyncio.run(bring_up_to_date(settings.database_url, folder, timeout))
    except (MigrationError, Unavailable) as error:
        _log.error("migration failed", reason=str(error))
        return 1
    _log.info("the schema is up to date", applied=applied)
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
