import asyncio
import os
import random
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import confluent_kafka
import pytest

from stoa_chassis import telemetry
from stoa_chassis.avro import Event, EventCodec
from stoa_chassis.context import bound
from stoa_chassis.errors import Aborted
from stoa_chassis.kafka import Producer, PublishFailed
from stoa_chassis.postgres import Database
from stoa_chassis.postgres_relay import OutboxRelay
from stoa_chassis.testing import eventually
from stoa_chassis.uow import UnitOfWork

pytestmark = pytest.mark.stack
Background = Callable[[Callable[[], Awaitable[None]]], "asyncio.Future[None]"]


async def write(uow: UnitOfWork[Any], notes: Any, book: UUID, lines: Iterable[int]) -> None:
    for line in lines:
        await uow.run(partial(_publish, notes.payload(book, line)))


async def _publish(payload: Any, tx: Any) -> None:
    await tx.publish(payload)


async def lines_of(codec: EventCodec, notes: Any) -> dict[UUID, list[int]]:
    """What is on the topic: the lines of each book, in order."""
    lines = defaultdict(list)
    for message in await notes.read():
        event: Event[Any] = await codec.decode(notes.topic, message.value())
        lines[event.payload.book].append(event.payload.line)
    return lines


async def unpublished(database: Database) -> int:
    count: int = await database.fetchval("SELECT count(*) FROM outbox WHERE published_at IS NULL")
    return count


async def test_what_commits_is_published_with_its_key_correlation_and_trace(
    uow: UnitOfWork[Any], notes: Any, codec: EventCodec, database: Database, producer: Producer,
    background: Background,
) -> None:  # fmt: skip
    telemetry.configure_tracing("test")
    background(OutboxRelay(database, producer).run)
    book = uuid4()
    with bound("request-1"), telemetry.span("request") as span:
        trace_id = f"{span.get_span_context().trace_id:032x}"
        await uow.run(
            lambda tx: tx.publish(notes.payload(book, 1, "first"), notes.payload(book, 2, "second"))
        )
    await eventually(lambda: _all_published(database))
    messages = await notes.read()
    events = [await codec.decode(notes.topic, message.value()) for message in messages]
    assert [event.payload for event in events] == [
        notes.payload(book, 1, "first"),
        notes.payload(book, 2, "second"),
    ]
    assert {event.correlation_id for event in events} == {"request-1"}
    assert {event.event_type for event in events} == {notes.topic}
    assert {message.key() for message in messages} == {str(book).encode()}
    headers = dict(messages[0].headers())
    assert headers["correlation_id"] == b"request-1"
    assert trace_id.encode() in headers["traceparent"]


async def _all_published(database: Database) -> bool:
    return await unpublished(database) == 0


async def test_what_rolls_back_is_not_published(
    uow: UnitOfWork[Any], notes: Any, database: Database, producer: Producer, background: Background,
    codec: EventCodec,
) -> None:  # fmt: skip
    background(OutboxRelay(database, producer).run)
    lost, kept = uuid4(), uuid4()

    async def fail(tx: Any) -> None:
        await tx.publish(notes.payload(lost, 1))
        raise LookupError

    with pytest.raises(LookupError):
        await uow.run(fail)
    await write(uow, notes, kept, [1])
    await eventually(lambda: lines_of(codec, notes))
    assert await lines_of(codec, notes) == {kept: [1]}


async def test_events_cost_one_statement_however_many_there_are(
    uow: UnitOfWork[Any], notes: Any, database: Database
) -> None:
    before = database.statements
    await uow.run(lambda tx: tx.publish(*(notes.payload(uuid4(), line) for line in range(50))))
    assert database.statements - before == 1
    await uow.run(lambda tx: tx.publish())
    assert database.statements - before == 1


async def test_an_event_that_no_broker_takes_is_refused_when_it_is_written(
    uow: UnitOfWork[Any], notes: Any
) -> None:
    with pytest.raises(ValueError, match="too big"):
        await uow.run(lambda tx: tx.publish(notes.payload(uuid4(), 1, "x" * 1_000_000)))


