"""Redis (or Valkey): the client, set up so that an outage is short, bounded and known as one."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError
from redis.exceptions import TimeoutError as RedisTimeoutError

from stoa_chassis.errors import Unavailable
from stoa_chassis.outages import register_outage
from stoa_chassis.telemetry import get_logger

log = get_logger(__name__)

# A replica that was not promoted yet is read-only; a full server takes writes again when something expires.
OUTAGES: tuple[type[Exception], ...] = (
    RedisConnectionError,
    RedisTimeoutError,
    ReadOnlyError,
    OutOfMemoryError,
)
"""What a server that is down raises."""
register_outage(*OUTAGES)

COMMAND_SECONDS = 5.0
"""How long a command may take, retries included; one that blocks has to block for less."""
_CONNECT_SECONDS = 2.0
_RETRIES = 2
_RETRY_PAUSES = (0.02, 0.2)  # seconds: the first and the longest
_PAUSE_SECONDS = 0.5


class _Client(Redis):
    """A client with one limit for all that a command waits for: a connection, its answer, further attempts.

    The library's own limits, one for each of these, would be a third of what a command costs.
    """

    def __init__(self, connection_pool: ConnectionPool) -> None:
        super().__init__(connection_pool=connection_pool)
        self._connections = asyncio.Semaphore(connection_pool.max_connections)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command and return its answer; all of the client's methods end here."""
        try:
            async with asyncio.timeout(COMMAND_SECONDS), self._connections:
                # The library has no annotation here.
                return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except TimeoutError as error:
            raise RedisTimeoutError(f"no answer within {COMMAND_SECONDS} seconds") from error


@asynccontextmanager
async def connect(url: str, connect_timeout: float = 60, pool_size: int = 50) -> AsyncIterator[Redis]:
    """Open a client, which answers with bytes.

    More calls at once than `pool_size` wait a little for a connection. A command whose connection breaks is
    sent again: a script has to bear running twice. Waits up to `connect_timeout` seconds for the server to
    come up. Raises Unavailable if it doesn't. Once it is up, calls raise one of `OUTAGES` while it is down.
    """
    first_pause, longest_pause = _RETRY_PAUSES
    pool = ConnectionPool.from_url(
        url,
        max_connections=pool_size,
        socket_timeout=None,
        socket_connect_timeout=_CONNECT_SECONDS,
        retry=Retry(ExponentialBackoff(longest_pause, first_pause), _RETRIES, (RedisConnectionError,)),
        # With version 3 the library leaves it to the first command to find out that a pooled connection died.
        protocol=2,
    )
    async with _Client.from_pool(pool) as client:
        give_up = time.monotonic() + connect_timeout
        while True:
            try:
                await client.ping()
                break
            except OUTAGES as error:
                if time.monotonic() > give_up:
                    raise Unavailable("the key-value store can't be reached") from error
                log.info("waiting for the key-value store", error=repr(error))
                await asyncio.sleep(_PAUSE_SECONDS)
        yield client
