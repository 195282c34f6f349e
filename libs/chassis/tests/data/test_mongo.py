import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection

from stoa_chassis.avro import Event, EventCodec
from stoa_chassis.context import bound
from stoa_chassis.kafka import Producer
from stoa_chassis.mongo import MongoOutbox
from stoa_chassis.testing import eventually

pytestmark = pytest.mark.stack
Background = Callable[[Callable[[], Awaitable[None]]], "asyncio.Future[None]"]
Collection = AsyncCollection[dict[str, Any]]


@pytest.fixture
async def books(mongo_url: str) -> AsyncIterator[Collection]:
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongo_url, uuidRepresentation="standard")
    name = f"test_{uuid4().hex}"
    yield await client[name].create_collection("books")  # as a service has it before its relays start
    await client.drop_database(name)
    await client.close()


async def all_published(books: Collection) -> bool:
    return await books.count_documents({"_pending.0": {"$exists": True}}) == 0


async def lines_of(codec: EventCodec, notes: Any, book: UUID) -> list[int]:
    events: list[Event[Any]] = [
        await codec.decode(notes.topic, message.value()) for message in await notes.read()
    ]
    return [event.payload.line for event in events if event.payload.book == book]


async def test_events_of_a_written_document_are_published_at_once_with_their_correlation(
    books: Collection, notes: Any, codec: EventCodec, producer: Producer, background: Background
) -> None:
    outbox = MongoOutbox(books, codec, producer, sweep_seconds=60)
    background(outbox.run)
    book = uuid4()
    with bound("request-1"):
        entries = [outbox.pending(notes.payload(book, line)) for line in (1, 2)]
    await asyncio.sleep(0.3)
    await books.insert_one({"_id": str(book), "title": "t", "_pending": entries})
    outbox.wake(str(book))
    await eventually(lambda: all_published(books), 5)
    assert await lines_of(codec, notes, book) == [1, 2]
    [message, _] = await notes.read()
    assert dict(message.headers())["correlation_id"] == b"request-1"
    await eventually(lambda: _is(books, {"_id": str(book), "title": "t", "_pending": []}))


async def _is(books: Collection, document: dict[str, Any]) -> bool:
    return await books.find_one({"_id": document["_id"]}) == document


async def test_what_a_dead_process_left_behind_is_published_by_the_sweep(
    books: Collection, notes: Any, codec: EventCodec, producer: Producer, background: Background
) -> None:
    outbox = MongoOutbox(books, codec, producer, sweep_seconds=0.5)
    before, after = uuid4(), uuid4()
    await books.insert_one({"_id": before, "_pending": [outbox.pending(notes.payload(before, 1))]})
    background(outbox.run)
    await eventually(lambda: all_published(books))
    await books.insert_one({"_id": after, "_pending": [outbox.pending(notes.payload(after, 1))]})
    await eventually(lambda: all_published(books))
    assert await lines_of(codec, notes, before) == [1]
    assert await lines_of(codec, notes, after) == [1]


async def test_relays_of_several_processes_publish_a_document_s_events_once_and_in_order(
    books: Collection, notes: Any, codec: EventCodec, producer: Producer, background: Background
) -> None:
    relays = [MongoOutbox(books, codec, producer, sweep_seconds=0.3) for _ in range(3)]
    for relay in relays:
        background(relay.run)
    book = uuid4()
    await books.insert_one({"_id": book, "_pending": []})
    for line in range(30):
        writer = relays[line % 3]
        entry = writer.pending(notes.payload(book, line))
        await books.update_one({"_id": book}, {"$push": {"_pending": entry}})
        writer.wake(book)
    await eventually(lambda: all_published(books))
    assert await lines_of(codec, notes, book) == list(range(30))


async def test_an_outage_of_the_broker_loses_nothing(
    books: Collection, notes: Any, codec: EventCodec, background: Background,
    proxy: Callable[[str], Awaitable[Any]],
) -> None:  # fmt: skip
    network = await proxy(notes.bootstrap)
    async with Producer(network.address) as cut_off:
        outbox = MongoOutbox(books, codec, cut_off, sweep_seconds=0.5)
        background(outbox.run)
        book = uuid4()
        await network.cut()
        await books.insert_one({"_id": book, "_pending": [outbox.pending(notes.payload(book, 1))]})
        outbox.wake(book)
        await asyncio.sleep(0.5)
        assert not await all_published(books)
        await network.restore()
        await eventually(lambda: all_published(books), 30)
        assert set(await lines_of(codec, notes, book)) == {1}
