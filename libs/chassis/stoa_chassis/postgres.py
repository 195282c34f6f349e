"""PostgreSQL: a pool that outlives restarts of the server, and transactions.

Work that fails because the server is gone raises `Unavailable`, so that a caller knows it may try again.
"""

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self, TypeAlias, cast

import asyncpg
import orjson
from asyncpg.pool import PoolConnectionProxy

from stoa_chassis.errors import Unavailable
from stoa_chassis.migrations import migrate, migrated
from stoa_chassis.outages import register_outage
from stoa_chassis.telemetry import DATABASE_STATEMENTS, get_logger

log = get_logger(__name__)

# What asyncpg raises when the server is gone, going, starting, full, or a standby by now: the same work may
# succeed later, on another connection.
CONNECTION_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InternalClientError,
    asyncpg.InterfaceError,
)
# The transaction lost against a concurrent one, or another process has run a migration that changes what a
# statement returns; it would succeed if it ran again.
RETRIABLE_ERRORS: tuple[type[Exception], ...] = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.InvalidCachedStatementError,
)
# Of the two left out, one is raised for misuse as well and one for files that are missing: no waiting cures
# that.
register_outage(
    socket.gaierror, *(each for each in CONNECTION_ERRORS if each not in (OSError, asyncpg.InterfaceError))
)
_ACQUIRE_SECONDS = 5.0
_CONNECT_SECONDS = 10.0
_CLOSE_SECONDS = 5.0
# A process that stalls in the middle of a transaction (it is stopped, its machine is moved) neither holds
# locks for longer than this, nor commits later what it has decided before.
IDLE_IN_TRANSACTION_SECONDS = 10