async def test_two_relays_at_once_publish_each_event_once_and_in_order(
    uow: UnitOfWork[Any], notes: Any, database: Database, producer: Producer, kafka_bootstrap: str,
    background: Background, codec: EventCodec,
) -> None:  # fmt: skip
    async with Producer(kafka_bootstrap) as other:
        background(OutboxRelay(database, producer).run)
        background(OutboxRelay(database, other).run)
        books = [uuid4() for _ in range(5)]
        await asyncio.gather(*(write(uow, notes, book, range(40)) for book in books))
        await eventually(lambda: _all_published(database))
        assert await lines_of(codec, notes) == {book: list(range(40)) for book in books}


async def test_when_the_active_relay_loses_its_connection_the_other_takes_over(
    uow: UnitOfWork[Any], notes: Any, database: Database, producer: Producer, background: Background,
    codec: EventCodec,
) -> None:  # fmt: skip
    for _ in range(2):
        background(OutboxRelay(database, producer).run)
    book = uuid4()
    for line in range(6):
        await write(uow, notes, book, [line])
        await eventually(lambda: _all_published(database), 10)
        killed = await database.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        assert killed == 1
    assert await lines_of(codec, notes) == {book: list(range(6))}


async def test_an_outage_of_the_broker_loses_nothing_and_keeps_the_order(
    uow: UnitOfWork[Any], notes: Any, database: Database, kafka_bootstrap: str, background: Background,
    codec: EventCodec, proxy: Callable[[str], Awaitable[Any]],
) -> None:  # fmt: skip
    network = await proxy(kafka_bootstrap)
    book = uuid4()
    async with Producer(network.address) as cut_off:
        background(OutboxRelay(database, cut_off).run)
        await write(uow, notes, book, range(10))
        await eventually(lambda: _all_published(database))
        for round_ in range(1, 4):
            await network.cut()
            await write(uow, notes, book, range(10 * round_, 10 * round_ + 10))
            assert await unpublished(database) > 0
            await network.restore()
            await eventually(lambda: _all_published(database), 60)
    assert await lines_of(codec, notes) == {book: list(range(40))}


async def test_an_outage_of_the_database_does_not_end_the_relay(
    empty_database: str, no_migrations: Path, codec: EventCodec, notes: Any, producer: Producer,
    background: Background, proxy: Callable[[str], Awaitable[Any]], database: Database, uow: UnitOfWork[Any],
) -> None:  # fmt: skip
    address = empty_database.split("@")[-1].split("/")[0]
    network = await proxy(address)
    async with Database.connect(empty_database.replace(address, network.address)) as cut_off:
        relay = background(OutboxRelay(cut_off, producer).run)
        book = uuid4()
        await write(uow, notes, book, [0])
        await eventually(lambda: _all_published(database))
        await network.cut()
        await write(uow, notes, book, [1])
        await asyncio.sleep(0.5)
        assert not relay.done()
        await network.restore()
        await eventually(lambda: _all_published(database))
    assert await lines_of(codec, notes) == {book: [0, 1]}


@pytest.mark.slow
async def test_a_relay_that_is_killed_again_and_again_loses_nothing_and_keeps_the_order(
    uow: UnitOfWork[Any], notes: Any, database: Database, empty_database: str, kafka_bootstrap: str,
    codec: EventCodec,
) -> None:  # fmt: skip
    books = [uuid4() for _ in range(4)]

    async def write_slowly(book: UUID) -> None:
        for line in range(100):
            await write(uow, notes, book, [line])
            await asyncio.sleep(0.04)

    writing = asyncio.gather(*(write_slowly(book) for book in books))
    environment = {**os.environ, "DATABASE_URL": empty_database, "KAFKA": kafka_bootstrap}
    program = Path(__file__).with_name("relay_process.py")
    while True:
        relay = await asyncio.create_subprocess_exec(sys.executable, str(program), env=environment)
        await asyncio.sleep(random.uniform(1.2, 2))
        if writing.done():
            break
        relay.kill()
        await relay.wait()
    await writing
    await eventually(lambda: _all_published(database))
    relay.kill()
    await relay.wait()
    published = await lines_of(codec, notes)
    for book in books:
        # At least once, and whatever was new came in order: dict.fromkeys keeps first occurrences.
        assert list(dict.fromkeys(published[book])) == list(range(100))


