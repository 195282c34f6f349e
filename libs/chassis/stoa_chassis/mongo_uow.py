"""Units of work on MongoDB: a document is read, decided on, and written if nobody has written it meanwhile.

The write of one document is atomic everywhere, on servers without transactions too. So what commits together
lies in one document: the change, the events that wait to be published (`stoa_chassis.mongo`) and the ids of
the events that were handled. A unit of work changes at most one document.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from pymongo.asynchronous.collection import AsyncCollection

from stoa_chassis.avro import Event
from stoa_chassis.errors import Aborted
from stoa_chassis.inbox import AlreadyProcessed
from stoa_chassis.mongo import PENDING, Document, MongoOutbox
from stoa_chassis.outbox import Outbox
from stoa_chassis.uow import Busy, LostRace, UnitOfWork
from stoa_contracts.events import Payload

T = TypeVar("T")

HANDLED = "_handled"
"""The field of a document with the ids of the events that it handled last."""
_REMEMBERED = 200


class MongoTransaction:
    """What the repositories of one unit of work need to write a document."""

    def __init__(
        self,
        collection: AsyncCollection[Document],
        relay: MongoOutbox,
        consuming: Event[Payload] | None = None,
    ) -> None:
        self.collection = collection
        self.outbox = Outbox()
        self._relay = relay
        self._event_id = str(consuming.event_id) if consuming is not None else None
        self._document_id: Any = None

    def check(self, document: Mapping[str, Any]) -> None:
        """Look at a document that was read. Raises AlreadyProcessed if it handled the event before."""
        if self._event_id is not None and self._event_id in document.get(HANDLED, ()):
            raise AlreadyProcessed(self._event_id)

    def insertion(self, document_id: Any, fields: Mapping[str, Any]) -> Document:
        """Return a new document with what commits with it: its events and the mark of the handled one."""
        self._takes(document_id)
        handled = {HANDLED: [self._event_id]} if self._event_id is not None else {}
        return {"_id": document_id, **fields, **handled, PENDING: self._pending()}

    def update(self, document_id: Any, fields: Mapping[str, Any]) -> Document:
        """Return an update that sets fields, with what commits with it."""
        self._takes(document_id)
        push: Document = {PENDING: {"$each": self._pending()}}
        if self._event_id is not None:
            push[HANDLED] = {"$each": [self._event_id], "$slice": -_REMEMBERED}
        return {"$set": dict(fields), "$push": push}

    def written(self, matched: bool) -> None:
        """Tell whether the write found the document as it was read. Raises LostRace."""
        if not matched:
            raise LostRace
        self._relay.wake(self._document_id)

    def _pending(self) -> Sequence[Document]:
        return [self._relay.pending(payload) for payload in self.outbox.take()]

    def _takes(self, document_id: Any) -> None:
        if self._document_id is not None:
            raise RuntimeError(f"a unit of work changes one document: {self._document_id} or {document_id}")
        self._document_id = document_id


def mongo_unit_of_work(
    collection: AsyncCollection[Document],
    relay: MongoOutbox,
    open_tx: Callable[[MongoTransaction], T],
    busy: type[Aborted] = Busy,
) -> UnitOfWork[T]:
    """Return what runs use cases as writes of one document."""

    @asynccontextmanager
    async def begin(consuming: Event[Payload] | None) -> AsyncIterator[T]:
        yield open_tx(MongoTransaction(collection, relay, consuming))

    return UnitOfWork(begin, busy)
