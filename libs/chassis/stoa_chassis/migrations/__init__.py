"""Migrations: SQL files in order, each applied once, under a lock.

The files next to this module are the chassis' own (outbox and inbox); a service's run after them and are
numbered for themselves.

While a version is rolled out the one before it runs beside it, and may be brought back. So a migration adds
and leaves alone what there was (expand), or takes away what no version uses any more that may still run
(contract; https://martinfowler.com/bliki/ParallelChange.html). One that takes away says so in its first line,
and names the newest migration of the first version that did without:

    -- contract: unused since 0005_gift_notes.sql

A version is known here by the migrations that it brings: one without the migration that is named does not
start any more. One that has no other reason for a migration brings an empty one, a comment alone.

An index of a big table is built beside its writers by a file of that one statement, `CREATE INDEX
CONCURRENTLY`, which runs outside of a transaction.
"""

import asyncio
import hashlib
import random
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Self

import asyncpg

from stoa_chassis.telemetry import get_logger

log = get_logger(__name__)

_LOCK = 0x53746F61  # any number, as long as all instances use the same
_NAME = re.compile(r"\d{4}_\w+\.sql")
_CONTRACT = re.compile(r"-- contract: unused since (?P<migration>\d{4}_\w+\.sql)\b")
_COMMENT = re.compile(r"--.*")
_CONCURRENT = re.compile(
    r"(?P<verb>CREATE|DROP)\s+(UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+(IF\s+(NOT\s+)?EXISTS\s+)?(?P<index>\w+)[^;]*;?",
    re.IGNORECASE,
)
# A migration that waits for a table holds up whoever comes after it for the same table. It is longer than the
# second (deadlock_timeout) after which the server takes a vacuum out of its way.
_LOCK_WAIT_SECONDS = 2
_PAUSES = (1.0, 10.0)  # seconds in which others get their turn: at first, and at most
_GIVE_UP_SECONDS = 600.0
_POLL_SECONDS = 0.2


class MigrationError(Exception):
    """The schema and this version's migrations don't fit, or can't be made to; a person has to look."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One SQL file."""

    name: str
    sql: str
    checksum: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file. Raises MigrationError if it is not as migrations are."""
        if not _NAME.fullmatch(path.name):
            raise MigrationError(f"{path.name} is not named like 0001_what_it_does.sql")
        content = path.read_bytes()
        migration = cls(path.name, content.decode(), hashlib.sha256(content).hexdigest())
        if "CONCURRENTLY" in migration.statements.upper() and migration.concurrent_index is None:
            raise MigrationError(
                f"{path.name}: an index that is built or dropped CONCURRENTLY needs a file of its own"
            )
        return migration

    @property
    def statements(self) -> str:
        """The SQL without its comments."""
        return _COMMENT.sub("", self.sql).strip()

    @property
    def unused_since(self) -> str:
        """Of a contract: the migration since which nobody uses what it takes away; else ""."""
        match = _CONTRACT.match(self.sql)
        return match["migration"] if match else ""

    @property
    def concurrent_index(self) -> tuple[str, bool] | None:
        """The index that this builds (True) or drops (False) outside of a transaction, if it does."""
        match = _CONCURRENT.fullmatch(self.statements)
        return (match["index"], match["verb"].upper() == "CREATE") if match else None


@dataclass(frozen=True, slots=True)
class _Applied:
    """What the database says of a migration that was applied to it."""

    checksum: str
    unused_since: str


def service_migrations(service: str) -> Path:
    """Return the folder of a service's own migrations, which its package brings along."""
    return Path(str(files(f"stoa_{service}") / "migrations"))


async def migrate(connection: asyncpg.Connection, folder: Path) -> Sequence[str]:
    """Bring the schema up to date: the chassis' own migrations first, then those of `folder`.

    Return the names of those that were applied. Several instances may do this at once: one works, the others
    wait and find it done. An older version of a service may start on the schema of a newer one, as it happens
    when a deployment is rolled back.

    A migration that does not get its locks soon lets those pass who wait behind it, and tries again.

    Raises MigrationError if an applied migration was changed, removed, or is to be preceded by a new one; if
    one took away what this version uses; and if locks are not to be had for ten minutes.
    """
    components = _components(folder)
    done: list[str] = []
    began, pause = time.monotonic(), _PAUSES[0]
    while True:
        try:
            async with _alone(connection):
                await _keep_books(connection)
                for component, migrations in components.items():
                    await _apply(connection, component, migrations, done)
            return done
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
            if time.monotonic() - began > _GIVE_UP_SECONDS:
                raise MigrationError(
                    "a migration gets no lock because somebody holds it all the time (see pg_stat_activity)"
                ) from error
            log.warning("a migration lets others pass, and tries again", cause=str(error))
        await asyncio.sleep(pause * random.uniform(0.5, 1))
        pause = min(pause * 2, _PAUSES[1])


async def migrated(connection: asyncpg.Connection, folder: Path, within: float) -> None:
    """Wait until somebody else has brought the schema up to date, for at most `within` seconds.

    Raises MigrationError if nobody has by then, and as `migrate`.
    """
    give_up = time.monotonic() + within
    while missing := await _missing(connection, folder):
        if time.monotonic() > give_up:
            raise MigrationError(
                f"the database is older than this version: it lacks {', '.join(missing)}. "
                "`stoa migrate` brings it up to date; a start with STOA_MIGRATE=at_start does, too"
            )
        log.info("waiting for the schema to be migrated", missing=missing)
        await asyncio.sleep(min(1.0, within / 4))


