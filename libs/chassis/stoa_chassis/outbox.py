"""The outbox of a unit of work: the events that commit with the change that caused them.

Use cases never publish. A model records events on the entity that it changes, and the repository that saves
the entity hands them over with `collect`. Each store has its way of committing them with the change: a table
(`postgres_uow`), the document itself (`mongo`), a stream (`redis_outbox`).
Pattern: https://microservices.io/patterns/data/transactional-outbox.html
"""

from collections.abc import MutableSequence
from typing import Any, Protocol

from stoa_contracts.events import Payload


class RecordsEvents(Protocol):
    """An entity that records the events that its changes cause."""

    @property
    def events(self) -> MutableSequence[Any]:
        """Payloads, in the order in which they came about."""
        ...


class Outbox:
    """Collects what is to be published if, and only if, the unit of work commits."""

    def __init__(self) -> None:
        self.payloads: list[Payload] = []

    def collect(self, *entities: RecordsEvents) -> None:
        """Take over the events of entities that were saved; each is taken once."""
        for entity in entities:
            self.payloads.extend(entity.events)
            entity.events.clear()

    def take(self) -> list[Payload]:
        """Return what was collected, to be written with the change; nothing is left."""
        taken, self.payloads = self.payloads, []
        return taken
