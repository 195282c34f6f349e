"""Units of work on Redis: a key changes, with its events and the event that was handled, or nothing does."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from stoa_chassis import uow as uow_module
from stoa_chassis.avro import Event, EventCodec, new_event
from stoa_chassis.clock import SystemClock
from stoa_chassis.context import bound
from stoa_chassis.errors import Aborted
from stoa_chassis.inbox import AlreadyProcessed
from stoa_chassis.kafka import Producer
from stoa_chassis.redis import connect
from stoa_chassis.redis_outbox import RedisOutbox
from stoa_chassis.redis_uow import RedisTransaction, redis_unit_of_work
from stoa_chassis.uow import UnitOfWork

from .conftest import Entity, Noted, Notes

pytestmark = pytest.mark.stack
LIFETIME = timedelta(hours=1)


class NotesBusy(Aborted):
    """Others keep changing it."""


@dataclass
class Store:
    """Keys of its own, and units of work on them."""

    redis: Redis
    codec: EventCodec
    name: str
    payload: type[Noted]
    outbox: RedisOutbox
    uow: UnitOfWork[RedisTransaction]

    def key(self, book: UUID) -> str:
        return f"{self.name}:{book}"

    async def write(
        self, book: UUID, text: bytes, *events: Noted, consuming: Event[Noted] | None = None
    ) -> bytes:
        """Write a key and events; return what it held before."""

        async def work(tx: RedisTransaction) -> bytes:
            before = await tx.get(self.key(book), LIFETIME)
            tx.put(self.key(book), text, LIFETIME)
            tx.outbox.collect(Entity(list(events)))
            return before

        return await self.uow.run(work, consuming)

    async def text(self, book: UUID) -> bytes | None:
        return cast(bytes | None, await self.redis.get(self.key(book)))

    async def entries(self) -> list[tuple[bytes, dict[bytes, bytes]]]:
        found: Any = await self.redis.xrange(self.outbox.stream)
        return list(found)

    async def published(self) -> list[Noted]:
        events: list[Any] = [
            (await self.codec.decode(fields[b"topic"].decode(), fields[b"value"])).payload
            for _, fields in await self.entries()
        ]
        return events

    def event(self, book: UUID) -> Event[Noted]:
        return new_event(self.payload(book, 1), SystemClock(), "request")


@pytest.fixture
async def store(redis_url: str, notes: Notes, codec: EventCodec) -> AsyncIterator[Store]:
    name = f"test:{uuid4()}"
    async with connect(redis_url) as redis:
        outbox = RedisOutbox(redis, f"{name}:outbox", codec, Producer("127.0.0.1:1"))
        uow = redis_unit_of_work(redis, outbox, f"{name}:inbox", lambda tx: tx, NotesBusy)
        yield Store(redis, codec, name, notes.payload, outbox, uow)
        async for key in redis.scan_iter(f"{name}:*"):
            await redis.delete(key)


async def test_a_key_and_its_events_are_written_together(store: Store) -> None:
    book = uuid4()
    events = [store.payload(book, line) for line in (1, 2)]
    with bound("request-1"):
        assert await store.write(book, b"first", *events) == b""
    assert await store.write(book, b"second") == b"first"
    assert await store.text(book) == b"second"
    assert await store.published() == events
    [(_, fields), _] = await store.entries()
    assert b"request-1" in fields[b"headers"]


async def test_reading_a_key_and_writing_it_renew_its_life(store: Store) -> None:
    book = uuid4()
    key = store.key(book)
    await store.write(book, b"text")
    assert 3590 <= await store.redis.ttl(key) <= 3600
    for left, renewed in ((100, 3600), (3470, 3600), (3500, 3500)):
        await store.redis.expire(key, left)
        assert await store.uow.run(lambda tx: tx.get(key, LIFETIME)) == b"text"
        assert renewed - 10 <= await store.redis.ttl(key) <= renewed, "renewed when a thirtieth is over"


async def test_writing_nothing_deletes_a_key(store: Store) -> None:
    book = uuid4()
    await store.write(book, b"text")
    await store.write(book, b"", store.payload(book, 1))
    assert not await store.redis.exists(store.key(book))
    assert len(await store.published()) == 1


async def test_a_key_can_be_deleted_whatever_it_holds(store: Store) -> None:
    book = uuid4()

    async def delete(tx: RedisTransaction) -> None:
        tx.delete(store.key(book))

    for _ in range(2):
        await store.uow.run(delete)
        assert await store.text(book) is None
        await store.write(book, b"text")


async def test_a_unit_of_work_that_fails_changes_and_publishes_nothing(store: Store) -> None:
    book = uuid4()
    await store.write(book, b"text")

    async def fail(tx: RedisTransaction) -> None:
        await tx.get(store.key(book), LIFETIME)
        tx.put(store.key(book), b"changed", LIFETIME)
        tx.outbox.collect(Entity([store.payload(book, 1)]))
        raise LookupError

    with pytest.raises(LookupError):
        await store.uow.run(fail)
    assert await store.text(book) == b"text"
    assert await store.published() == []


async def test_who_was_overtaken_begins_again_with_what_the_other_wrote(store: Store) -> None:
    book, seen = uuid4(), list[bytes]()

    async def work(tx: RedisTransaction) -> None:
        seen.append(await tx.get(store.key(book), LIFETIME))
        if len(seen) <= 2:
            await store.write(book, f"theirs {len(seen)}".encode())
        tx.put(store.key(book), seen[-1] + b" and mine", LIFETIME)
        tx.outbox.collect(Entity([store.payload(book, 1)]))

    await store.uow.run(work)
    assert seen == [b"", b"theirs 1", b"theirs 2"]
    assert await store.text(book) == b"theirs 2 and mine"
    assert len(await store.published()) == 1


async def test_who_loses_again_and_again_is_told_so_in_the_service_s_own_word(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uow_module, "_PAUSES", (0,) * 11)
    book, tries = uuid4(), 0

    async def work(tx: RedisTransaction) -> None:
        nonlocal tries
        tries += 1
        await tx.get(store.key(book), LIFETIME)
        await store.redis.set(store.key(book), tries)
        tx.put(store.key(book), b"mine", LIFETIME)

    with pytest.raises(NotesBusy):
        await store.uow.run(work)
    assert await store.text(book) == b"12"


async def test_an_event_is_handled_once_and_remembered_for_30_days(store: Store) -> None:
    book = uuid4()
    event = store.event(book)
    await store.write(book, b"first", store.payload(book, 1), consuming=event)
    with pytest.raises(AlreadyProcessed):
        await store.write(book, b"again", store.payload(book, 2), consuming=event)
    assert await store.text(book) == b"first"
    assert len(await store.published()) == 1
    days = timedelta(seconds=await store.redis.ttl(f"{store.name}:inbox:{event.event_id}")).days
    assert days in (29, 30)


async def test_an_event_that_changes_nothing_is_remembered_too(store: Store) -> None:
    book = uuid4()

    async def look(tx: RedisTransaction) -> bytes:
        return await tx.get(store.key(book), LIFETIME)

    for text in (b"", b"text"):
        event = store.event(book)
        await store.uow.run(look, event)
        assert await store.text(book) == (text or None)
        with pytest.raises(AlreadyProcessed):
            await store.write(book, b"again", consuming=event)
        await store.write(book, b"text")


async def test_an_event_whose_handling_was_overtaken_is_handled_then(store: Store) -> None:
    book, event, tries = uuid4(), store.event(uuid4()), 0

    async def work(tx: RedisTransaction) -> None:
        nonlocal tries
        tries += 1
        before = await tx.get(store.key(book), LIFETIME)
        if tries == 1:
            await store.write(book, b"theirs")
        tx.put(store.key(book), before + b" handled", LIFETIME)

    await store.uow.run(work, event)
    assert (tries, await store.text(book)) == (2, b"theirs handled")


@pytest.mark.parametrize("text", [b"changed", b""], ids=["a change", "a deletion"])
async def test_a_script_that_is_sent_twice_takes_effect_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, text: bytes
) -> None:
    """As the client does when the connection breaks before the answer comes."""
    book = uuid4()
    await store.write(book, b"text")
    once = AsyncScript.__call__

    async def twice(script: AsyncScript, *arguments: Any, **options: Any) -> Any:
        await once(script, *arguments, **options)
        return await once(script, *arguments, **options)

    monkeypatch.setattr(AsyncScript, "__call__", twice)
    await store.write(book, text, store.payload(book, 1))
    assert await store.text(book) == (text or None)
    assert len(await store.published()) == 1
    with pytest.raises(AlreadyProcessed):  # the same to a consumer
        await store.write(book, b"handled", store.payload(book, 2), consuming=store.event(book))
    assert await store.text(book) == b"handled"
    assert len(await store.published()) == 2


async def test_a_unit_of_work_changes_one_key(store: Store) -> None:
    keys = [store.key(uuid4()) for _ in range(2)]

    async def work(tx: RedisTransaction) -> None:
        for key in keys:
            await tx.get(key, LIFETIME)
            tx.put(key, b"text", LIFETIME)

    with pytest.raises(RuntimeError, match="changes one key"):
        await store.uow.run(work)
    assert not await store.redis.exists(*keys)


async def test_events_need_a_change_to_go_with(store: Store) -> None:
    book = uuid4()
    await store.write(book, b"text")

    async def change_nothing(tx: RedisTransaction) -> None:
        tx.outbox.collect(Entity([store.payload(book, 1)]))

    async def delete(tx: RedisTransaction) -> None:
        tx.delete(store.key(book))
        tx.outbox.collect(Entity([store.payload(book, 1)]))

    for work in (change_nothing, delete):
        with pytest.raises(RuntimeError, match="writes no key"):
            await store.uow.run(work)
    assert await store.text(book) == b"text"


async def test_nothing_is_written_when_nothing_changed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    book, scripts, run = uuid4(), list[str](), AsyncScript.__call__
    await store.write(book, b"text")

    async def noted(script: AsyncScript, *arguments: Any, **options: Any) -> Any:
        scripts.append(str(script.script))
        return await run(script, *arguments, **options)

    monkeypatch.setattr(AsyncScript, "__call__", noted)
    assert await store.write(book, b"text") == b"text"
    await store.uow.run(lambda tx: tx.get(store.key(book), LIFETIME))
    assert len(scripts) == 2
    assert not any("SET" in script for script in scripts)


async def test_an_event_that_the_codec_does_not_know_is_not_lost_silently(store: Store) -> None:
    class Other(store.payload):  # type: ignore[name-defined,misc]
        TOPIC = "test.unknown"

    book = uuid4()
    with pytest.raises(LookupError, match=r"test\.unknown"):
        await store.write(book, b"text", Other(book, 1))
    assert await store.text(book) is None