async def _missing(connection: asyncpg.Connection, folder: Path) -> Sequence[str]:
    missing: list[str] = []
    there = await connection.fetchval("SELECT to_regclass('schema_migrations') IS NOT NULL")
    for component, migrations in _components(folder).items():
        applied = await _applied(connection, component) if there else {}
        _check(applied, migrations)
        missing += [migration.name for migration in migrations if migration.name not in applied]
    return missing


def _components(folder: Path) -> Mapping[str, Sequence[Migration]]:
    return {"chassis": _read(Path(__file__).parent), "service": _read(folder)}


def _read(folder: Path) -> Sequence[Migration]:
    if not folder.is_dir():
        raise MigrationError(f"there is no folder of migrations at {folder}")
    return [Migration.read(path) for path in sorted(folder.glob("*.sql"))]


@asynccontextmanager
async def _alone(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Hold the lock of whoever migrates this database.

    It is asked for again and again: who waits for it within a statement keeps the state of the database that
    he began with, and an index that is built concurrently waits until nobody does.
    """
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):  # noqa: ASYNC110
        await asyncio.sleep(_POLL_SECONDS * random.uniform(0.5, 1))
    try:
        yield
    finally:
        if not connection.is_closed():
            await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)


async def _keep_books(connection: asyncpg.Connection) -> None:
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations ("
        " component text NOT NULL, name text NOT NULL, checksum text NOT NULL,"
        " applied_at timestamptz NOT NULL DEFAULT now(), unused_since text NOT NULL DEFAULT '',"
        " PRIMARY KEY (component, name))"
    )
    # Older versions have made it without; they write the other columns alone. Looked up first, since to alter
    # a table takes a lock even if nothing is to be done.
    if not await connection.fetchval(
        "SELECT EXISTS (SELECT FROM pg_attribute WHERE attname = 'unused_since'"
        " AND attrelid = 'schema_migrations'::regclass)"
    ):
        await connection.execute(
            "ALTER TABLE schema_migrations ADD COLUMN unused_since text NOT NULL DEFAULT ''"
        )


async def _applied(connection: asyncpg.Connection, component: str) -> Mapping[str, _Applied]:
    # As JSON, for the column may not be there: whoever does not migrate does not add it.
    rows = await connection.fetch(
        "SELECT name, checksum, coalesce(to_jsonb(m) ->> 'unused_since', '') AS unused_since"
        " FROM schema_migrations m WHERE component = $1 ORDER BY name",
        component,
    )
    return {row["name"]: _Applied(row["checksum"], row["unused_since"]) for row in rows}


async def _apply(
    connection: asyncpg.Connection, component: str, migrations: Sequence[Migration], done: list[str]
) -> None:
    applied = await _applied(connection, component)
    _check(applied, migrations)
    for migration in migrations:
        if migration.name in applied:
            continue
        if migration.concurrent_index is not None:
            await _index(connection, migration.sql, *migration.concurrent_index)
            await _note(connection, component, migration)
        else:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_WAIT_SECONDS}s'")
                if migration.statements:
                    await connection.execute(migration.sql)
                await _note(connection, component, migration)
        done.append(migration.name)
        log.info("applied a migration", component=component, migration=migration.name)


async def _index(connection: asyncpg.Connection, statement: str, index: str, is_wanted: bool) -> None:
    """Build or drop an index outside of a transaction, whatever an interrupted try has left of it.

    What waits here, waits without holding up anybody: for that no time is set.
    """
    find = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)"
    is_valid: bool | None = await connection.fetchval(find, index)
    if is_wanted and is_valid is False:
        await connection.execute(f"DROP INDEX CONCURRENTLY {index}")
        is_valid = None
    if is_wanted == (is_valid is None):
        await connection.execute(statement)


async def _note(connection: asyncpg.Connection, component: str, migration: Migration) -> None:
    await connection.execute(
        "INSERT INTO schema_migrations (component, name, checksum, unused_since) VALUES ($1, $2, $3, $4)",
        component,
        migration.name,
        migration.checksum,
        migration.unused_since,
    )


def _check(applied: Mapping[str, _Applied], migrations: Sequence[Migration]) -> None:
    newest_known = migrations[-1].name if migrations else ""
    newest_applied = max(applied, default="")
    names = {migration.name for migration in migrations}
    for name, noted in applied.items():
        if name in names:
            continue
        if name < newest_known:
            raise MigrationError(f"{name} was applied and is gone")
        if noted.unused_since and noted.unused_since not in names:
            raise MigrationError(
                f"{name} took away what this version uses: only versions that bring {noted.unused_since} "
                "run on this database. Start a newer one"
            )
    for migration in migrations:
        if migration.name not in applied:
            if migration.name < newest_applied:
                raise MigrationError(
                    f"{migration.name} is new but before {newest_applied}, which was applied"
                )
        elif migration.checksum != applied[migration.name].checksum:
            raise MigrationError(f"{migration.name} was changed after it was applied")
