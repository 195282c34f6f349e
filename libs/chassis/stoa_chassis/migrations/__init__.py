"""Migrations: SQL files in order, each applied once, in a transaction, under a lock.

The files next to this module are the chassis' own (outbox and inbox); a service's run after them and are
numbered for themselves.
"""

import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Self

import asyncpg

from stoa_chassis.telemetry import get_logger

log = get_logger(__name__)

_LOCK = 0x53746F61  # any number, as long as all instances use the same
_NAME = re.compile(r"\d{4}_\w+\.sql")


class MigrationError(Exception):
    """The migrations of this version don't fit those that were applied; a person has to look."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One SQL file."""

    name: str
    sql: str
    checksum: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file; its name must be like 0001_what_it_does.sql."""
        if not _NAME.fullmatch(path.name):
            raise MigrationError(f"{path.name} is not named like 0001_what_it_does.sql")
        content = path.read_bytes()
        return cls(path.name, content.decode(), hashlib.sha256(content).hexdigest())


def service_migrations(service: str) -> Path:
    """Return the folder of a service's own migrations, which its package brings along."""
    return Path(str(files(f"stoa_{service}") / "migrations"))


async def migrate(connection: asyncpg.Connection, folder: Path) -> None:
    """Bring the schema up to date: the chassis' own migrations first, then those of `folder`.

    Several instances may do this at once: one works, the others wait and find it done. An older version of a
    service may start on the schema of a newer one, as it happens when a deployment is rolled back.

    Raises MigrationError if an applied migration was changed, removed, or is to be preceded by a new one.
    """
    own, service = _read(Path(__file__).parent), _read(folder)
    await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
    try:
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations ("
            " component text NOT NULL, name text NOT NULL, checksum text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (component, name))"
        )
        await _apply(connection, "chassis", own)
        await _apply(connection, "service", service)
    finally:
        if not connection.is_closed():
            await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)


def _read(folder: Path) -> list[Migration]:
    if not folder.is_dir():
        raise MigrationError(f"there is no folder of migrations at {folder}")
    return [Migration.read(path) for path in sorted(folder.glob("*.sql"))]


async def _apply(connection: asyncpg.Connection, component: str, migrations: list[Migration]) -> None:
    rows = await connection.fetch(
        "SELECT name, checksum FROM schema_migrations WHERE component = $1 ORDER BY name", component
    )
    applied: dict[str, str] = {row["name"]: row["checksum"] for row in rows}
    _check(applied, migrations)
    for migration in migrations:
        if migration.name in applied:
            continue
        async with connection.transaction():
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO schema_migrations (component, name, checksum) VALUES ($1, $2, $3)",
                component,
                migration.name,
                migration.checksum,
            )
        log.info("applied a migration", component=component, migration=migration.name)


def _check(applied: dict[str, str], migrations: list[Migration]) -> None:
    newest_known = migrations[-1].name if migrations else ""
    newest_applied = max(applied, default="")
    names = {migration.name for migration in migrations}
    for name in applied:
        if name not in names and name < newest_known:
            raise MigrationError(f"{name} was applied and is gone")
    for migration in migrations:
        if migration.name not in applied:
            if migration.name < newest_applied:
                raise MigrationError(
                    f"{migration.name} is new but before {newest_applied}, which was applied"
                )
        elif migration.checksum != applied[migration.name]:
            raise MigrationError(f"{migration.name} was changed after it was applied")
