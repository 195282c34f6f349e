"""`stoa migrate SERVICE`: bring the database of one service up to date, and end.

The step before processes of a new version start that do not migrate by themselves (STOA_MIGRATE=never): in a
cluster a Job before the upgrade. It changes the database, so it has the settings of the service itself
(STOA_DATABASE_URL, or the file of it in STOA_SECRETS_DIR) and not those of operators, who may only read. On
this machine they are the local stack's, if nothing else is named.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from rich.console import Console

from stoa_chassis.errors import Unavailable
from stoa_chassis.migrations import MigrationError, service_migrations
from stoa_chassis.postgres import bring_up_to_date
from stoa_chassis.settings import PostgresSettings
from stoa_contracts.declarations import Store
from stoa_ops import local
from stoa_services import SERVICES


def command(console: Console, service: str) -> int:
    """Migrate; 1 if that is not possible, 2 if there is nothing to migrate or its address is missing."""
    with_tables = [name for name, declared in SERVICES.items() if Store.POSTGRES in declared.stores]
    if service not in with_tables:
        console.print(f"{service} has no tables to migrate. These have: {', '.join(with_tables)}")
        return 2
    settings = _settings(service)
    if not settings.database_url:
        console.print(
            f"Where is the database of {service}? STOA_DATABASE_URL says it, or the file stoa_database_url "
            "in the folder STOA_SECRETS_DIR.",
            soft_wrap=True,
        )
        return 2
    try:
        done = asyncio.run(_migrate(settings, service))
    except (MigrationError, Unavailable) as error:
        console.print(f"[red]{service} is not migrated:[/] {error}", soft_wrap=True)
        return 1
    console.print(f"{service}: {', '.join(done)} applied" if done else f"{service}: up to date")
    return 0


async def _migrate(settings: PostgresSettings, service: str) -> Sequence[str]:
    return await bring_up_to_date(
        settings.database_url, service_migrations(service), settings.connect_timeout_seconds
    )


def _settings(service: str) -> PostgresSettings:
    if not {"STOA_DATABASE_URL", "STOA_SECRETS_DIR"} & os.environ.keys() and (
        folder := local.secrets_folder(service)
    ):
        os.environ["STOA_SECRETS_DIR"] = str(folder)
    return PostgresSettings.load(service)
