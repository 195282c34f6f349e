"""Units of work on MongoDB: one document changes, with its events and the event that was handled."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
from pymongo.asynchronous.collection import AsyncCollection

from stoa_chassis import uow as uow_module
from stoa_chassis.avro import Event, EventCodec, new_event
from stoa_chassis.clock import SystemClock
from stoa_chassis.context import bound
from stoa_chassis.errors import AlreadyExists
from stoa_chassis.inbox import AlreadyProcessed
from stoa_chassis.kafka import Producer
from stoa_chassis.mongo import PENDING, Document, MongoOutbox, connect
from stoa_chassis.mongo_uow import HANDLED, MongoTransaction, mongo_unit_of_work
from stoa_chassis.uow import Busy, UnitOfWork

from .conftest import Entity, Noted, Notes

pytestmark = pytest.mark.stack


class TitleTaken(AlreadyExists):
    """Another book has that title."""


async def title_taken() -> Exception:
    return TitleTaken("another book has it")


@dataclass
class Store:
    """A collection of its own, of books with unique titles, and units of work on it."""

    books: AsyncCollection[Document]
    codec: EventCodec
    payload: type[Noted]
    uow: UnitOfWork[MongoTransaction]
    woken: list[UUID]

    async def add(
        self, book: UUID, title: str, *events: Noted, consuming: Event[Noted] | None = None
    ) -> None:
        async def work(tx: MongoTransaction) -> None:
            tx.insert(book, {"version": 1, "title": title}, title_taken)
            tx.outbox.collect(Entity(list(events)))

        await self.uow.run(work, consuming)

    async def save(
        self, book: UUID, title: str, *events: Noted, consuming: Event[Noted] | None = None
    ) -> None:
        async def work(tx: MongoTransaction) -> None:
            found = await read(tx, book)
            fields = {"version": found["version"] + 1, "title": title}
            tx.update(book, {"version": found["version"]}, fields, title_taken)
            tx.outbox.collect(Entity(list(events)))

        await self.uow.run(work, consuming)

    async def document(self, book: UUID) -> Document:
        document = await self.books.find_one({"_id": book})
        assert document is not None
        return document

    async def published(self, book: UUID) -> list[Noted]:
        entries = (await self.document(book))[PENDING]
        events: list[Any] = [
            (await self.codec.decode(entry["topic"], bytes(entry["value"]))).payload for entry in entries
        ]
        return events

    def event(self) -> Event[Noted]:
        return new_event(self.payload(uuid4(), 1), SystemClock(), "request")


async def read(tx: MongoTransaction, book: UUID) -> Mapping[str, Any]:
    document = await tx.collection.find_one({"_id": book})
    assert document is not None
    tx.check(document)
    return document


@pytest.fixture
async def store(mongo_url: str, notes: Notes, codec: EventCodec) -> AsyncIterator[Store]:
    woken: list[UUID] = []

    class Relay(MongoOutbox):
        """A relay that only notes what it was asked to publish."""

        def wake(self, document_id: Any) -> None:
            woken.append(document_id)

    async with connect(mongo_url) as client:
        name = f"test_{uuid4().hex}"
        books = client[name]["books"]
        await books.create_index("title", unique=True)
        relay = Relay(books, codec, Producer("127.0.0.1:1"))
        yield Store(books, codec, notes.payload, mongo_unit_of_work(books, relay, lambda tx: tx), woken)
        await client.drop_database(name)


async def test_a_document_and_its_events_are_one_write_and_the_relay_is_woken(store: Store) -> None:
    book = uuid4()
    events = [store.payload(book, line) for line in (1, 2, 3)]
    with bound("request-1"):
        await store.add(book, "first", events[0])
    await store.save(book, "second", *events[1:])
    document = await store.document(book)
    assert (document["version"], document["title"]) == (2, "second")
    assert await store.published(book) == events
    assert document[PENDING][0]["headers"]["correlation_id"] == "request-1"
    assert store.woken == [book, book]


async def test_a_unit_of_work_that_fails_changes_and_publishes_nothing(store: Store) -> None:
    book, never = uuid4(), uuid4()
    await store.add(book, "first")

    async def fail_to_save(tx: MongoTransaction) -> None:
        tx.update(book, {"version": 1}, {"title": "second"}, title_taken)
        tx.outbox.collect(Entity([store.payload(book, 1)]))
        raise LookupError

    async def fail_to_add(tx: MongoTransaction) -> None:
        tx.insert(never, {"title": "never"}, title_taken)
        raise LookupError

    for fail in (fail_to_save, fail_to_add):
        with pytest.raises(LookupError):
            await store.uow.run(fail)
    assert (await store.document(book))["title"] == "first"
    assert await store.published(book) == []
    assert await store.books.count_documents({}) == 1
    assert store.woken == [book]


async def test_who_was_overtaken_begins_again_with_what_the_other_wrote(store: Store) -> None:
    book, seen = uuid4(), list[str]()
    await store.add(book, "first")

    async def work(tx: MongoTransaction) -> None:
        found = await read(tx, book)
        seen.append(found["title"])
        if len(seen) == 1:
            await store.save(book, "theirs")
        fields = {"version": found["version"] + 1, "title": "mine"}
        tx.update(book, {"version": found["version"]}, fields, title_taken)
        tx.outbox.collect(Entity([store.payload(book, 1)]))

    await store.uow.run(work)
    assert seen == ["first", "theirs"]
    document = await store.document(book)
    assert (document["version"], document["title"]) == (3, "mine")
    assert len(await store.published(book)) == 1


async def test_who_loses_again_and_again_is_told_that_others_are_busy(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uow_module, "_PAUSES", (0,) * 11)
    book, tries = uuid4(), 0
    await store.add(book, "first")

    async def work(tx: MongoTransaction) -> None:
        nonlocal tries
        tries += 1
        tx.update(book, {"version": 0}, {"title": "mine"}, title_taken)

    with pytest.raises(Busy):
        await store.uow.run(work)
    assert (tries, (await store.document(book))["title"]) == (12, "first")
    assert store.woken == [book]


async def test_what_a_unique_index_refuses_is_an_error_of_the_service(store: Store) -> None:
    first, second = uuid4(), uuid4()
    await store.add(first, "taken")
    with pytest.raises(TitleTaken):
        await store.add(second, "taken")
    await store.add(second, "free")
    with pytest.raises(TitleTaken):
        await store.save(second, "taken", store.payload(second, 1))
    assert (await store.document(second))["title"] == "free"
    assert await store.published(second) == []


async def test_an_event_is_handled_once_by_a_document(store: Store) -> None:
    book, added, changed = uuid4(), store.event(), store.event()
    await store.add(book, "first", consuming=added)
    await store.save(book, "second", store.payload(book, 1), consuming=changed)
    for event in (added, changed):
        with pytest.raises(AlreadyProcessed):
            await store.save(book, "third", store.payload(book, 2), consuming=event)
    assert (await store.document(book))["title"] == "second"
    assert len(await store.published(book)) == 1
    await store.save(book, "third", consuming=store.event())
    assert (await store.document(book))["title"] == "third"


async def test_a_document_remembers_the_events_that_it_handled_last(store: Store) -> None:
    book, events = uuid4(), [store.event() for _ in range(3)]
    await store.add(book, "first")
    older = [str(uuid4()) for _ in range(199)]
    await store.books.update_one({"_id": book}, {"$set": {HANDLED: older}})
    for number, event in enumerate(events):
        await store.save(book, f"handled {number}", consuming=event)
    remembered = (await store.document(book))[HANDLED]
    assert remembered == [*older[2:], *(str(event.event_id) for event in events)]


async def test_a_unit_of_work_writes_one_document(store: Store) -> None:
    first, second = uuid4(), uuid4()

    async def work(tx: MongoTransaction) -> None:
        tx.insert(first, {"title": "first"}, title_taken)
        tx.insert(second, {"title": "second"}, title_taken)

    with pytest.raises(RuntimeError, match="writes one document"):
        await store.uow.run(work)
    assert await store.books.count_documents({}) == 0


async def test_events_need_a_document_to_go_with(store: Store) -> None:
    async def work(tx: MongoTransaction) -> None:
        tx.outbox.collect(Entity([store.payload(uuid4(), 1)]))

    with pytest.raises(RuntimeError, match="writes no document"):
        await store.uow.run(work)


async def test_nothing_is_written_when_nothing_is_saved(store: Store) -> None:
    book = uuid4()
    await store.add(book, "first")
    before = await store.document(book)
    await store.uow.run(lambda tx: read(tx, book))
    assert await store.document(book) == before
    assert store.woken == [book]
