"""Transactional use cases: load, decide, save, and again from the start if somebody else was faster.

    class Orders:
        def __init__(self, uow: UnitOfWork[Tx]) -> None:
            self._uow = uow

        @transactional
        async def cancel(self, tx: Tx, order_id: UUID, reason: str) -> Order:
            order = await tx.orders.get(order_id)
            order.cancel(reason)
            await tx.orders.save(order)
            return order

`orders.cancel(order_id, reason)` runs it: all that it saved commits, with the events of what it saved, or
nothing does. A use case that handles an event takes it as its first argument; that it was handled commits
with its effects, so that it has them once. Because it may run more than once, a use case does nothing outside
of its transaction.

Pattern: https://www.cosmicpython.com/book/chapter_06_uow.html
"""

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from stoa_chassis.avro import Event
from stoa_chassis.errors import Aborted
from stoa_contracts.events import Payload

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")
_PAUSES = tuple(min(0.005 * 2**lost, 0.2) for lost in range(11))
"""How long work that lost a race waits before each further try, in seconds."""


class LostRace(Exception):
    """Somebody else changed it since it was read: the unit of work begins again. Stores raise it."""


class Busy(Aborted):
    """Others keep changing the same thing; try again."""

    reason = "CONCURRENT_CHANGES"


class UnitOfWork(Generic[T]):
    """Runs use cases in transactions of one store.

    `T` is what they see of one, a dataclass of repositories.
    """

    def __init__(
        self,
        begin: Callable[[Event[Payload] | None], AbstractAsyncContextManager[T]],
        busy: type[Aborted] = Busy,
    ) -> None:
        """`begin` opens a transaction that commits when its block ends; it may handle an event.

        `busy` is raised when a use case has lost again and again.
        """
        self._begin = begin
        self._busy = busy

    async def run(self, work: Callable[[T], Awaitable[R]], consuming: Event[Payload] | None = None) -> R:
        """Run `work` in a transaction that handles the event `consuming`, if one is given.

        Raises AlreadyProcessed if the event was handled before, Unavailable if the store can't be reached,
        and Busy if the work has lost twelve times in a row.
        """
        pauses = iter(_PAUSES)
        while True:
            try:
                async with self._begin(consuming) as tx:
                    return await work(tx)
            except LostRace as lost:
                pause = next(pauses, None)
                if pause is None:
                    raise self._busy("others keep changing it, try again") from lost
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))


class _UseCases(Protocol):
    _uow: UnitOfWork[Any]


U = TypeVar("U", bound=_UseCases)


def transactional(
    use_case: Callable[Concatenate[U, T, P], Awaitable[R]],
) -> Callable[Concatenate[U, P], Coroutine[Any, Any, R]]:
    """Run a use case in a transaction of `self._uow`, which it gets as its first argument."""

    @functools.wraps(use_case)
    async def run(self: U, *args: P.args, **kwargs: P.kwargs) -> R:
        consuming = args[0] if args and isinstance(args[0], Event) else None
        return await self._uow.run(lambda tx: use_case(self, tx, *args, **kwargs), consuming)

    return run  # type: ignore[return-value]  # functools.wraps makes of a method something with other types