async def test_published_events_and_handled_ones_are_forgotten_in_time(
    uow: UnitOfWork[Any], notes: Any, database: Database, producer: Producer, background: Background
) -> None:
    await write(uow, notes, uuid4(), range(3))
    await database.execute("UPDATE outbox SET published_at = now() - interval '8 days' WHERE id = 1")
    await database.execute("UPDATE outbox SET published_at = now() - interval '6 days' WHERE id = 2")
    await database.execute(
        "INSERT INTO inbox VALUES (gen_random_uuid(), 't', now() - interval '31 days'),"
        " (gen_random_uuid(), 't', now() - interval '29 days')"
    )
    background(OutboxRelay(database, producer).run)
    await eventually(lambda: _rows(database, "outbox", 2))
    await eventually(lambda: _rows(database, "inbox", 1))


async def _rows(database: Database, table: str, count: int) -> bool:
    rows: int = await database.fetchval(f"SELECT count(*) FROM {table}")
    return rows == count


async def test_work_that_lost_against_a_concurrent_transaction_runs_again(
    uow: UnitOfWork[Any], notes: Any, database: Database
) -> None:
    await database.execute("CREATE TABLE shelf (id int PRIMARY KEY, n int)")
    await database.execute("INSERT INTO shelf VALUES (1, 0), (2, 0)")

    async def move(first: int, second: int, tx: Any) -> None:
        for ident in (first, second):
            await tx.connection.execute("UPDATE shelf SET n = n + 1 WHERE id = $1", ident)
            await asyncio.sleep(0.05)  # long enough for the other to take its first row: a deadlock
        await tx.publish(notes.payload(uuid4(), 1))

    await asyncio.gather(uow.run(lambda tx: move(1, 2, tx)), uow.run(lambda tx: move(2, 1, tx)))
    assert [row["n"] for row in await database.fetch("SELECT n FROM shelf")] == [2, 2]
    assert await unpublished(database) == 2


async def test_work_that_always_loses_is_aborted(uow: UnitOfWork[Any], database: Database) -> None:
    tries = 0

    async def lose(tx: Any) -> None:
        nonlocal tries
        tries += 1
        await tx.connection.execute("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")

    with pytest.raises(Aborted):
        await uow.run(lose)
    assert tries == 12


async def test_a_record_that_the_broker_refuses_does_not_stop_the_producer(
    producer: Producer, notes: Any
) -> None:
    with pytest.raises(Exception, match="large"):
        await producer.send(notes.topic, "k", b"x" * 2_000_000)
    await producer.send(notes.topic, "k", b"fine")
    messages: list[confluent_kafka.Message] = await notes.read()
    assert [message.value() for message in messages] == [b"fine"]


async def test_a_producer_looks_for_its_brokers_while_nothing_is_acknowledged(
    notes: Any, kafka_bootstrap: str, proxy: Callable[[str], Awaitable[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    class Observed(confluent_kafka.Producer):
        def list_topics(self, *arguments: Any, **options: Any) -> Any:
            looks.append(options["timeout"])
            return super().list_topics(*arguments, **options)

    monkeypatch.setattr(confluent_kafka, "Producer", Observed)
    network = await proxy(kafka_bootstrap)
    async with Producer(network.address) as producer:
        await producer.send(notes.topic, "key", b"before")
        await asyncio.sleep(0.5)
        looked = len(looks)
        await asyncio.sleep(0.5)
        assert len(looks) == looked  # nobody waits
        await network.cut()
        sending = asyncio.ensure_future(producer.send(notes.topic, "key", b"after"))
        await eventually(lambda: len(looks) >= looked + 3)
        assert not sending.done()
        await network.restore()
        await asyncio.wait_for(sending, 20)
    assert [message.value() for message in await notes.read()] == [b"before", b"after"]


async def test_a_producer_that_hears_nothing_from_a_broker_begins_anew_and_says_what_it_gave_up(
    notes: Any, kafka_bootstrap: str, proxy: Callable[[str], Awaitable[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stoa_chassis.kafka.producer._SILENT_SECONDS", 1.0)
    network = await proxy(kafka_bootstrap)
    async with Producer(network.address) as producer:
        await producer.send(notes.topic, "key", b"before")
        await network.cut()
        with pytest.raises(PublishFailed) as failure:
            await asyncio.wait_for(producer.send(notes.topic, "key", b"meanwhile"), 20)
        assert failure.value.acknowledged == []
        await network.restore()
        await asyncio.wait_for(producer.send(notes.topic, "key", b"after"), 20)
    assert [message.value() for message in await notes.read()] == [b"before", b"after"]
