"""The unit of work: one transaction of a use case, with its repositories and the events that it causes.

Pattern: https://www.cosmicpython.com/book/chapter_06_uow.html
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import asyncpg

from stoa_chassis import inbox
from stoa_chassis.avro import Event, EventCodec
from stoa_chassis.clock import Clock, SystemClock
from stoa_chassis.errors import Aborted
from stoa_chassis.inbox import AlreadyProcessed
from stoa_chassis.outbox import Outbox
from stoa_chassis.postgres import RETRIABLE_ERRORS, Database
from stoa_contracts.events import Payload

__all__ = ["AlreadyProcessed", "UnitOfWork"]

T = TypeVar("T")
R = TypeVar("R")
_TRIES = 5
_FIRST_PAUSE_SECONDS = 0.01


class UnitOfWork(Generic[T]):
    """Opens transactions; `open` makes of a connection and an outbox what the use cases work with."""

    def __init__(
        self,
        database: Database,
        events: EventCodec,
        open: Callable[[asyncpg.Connection, Outbox], T],  # noqa: A002
        clock: Clock | None = None,
    ) -> None:
        self._database = database
        self._codec = events
        self._open = open
        self._clock = clock or SystemClock()

    @asynccontextmanager
    async def begin(self, consuming: Event[Payload] | None = None) -> AsyncIterator[T]:
        """Run a block in a transaction: all that it changed and published commits, or none if it raises.

        `consuming` is the event that the block handles. Raises AlreadyProcessed if it was handled before, and
        Unavailable if the database can't be reached.
        """
        async with self._database.transaction() as connection:
            if consuming is not None:
                await inbox.accept(connection, consuming)
            outbox = Outbox(connection, self._codec, self._clock)
            yield self._open(connection, outbox)
            await outbox.flush()

    async def run(self, work: Callable[[T], Awaitable[R]], consuming: Event[Payload] | None = None) -> R:
        """Run `work` in a transaction, again from the start if it lost against a concurrent one.

        Raises Aborted if it lost five times in a row (serialization failure or deadlock).
        """
        for lost in range(_TRIES):
            try:
                async with self.begin(consuming) as tx:
                    return await work(tx)
            except RETRIABLE_ERRORS as error:
                if lost == _TRIES - 1:
                    raise Aborted("too many concurrent changes") from error
            await asyncio.sleep(_FIRST_PAUSE_SECONDS * 2**lost * random.uniform(0.5, 1.5))
        raise AssertionError("the loop returns or raises")