class Database:
    """A service's own database.

    `statements` counts the SQL statements that were sent, without those that begin and end transactions;
    `transactions` counts the beginnings. Tests use both to hold a use case to its budget.
    """

    def __init__(self, url: str, pool_size: int = 10, *, read_only: bool = False) -> None:
        """One that is `read_only` refuses to write, and connects no sooner than somebody reads."""
        self.statements = 0
        self.transactions = 0
        self.types: dict[frozenset[int], Any] = {}  # what asyncpg was told of the types that it asked for
        self._url = url
        self._pool = asyncpg.create_pool(
            url,
            min_size=0 if read_only else 1,
            max_size=pool_size,
            timeout=_CONNECT_SECONDS,
            connection_class=_CountedConnection,
            init=self._init,
            reset=_keep_session,
            server_settings={
                "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_SECONDS}s",
                "default_transaction_read_only": "on" if read_only else "off",
            },
        )

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        url: str,
        migrations: Path | None = None,
        pool_size: int = 10,
        connect_timeout: float = 60,
        *,
        migrating: bool = True,
    ) -> AsyncIterator[Self]:
        """Open a pool of at most `pool_size` connections, after bringing the schema up to date.

        `migrations` is the folder of the service's SQL files; the chassis' own (outbox, inbox) run before
        them. None leaves the schema alone; unless `migrating`, somebody else is waited for to bring it up to
        date. Waits up to `connect_timeout` seconds for the server to come up, and as long for the schema.

        Raises Unavailable if it doesn't, MigrationError if the migrations don't fit those that were applied.
        """
        async with _first(url, connect_timeout) as first:
            if migrations is not None and migrating:
                await migrate(first, migrations)
            elif migrations is not None:
                await migrated(first, migrations, connect_timeout)
        async with cls(url, pool_size)._opened() as database:
            yield database

    @classmethod
    @asynccontextmanager
    async def open_read_only(cls, url: str, pool_size: int = 10) -> AsyncIterator[Self]:
        """Open a pool to a server that is only read and need not be up; nothing is connected at first."""
        async with cls(url, pool_size, read_only=True)._opened() as database:
            yield database

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Self]:
        await self._pool
        try:
            yield self
        finally:
            try:
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._pool.close()
            except TimeoutError:
                self._pool.terminate()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[asyncpg.Connection]:
        """Run a block in a transaction, committed when it ends and rolled back when it raises.

        Raises Unavailable when the server can't be reached or goes away, or all connections stay busy.
        Session state (SET, LISTEN, session advisory locks) is not reset when the connection goes back to the
        pool, because that costs a round trip: don't make any.
        """
        async with self.transaction_with(None) as (connection, _):
            yield connection

    @asynccontextmanager
    async def transaction_with(self, first: str | None) -> AsyncIterator[tuple[asyncpg.Connection, str]]:
        """Run a block in a transaction, as `transaction` does, that may begin with a statement.

        It is sent along with the beginning, which saves a round trip, and so has no parameters. The block
        gets its command tag as well, such as "INSERT 0 1".
        """
        async with self._connection() as connection:
            try:
                yield connection, await connection.execute(f"BEGIN; {first}" if first else "BEGIN")
            except BaseException:
                if not _is_lost(connection):
                    await connection.execute("ROLLBACK")
                raise
            await connection.execute("COMMIT")

    async def fetch(self, query: str, *args: Any) -> list[asyncpg.Record]:
        """Run one statement outside of a transaction and return its rows."""
        async with self._connection() as connection:
            return await connection.fetch(query, *args)

    async def fetchrow(self, query: str, *args: Any) -> asyncpg.Record | None:
        """Run one statement outside of a transaction and return its first row."""
        async with self._connection() as connection:
            return await connection.fetchrow(query, *args)

    async def fetchval(self, query: str, *args: Any) -> Any:
        """Run one statement outside of a transaction and return the first value of its first row."""
        async with self._connection() as connection:
            return await connection.fetchval(query, *args)

    async def execute(self, query: str, *args: Any) -> str:
        """Run one statement outside of a transaction and return its command tag, such as "UPDATE 1"."""
        async with self._connection() as connection:
            return await connection.execute(query, *args)

    async def check(self) -> None:
        """Raise Unavailable if the server can't be reached; busy connections are no sign of that."""
        if self._pool.get_idle_size() > 0 or self._pool.get_size() < self._pool.get_max_size():
            await self.execute("SELECT 1")

    @asynccontextmanager
    async def dedicated(self) -> AsyncIterator[asyncpg.Connection]:
        """Open a connection outside of the pool, for what needs a session: LISTEN, session advisory locks."""
        connection = await asyncpg.connect(self._url, timeout=_CONNECT_SECONDS)
        try:
            await _prepare(connection)
            yield connection
        finally:
            await _close(connection)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection]:
        with _unavailable_if(lambda: True):
            connection = await self._pool.acquire(timeout=_ACQUIRE_SECONDS)
        try:
            # An OSError of the block is the database's only if the connection is gone.
            with _unavailable_if(lambda: _is_lost(connection)):
                yield cast(asyncpg.Connection, connection)
        finally:
            await self._pool.release(connection)

    def count_statement(self) -> None:
        """Count one that is sent: BEGIN and COMMIT are not."""
        self.statements += 1
        DATABASE_STATEMENTS.inc()

    async def _init(self, connection: asyncpg.Connection) -> None:
        cast(_CountedConnection, connection).database = self
        await _prepare(connection)


class _CountedConnection(asyncpg.Connection):
    """Counts what is sent (asyncpg's own query log reports later than the call returns), and knows the types
    that other connections to the database have asked for.
    """

    __slots__ = ("database",)
    database: Database

    async def execute(self, query: str, *args: Any, **options: Any) -> str:
        if query.startswith("BEGIN"):
            self.database.transactions += 1
        if query not in ("BEGIN", "COMMIT", "ROLLBACK"):
            self.database.count_statement()
        return await super().execute(query, *args, **options)

    async def _introspect_types(self, typeoids: Iterable[int], *args: Any) -> Any:
        # asyncpg asks for every array's type, with each connection: 20 ms of the server's time.
        asked = frozenset(typeoids)
        if asked not in self.database.types:
            known = await super()._introspect_types(typeoids, *args)  # type: ignore[misc]  # it is private
            self.database.types[asked] = known
        return self.database.types[asked]

    async def executemany(self, *args: Any, **options: Any) -> Any:
        self.database.count_statement()
        return await super().executemany(*args, **options)

    async def fetch(self, *args: Any, **options: Any) -> Any:
        self.database.count_statement()
        return await super().fetch(*args, **options)

    async def fetchrow(self, *args: Any, **options: Any) -> Any:
        self.database.count_statement()
        return await super().fetchrow(*args, **options)

    async def fetchval(self, *args: Any, **options: Any) -> Any:
        self.database.count_statement()
        return await super().fetchval(*args, **options)

    async def fetchmany(self, *args: Any, **options: Any) -> Any:
        self.database.count_statement()
        return await super().fetchmany(*args, **options)


