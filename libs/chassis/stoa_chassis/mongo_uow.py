"""Units of work on MongoDB: a document is read, decided on, and written if nobody has written it meanwhile.

The write of one document is atomic everywhere, on servers without transactions too. So what commits together
lies in one document: the change, the events that wait to be published (`stoa_chassis.mongo`) and the ids of
the events that were handled. A unit of work changes at most one document, with one write when it commits.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import DuplicateKeyError

from stoa_chassis.avro import Event
from stoa_chassis.errors import Aborted
from stoa_chassis.inbox import AlreadyProcessed
from stoa_chassis.mongo import PENDING, Document, MongoOutbox
from stoa_chassis.outbox import Outbox
from stoa_chassis.uow import Busy, LostRace, UnitOfWork
from stoa_contracts.events import Payload

T = TypeVar("T")
Refusal = Callable[[], Awaitable[Exception]]

HANDLED = "_handled"
"""The field of a document with the ids of the events that it handled last."""
_REMEMBERED = 200


@dataclass(frozen=True, slots=True)
class _Write:
    """What is to be written; `found` is what the document must still be, None if it is new."""

    document_id: Any
    found: Mapping[str, Any] | None
    fields: Mapping[str, Any]
    refusal: Refusal


class MongoTransaction:
    """What the repositories of one unit of work read and write."""

    def __init__(
        self, collection: AsyncCollection[Document], consuming: Event[Payload] | None = None
    ) -> None:
        self.collection = collection
        self.outbox = Outbox()
        self._handled = [str(consuming.event_id)] if consuming is not None else []
        self._write: _Write | None = None

    def check(self, document: Mapping[str, Any]) -> None:
        """Look at a document that was read. Raises AlreadyProcessed if it handled the event before."""
        for event_id in self._handled:
            if event_id in document.get(HANDLED, ()):
                raise AlreadyProcessed(event_id)

    def insert(self, document_id: Any, fields: Mapping[str, Any], refusal: Refusal) -> None:
        """Write a new document when the unit of work commits.

        `refusal` returns what to raise if a unique index refuses it. Raises RuntimeError for a second
        document: there is no transaction over several.
        """
        self._put(_Write(document_id, None, fields, refusal))

    def update(
        self, document_id: Any, found: Mapping[str, Any], fields: Mapping[str, Any], refusal: Refusal
    ) -> None:
        """Set fields of a document when the unit of work commits, if it is still as it was found.

        `found` are fields that tell, such as its version. The rest is as for `insert`.
        """
        self._put(_Write(document_id, found, fields, refusal))

    async def commit(self, relay: MongoOutbox) -> None:
        """Write, with the events and the mark of the handled one. Raises LostRace, or the refusal.

        A unit of work that writes nothing has nowhere to put its events: RuntimeError.
        """
        payloads, write = self.outbox.take(), self._write
        if write is None:
            if payloads:
                raise RuntimeError(f"events of a unit of work that writes no document: {payloads}")
            return
        pending = [relay.pending(payload) for payload in payloads]
        try:
            written = await self._written(write, pending)
        except DuplicateKeyError as error:
            raise await write.refusal() from error
        if not written:
            raise LostRace
        relay.wake(write.document_id)

    async def _written(self, write: _Write, pending: list[Document]) -> bool:
        if write.found is None:
            handled = {HANDLED: self._handled} if self._handled else {}
            await self.collection.insert_one(
                {"_id": write.document_id, **write.fields, **handled, PENDING: pending}
            )
            return True
        push: Document = {PENDING: {"$each": pending}}
        if self._handled:
            push[HANDLED] = {"$each": self._handled, "$slice": -_REMEMBERED}
        result = await self.collection.update_one(
            {"_id": write.document_id, **write.found}, {"$set": dict(write.fields), "$push": push}
        )
        return result.matched_count == 1

    def _put(self, write: _Write) -> None:
        if self._write is not None:
            raise RuntimeError(
                f"a unit of work writes one document, once: {self._write.document_id} or {write.document_id}"
            )
        self._write = write


def mongo_unit_of_work(
    collection: AsyncCollection[Document],
    relay: MongoOutbox,
    open_tx: Callable[[MongoTransaction], T],
    busy: type[Aborted] = Busy,
) -> UnitOfWork[T]:
    """Return what runs use cases as writes of one document.

    Using what it returns raises LookupError if an event is published whose type the codec did not load.
    """

    @asynccontextmanager
    async def begin(consuming: Event[Payload] | None) -> AsyncIterator[T]:
        transaction = MongoTransaction(collection, consuming)
        yield open_tx(transaction)
        await transaction.commit(relay)

    return UnitOfWork(begin, busy)
