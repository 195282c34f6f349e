"""A store in memory, for tests of use cases and for the model check.

Each service has repositories on it behind the same ports as those on its real store, and one suite of tests
that runs on both, so that what is shown on memory holds in production.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from uuid import UUID

from stoa_chassis.avro import Event, new_event
from stoa_chassis.clock import Clock, SystemClock
from stoa_chassis.context import correlation_id
from stoa_chassis.inbox import AlreadyProcessed
from stoa_chassis.outbox import Outbox
from stoa_chassis.uow import LostRace, UnitOfWork
from stoa_contracts.events import Payload

V = TypeVar("V")
T = TypeVar("T")


class ConstraintViolated(Exception):
    """A constraint of the store does not allow this row; the text names it as the real store does."""


@dataclass
class MemoryStore(Generic[V]):
    """Rows, which events were handled, and what was published.

    `rows` is an immutable value that is replaced as a whole, so that a state can be compared, kept and gone
    back to.
    """

    rows: V
    inbox: frozenset[UUID] = frozenset()
    published: list[Event[Payload]] = field(default_factory=list)
    violated: str = ""

    def check(self, allowed: bool, constraint: str) -> None:
        """Refuse a row as the store would. It is noted too, since services survive a refusal and log it.

        Raises ConstraintViolated.
        """
        if not allowed:
            self.violated = constraint
            raise ConstraintViolated(constraint)

    def payloads(self, type_: type[T]) -> list[T]:
        """Return what was published of one type, oldest first."""
        return [event.payload for event in self.published if isinstance(event.payload, type_)]


def memory_unit_of_work(
    store: Callable[[], MemoryStore[V]],
    open_tx: Callable[[MemoryStore[V], Outbox], T],
    clock: Clock | None = None,
) -> UnitOfWork[T]:
    """Return what runs use cases in transactions of a store in memory.

    A transaction works on a view of its own and commits all of it, with its events and its mark in the inbox,
    or nothing; it begins again if another has committed meanwhile. So transactions are serializable.
    """
    clock = clock or SystemClock()

    @asynccontextmanager
    async def begin(consuming: Event[Payload] | None) -> AsyncIterator[T]:
        committed = store()
        rows, inbox, outbox = committed.rows, committed.inbox, Outbox()
        view = MemoryStore(rows, inbox)
        if consuming is not None:
            if consuming.event_id in inbox:
                raise AlreadyProcessed(f"{consuming.event_type} {consuming.event_id}")
            view.inbox = inbox | {consuming.event_id}
        try:
            yield open_tx(view, outbox)
        finally:
            committed.violated = committed.violated or view.violated
        if committed.rows is not rows or committed.inbox is not inbox:
            raise LostRace
        committed.rows, committed.inbox = view.rows, view.inbox
        committed.published += [new_event(payload, clock, correlation_id()) for payload in outbox.take()]

    return UnitOfWork(begin)