async def bring_up_to_date(url: str, migrations: Path, connect_timeout: float = 60) -> Sequence[str]:
    """Migrate a database as `Database.connect` does; return the names of the migrations that it lacked."""
    async with _first(url, connect_timeout) as connection:
        return await migrate(connection, migrations)


Queries: TypeAlias = asyncpg.Connection | Database
"""What statements are sent to.

The connection of a transaction, or the pool when one statement is all there is.
"""


def any_of(parameter: str) -> str:
    """Return what a uuid column is compared with to find the rows of an array of ids: `id = {any_of("$1")}`.

    Of the array itself PostgreSQL makes a plan anew with each execution, since it hopes for a better one for
    so many ids: a third of what such a statement costs.
    """
    return f"ANY ((SELECT {parameter}::uuid[])::uuid[])"


@contextmanager
def _unavailable_if(lost: Callable[[], bool]) -> Iterator[None]:
    try:
        yield
    except CONNECTION_ERRORS as error:
        # InterfaceError is asyncpg's for misuse as well; as ValueError it always is.
        by_the_block = isinstance(error, OSError | asyncpg.InterfaceError) and not lost()
        if by_the_block or isinstance(error, ValueError):
            raise
        raise Unavailable("the database can't be reached") from error


def _is_lost(connection: asyncpg.Connection | PoolConnectionProxy) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # the pool has taken the broken connection back already
        return True


@asynccontextmanager
async def _first(url: str, connect_timeout: float) -> AsyncIterator[asyncpg.Connection]:
    """Open a connection to a server that may not be up yet."""
    connection = await _connect(url, connect_timeout)
    try:
        yield connection
    finally:
        await _close(connection)


async def _connect(url: str, within: float) -> asyncpg.Connection:
    """Connect, with growing pauses between tries, for at most `within` seconds."""
    give_up = time.monotonic() + within
    pause = 0.1
    while True:
        try:
            return await asyncpg.connect(url, timeout=_CONNECT_SECONDS)
        except CONNECTION_ERRORS as error:
            if isinstance(error, ValueError):
                raise
            if time.monotonic() + pause > give_up:
                raise Unavailable(f"the database can't be reached: {error}") from error
            log.info("waiting for the database", error=str(error))
        await asyncio.sleep(pause * random.uniform(0.5, 1))
        pause = min(pause * 2, 2.0)


async def _prepare(connection: asyncpg.Connection) -> None:
    """Make jsonb columns Python values; asyncpg already maps numeric to Decimal and uuid to UUID."""
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", format="binary", encoder=_encode_jsonb, decoder=_decode_jsonb
    )


def _encode_jsonb(value: Any) -> bytes:
    # The first byte is the version of the binary format.
    return b"\x01" + orjson.dumps(value, default=str)


def _decode_jsonb(data: bytes) -> Any:
    return orjson.loads(memoryview(data)[1:])


async def _keep_session(_: Any) -> None:
    """Replace asyncpg's reset of a session between uses: nothing here changes a session."""


async def _close(connection: asyncpg.Connection) -> None:
    try:
        await connection.close(timeout=_CLOSE_SECONDS)
    except CONNECTION_ERRORS:
        connection.terminate()
