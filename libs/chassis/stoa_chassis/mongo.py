"""MongoDB: the client, and an outbox inside the documents for stores without transactions over several.

A write puts its events into the document's own `_pending` array, so both happen or neither; a relay publishes
them, per document in order, and takes them out again. A deleted document would take its events along: mark
it as deleted instead.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import AsyncMongoClient, ReturnDocument
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import ConnectionFailure, PyMongoError

from stoa_chassis.avro import EventCodec, new_event
from stoa_chassis.clock import Clock, SystemClock
from stoa_chassis.context import correlation_id
from stoa_chassis.errors import Unavailable
from stoa_chassis.ids import new_id
from stoa_chassis.kafka import CORRELATION_ID_HEADER, Producer, PublishFailed, Record
from stoa_chassis.outages import register_outage
from stoa_chassis.telemetry import OUTBOX_PUBLISHED, get_logger, trace_headers
from stoa_contracts.events import Payload

log = get_logger(__name__)

Document = dict[str, Any]

OUTAGES: tuple[type[Exception], ...] = (ConnectionFailure,)
"""What a server that is down raises."""
register_outage(*OUTAGES)

PENDING = "_pending"
_LEASE = "_relay"
_LEASE_TIME = timedelta(seconds=30)
_AT_ONCE = 16
_PAUSE_SECONDS = 1.0
_SHARE_OF_SWEEPS = 0.05  # of the time, at most
_SELECTION_SECONDS = 3.0  # how long a call waits for a server before it counts as down


@asynccontextmanager
async def connect(url: str, connect_timeout: float = 60) -> AsyncIterator[AsyncMongoClient[Document]]:
    """Open a client that knows UUIDs by the standard and times with their zone.

    Waits up to `connect_timeout` seconds for the server to come up. Raises Unavailable if it doesn't. Once
    it is up, calls raise one of `OUTAGES` while it is down.
    """
    async with AsyncMongoClient[Document](
        url,
        tz_aware=True,
        uuidRepresentation="standard",
        serverSelectionTimeoutMS=int(_SELECTION_SECONDS * 1000),
    ) as client:
        give_up = time.monotonic() + connect_timeout
        while True:
            try:
                await client.admin.command("ping")
                break
            except OUTAGES as error:
                if time.monotonic() > give_up:
                    raise Unavailable("the document store can't be reached") from error
                log.info("waiting for the document store", error=repr(error))
        yield client


class MongoOutbox:
    """The events of one collection's documents, and the relay that publishes them, at least once.

    A relay leases a document while it publishes its events, so that the relays of several processes don't
    overtake each other. It looks at a document as soon as this process has written to it (`wake`), and every
    `sweep_seconds` at all, for what another process left behind; less often where looking takes long, as it
    does on a server that has no index of the documents with events.
    """

    def __init__(
        self,
        collection: AsyncCollection[Document],
        codec: EventCodec,
        producer: Producer,
        clock: Clock | None = None,
        sweep_seconds: float = 10.0,
    ) -> None:
        self._collection = collection
        self._codec = codec
        self._producer = producer
        self._clock = clock or SystemClock()
        self._sweep_seconds = sweep_seconds
        self._owner = str(new_id())
        self._due: dict[Any, None] = {}
        self._wake = asyncio.Event()

    def pending(self, payload: Payload) -> Document:
        """Return the entry that a write pushes onto the document's `_pending` array.

        Raises LookupError if the codec did not load the payload's type.
        """
        event = new_event(payload, self._clock, correlation_id() or str(new_id()))
        return {
            "event_id": str(event.event_id),
            "topic": event.topic,
            "key": payload.key,
            "value": self._codec.encode(event),
            "headers": {**trace_headers(), CORRELATION_ID_HEADER: event.correlation_id},
        }

    def wake(self, document_id: Any) -> None:
        """Publish a document's events now; call it after the write that added them."""
        self._due[document_id] = None
        self._wake.set()

    async def run(self) -> None:
        """Relay until cancelled, whatever happens to the store and the broker."""
        with contextlib.suppress(PyMongoError):  # sweeps are only faster with it
            await self._collection.create_index(f"{PENDING}.event_id", sparse=True)
        while True:
            try:
                began = time.monotonic()
                left_behind = await self._left_behind()
                looked = time.monotonic() - began
                await self._relay_all(left_behind)
                sweep_at = time.monotonic() + max(self._sweep_seconds, looked / _SHARE_OF_SWEEPS)
                while await self._woken_before(sweep_at):
                    due, self._due = self._due, {}
                    await self._relay_all(list(due))
            except (PyMongoError, PublishFailed) as error:
                log.warning("events of documents can't be published yet", error=repr(error))
                await asyncio.sleep(_PAUSE_SECONDS)
            except Exception:
                log.exception("the relay of documents failed")
                await asyncio.sleep(self._sweep_seconds)

    async def _left_behind(self) -> list[Any]:
        found = self._collection.find({f"{PENDING}.event_id": {"$exists": True}}, {"_id": 1})
        return [document["_id"] async for document in found]

    async def _woken_before(self, time_out: float) -> bool:
        self._wake.clear()
        if not self._due:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(time_out - time.monotonic()):
                    await self._wake.wait()
        return bool(self._due) and time.monotonic() < time_out

    async def _relay_all(self, document_ids: Sequence[Any]) -> None:
        for start in range(0, len(document_ids), _AT_ONCE):
            await asyncio.gather(*map(self._relay, document_ids[start : start + _AT_ONCE]))

    async def _relay(self, document_id: Any) -> None:
        """Publish a document's events until none is left, unless another relay is at it."""
        now = datetime.now(UTC)
        free = {"$or": [{_LEASE: None}, {f"{_LEASE}.owner": self._owner}, {f"{_LEASE}.until": {"$lt": now}}]}
        document = await self._update({"_id": document_id, f"{PENDING}.0": {"$exists": True}, **free}, {})
        while document is not None:
            if entries := document[PENDING]:
                await self._publish(entries)
            published = {"$pull": {PENDING: {"event_id": {"$in": [entry["event_id"] for entry in entries]}}}}
            mine = {"_id": document_id, f"{_LEASE}.owner": self._owner}
            document = await self._update(mine, published)
            if document is not None and not document[PENDING]:
                # Whoever added an event meanwhile may have left it to us: then go on.
                empty = {**mine, f"{PENDING}.0": {"$exists": False}}
                released = await self._collection.update_one(empty, {"$unset": {_LEASE: ""}})
                if released.matched_count:
                    return

    async def _update(self, document: Mapping[str, Any], change: Mapping[str, Any]) -> Document | None:
        """Take or renew the lease of a document together with a change, and return its events."""
        lease = {"owner": self._owner, "until": datetime.now(UTC) + _LEASE_TIME}
        return await self._collection.find_one_and_update(
            document,
            {**change, "$set": {_LEASE: lease}},
            {PENDING: 1},
            return_document=ReturnDocument.AFTER,
        )

    async def _publish(self, entries: Sequence[Document]) -> None:
        records = [
            Record(entry["topic"], entry["key"], bytes(entry["value"]), entry["headers"]) for entry in entries
        ]
        await self._producer.send_batch(records)
        for record in records:
            OUTBOX_PUBLISHED.labels(record.topic).inc()
