"""Work that falls due: what could not be finished at once, and is taken up again by whichever process comes
first.

A row says when it is due. A process claims it, which puts it off so that nobody else takes it meanwhile, and
works it off under the correlation id of whatever caused it. What is finished leaves no due time; what is not
falls due again, a little later each time. So work survives the process that began it, and is not done by two
at once unless one of them takes longer than its claim lasts: it has to bear that.

Pattern: https://microservices.io/patterns/data/polling-publisher.html, with a lease for each row.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, Protocol, TypeVar

from stoa_chassis.clock import Clock
from stoa_chassis.context import bound
from stoa_chassis.ids import new_id
from stoa_chassis.outages import is_outage
from stoa_chassis.telemetry import get_logger

_log = get_logger(__name__)
_PAUSE_IN_OUTAGE = 1.0  # seconds


class Unfinished(Protocol):
    """Something that may have to be taken up again."""

    @property
    def correlation_id(self) -> str:
        """The request that it goes back to; "" if that is not known: then each try gets an id of its own."""
        ...

    @property
    def attempts(self) -> int:
        """How often it was taken up."""
        ...


W = TypeVar("W", bound=Unfinished)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between tries: `first`, doubled with each, up to `longest`."""

    first: timedelta
    longest: timedelta

    def at_most(self, attempts: int) -> timedelta:
        """Return the longest pause after so many attempts."""
        pause: timedelta = min(self.first * 2 ** min(attempts, 20), self.longest)
        return pause

    def after(self, attempts: int) -> timedelta:
        """Return the pause after so many attempts; jitter spreads out what failed together."""
        return self.at_most(attempts) * random.uniform(0.75, 1.0)


class DueStore(Protocol[W]):
    """Where work waits until it is due."""

    async def claim_due(self, now: datetime, limit: int) -> Sequence[W]:
        """Take at most `limit` that are due: nobody else takes them before they are due again."""
        ...

    async def next_due(self) -> datetime | None:
        """Return when the next falls due; None if nothing waits."""
        ...

    async def put_off(self, work: W, until: datetime) -> None:
        """Let something fall due at another time, unless it was finished meanwhile."""
        ...


class DueWork(Generic[W]):
    """Works off what falls due, several at once."""

    def __init__(
        self,
        store: DueStore[W],
        handle: Callable[[W], Awaitable[object]],
        backoff: Backoff,
        clock: Clock,
        *,
        concurrency: int = 20,
        sweep: timedelta = timedelta(seconds=15),
    ) -> None:
        """What another process left behind is found within `sweep`.

        `wake` says that something is due sooner.
        """
        self._store = store
        self._handle = handle
        self._backoff = backoff
        self._clock = clock
        self._concurrency = concurrency
        self._sweep = sweep
        self._wake = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._group: asyncio.TaskGroup | None = None

    @property
    def has_room(self) -> bool:
        """Whether this process runs, and could take something up now."""
        return self._group is not None and len(self._running) < self._concurrency

    def take_up(self, work: W) -> None:
        """Handle something new that this process has just stored as claimed, which spares the claim.

        If there was no room before it was stored (`has_room`) it has to be stored as due. Should this process
        have stopped meanwhile it falls due when the claim has lapsed.
        """
        if self._group is not None:
            task = self._group.create_task(self._work_off(work))
            self._running.add(task)
            task.add_done_callback(self._made_room)

    def _made_room(self, task: asyncio.Task[None]) -> None:
        full = len(self._running) >= self._concurrency
        self._running.discard(task)
        if full:  # what is due was left alone meanwhile
            self.wake()

    def wake(self) -> None:
        """Look again now: something may be due sooner than what was known."""
        self._wake.set()

    async def put_off(self, work: W) -> None:
        """Take something up again later: the later, the more often it was tried."""
        await self._store.put_off(work, self._clock.now() + self._backoff.after(work.attempts))
        self.wake()

    async def run(self) -> None:
        """Work off until cancelled, whatever happens to the store.

        A hanging one does not keep others waiting.
        """
        running = self._running

        def ended(task: asyncio.Task[None]) -> None:
            running.discard(task)
            self.wake()

        async with asyncio.TaskGroup() as self._group:
            try:
                while True:
                    self._wake.clear()
                    try:
                        for work in await self._claim(self._concurrency - len(running)):
                            task = self._group.create_task(self._work_off(work))
                            running.add(task)
                            task.add_done_callback(ended)
                        pause = await self._pause(full=len(running) >= self._concurrency)
                    except Exception as error:
                        if not is_outage(error):
                            raise
                        pause = _PAUSE_IN_OUTAGE
                    with suppress(TimeoutError):
                        async with asyncio.timeout(pause):
                            await self._wake.wait()
            finally:
                self._group = None

    async def work_off(self, limit: int = 100) -> int:
        """Work off what is due at this moment, and return how many that were."""
        claimed = await self._claim(limit)
        await asyncio.gather(*map(self._work_off, claimed))
        return len(claimed)

    async def _claim(self, limit: int) -> Sequence[W]:
        return await self._store.claim_due(self._clock.now(), limit) if limit > 0 else ()

    async def _pause(self, *, full: bool) -> float:
        """Return after how many seconds to look again: while it is full, not before one has ended."""
        due = None if full else await self._store.next_due()
        sweep = self._sweep.total_seconds()
        return sweep if due is None else max(0.0, min(sweep, (due - self._clock.now()).total_seconds()))

    async def _work_off(self, work: W) -> None:
        """Handle one. Its trouble stops nothing else: it falls due again."""
        with bound(work.correlation_id or str(new_id())):
            try:
                await self._handle(work)
            except Exception as error:
                if is_outage(error):
                    _log.info("due work has to wait", work=type(work).__name__, cause=repr(error))
                else:
                    _log.exception("due work failed", work=type(work).__name__)  # what it holds is private
