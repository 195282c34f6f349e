import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis

from stoa_chassis import redis as redis_module
from stoa_chassis import redis_outbox
from stoa_chassis.avro import Event, EventCodec
from stoa_chassis.context import bound
from stoa_chassis.errors import Unavailable
from stoa_chassis.kafka import Producer, PublishFailed, Record
from stoa_chassis.outages import is_outage
from stoa_chassis.redis import OUTAGES, connect
from stoa_chassis.redis_outbox import LUA_PUBLISH, RedisOutbox
from stoa_chassis.testing import eventually

pytestmark = pytest.mark.stack
Background = Callable[[Callable[[], Awaitable[None]]], "asyncio.Future[None]"]

_WRITE = LUA_PUBLISH + "redis.call('SET', KEYS[1], ARGV[1]) publish(KEYS[2], 2)"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Relays notice sooner that another one is gone."""
    monkeypatch.setattr(redis_outbox, "_BLOCK_SECONDS", 0.4)
    monkeypatch.setattr(redis_outbox, "_RENEW_SECONDS", 0.2)
    monkeypatch.setattr(redis_outbox, "_STANDBY_SECONDS", 0.2)
    monkeypatch.setattr(redis_outbox, "_LEASE_SECONDS", 1.2)


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with connect(redis_url) as client:
        yield client


@pytest.fixture
async def stream(redis: Redis) -> AsyncIterator[str]:
    """The name of a stream that only this test uses."""
    name = f"test:outbox:{uuid4()}"
    yield name
    await redis.delete(name, f"{name}:relay", f"{name}:book")


@pytest.fixture
def outbox(redis: Redis, stream: str, codec: EventCodec, producer: Producer) -> RedisOutbox:
    return RedisOutbox(redis, stream, codec, producer)


async def write(redis: Redis, outbox: RedisOutbox, payloads: list[Any]) -> None:
    """Change a key and add events, in one script."""
    script = redis.register_script(_WRITE)
    await script(keys=[f"{outbox.stream}:book", outbox.stream], args=["new", *outbox.arguments(payloads)])


async def is_empty(redis: Redis, stream: str) -> bool:
    return not await redis.xlen(stream)


async def lines_of(codec: EventCodec, notes: Any, book: UUID) -> list[int]:
    events: list[Event[Any]] = [
        await codec.decode(notes.topic, message.value()) for message in await notes.read()
    ]
    return [event.payload.line for event in events if event.payload.book == book]


def first_times(lines: list[int]) -> list[int]:
    return list(dict.fromkeys(lines))


async def test_events_of_a_change_are_published_at_once_with_their_correlation_and_then_forgotten(
    redis: Redis, outbox: RedisOutbox, notes: Any, codec: EventCodec, background: Background,
) -> None:  # fmt: skip
    background(outbox.run)
    await eventually(lambda: redis.exists(f"{outbox.stream}:relay"))
    book = uuid4()
    with bound("request-1"):
        await write(redis, outbox, [notes.payload(book, line) for line in (1, 2)])
    await eventually(lambda: is_empty(redis, outbox.stream), 5)
    assert await redis.get(f"{outbox.stream}:book") == b"new"
    assert await lines_of(codec, notes, book) == [1, 2]
    [message, _] = await notes.read()
    assert dict(message.headers())["correlation_id"] == b"request-1"
    assert message.key() == str(book).encode()


async def test_what_a_dead_process_left_behind_is_published_by_the_next(
    redis: Redis, outbox: RedisOutbox, notes: Any, codec: EventCodec, background: Background,
) -> None:  # fmt: skip
    book = uuid4()
    await write(redis, outbox, [notes.payload(book, 1)])
    await redis.set(f"{outbox.stream}:relay", "the lease of the dead one", px=1200)
    background(outbox.run)
    await eventually(lambda: is_empty(redis, outbox.stream))
    assert await lines_of(codec, notes, book) == [1]


async def test_of_several_relays_one_publishes_each_event_once_and_in_order(
    redis: Redis, outbox: RedisOutbox, notes: Any, codec: EventCodec, producer: Producer,
    background: Background,
) -> None:  # fmt: skip
    for _ in range(3):
        background(RedisOutbox(redis, outbox.stream, codec, producer).run)
    book = uuid4()
    for line in range(40):
        await write(redis, outbox, [notes.payload(book, line)])
    await eventually(lambda: is_empty(redis, outbox.stream))
    assert await lines_of(codec, notes, book) == list(range(40))


async def test_a_relay_that_ends_lets_the_next_one_in_without_waiting_for_its_lease(
    redis: Redis, outbox: RedisOutbox, notes: Any, background: Background,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(redis_outbox, "_LEASE_SECONDS", 600)
    await write(redis, outbox, [notes.payload(uuid4(), 1)])
    first = background(outbox.run)
    await eventually(lambda: is_empty(redis, outbox.stream), 5)
    first.cancel()
    await asyncio.wait([first])
    await write(redis, outbox, [notes.payload(uuid4(), 1)])
    background(outbox.run)
    await eventually(lambda: is_empty(redis, outbox.stream), 5)


async def test_a_relay_that_was_overtaken_repeats_events_at_most_and_swaps_none(
    redis: Redis, outbox: RedisOutbox, notes: Any, codec: EventCodec, producer: Producer,
    background: Background,
) -> None:  # fmt: skip
    for _ in range(2):
        background(RedisOutbox(redis, outbox.stream, codec, producer).run)
    book = uuid4()
    for line in range(60):
        await write(redis, outbox, [notes.payload(book, line)])
        if line % 15 == 0:  # as if the process had been stopped for longer than its lease
            await redis.delete(f"{outbox.stream}:relay")
            await asyncio.sleep(0.3)
    await eventually(lambda: is_empty(redis, outbox.stream))
    assert first_times(await lines_of(codec, notes, book)) == list(range(60))


async def test_an_outage_of_the_broker_loses_nothing_and_the_lease_is_kept(
    redis: Redis, stream: str, notes: Any, codec: EventCodec, background: Background,
    proxy: Callable[[str], Awaitable[Any]],
) -> None:  # fmt: skip
    network = await proxy(notes.bootstrap)
    async with Producer(network.address) as cut_off:
        outbox = RedisOutbox(redis, stream, codec, cut_off)
        background(outbox.run)
        book = uuid4()
        await network.cut()
        await write(redis, outbox, [notes.payload(book, 1)])
        await asyncio.sleep(2)
        assert not await is_empty(redis, stream)
        assert await redis.exists(f"{stream}:relay")
        await network.restore()
        await eventually(lambda: is_empty(redis, stream), 30)
        assert await lines_of(codec, notes, book) == [1]


async def test_an_outage_of_redis_is_waited_out(
    redis: Redis, redis_url: str, outbox: RedisOutbox, notes: Any, codec: EventCodec, producer: Producer,
    background: Background, proxy: Callable[[str], Awaitable[Any]],
) -> None:  # fmt: skip
    account, address = redis_url.rsplit("@", 1)
    address, database = address.split("/")
    network = await proxy(address)
    async with connect(f"{account}@{network.address}/{database}") as unsteady:
        background(RedisOutbox(unsteady, outbox.stream, codec, producer).run)
        await eventually(lambda: redis.exists(f"{outbox.stream}:relay"))
        await network.cut()
        with pytest.raises(OUTAGES) as failed:
            await unsteady.get("x")
        assert is_outage(failed.value)
        book = uuid4()
        await write(redis, outbox, [notes.payload(book, 1)])
        await network.restore()
        await eventually(lambda: is_empty(redis, outbox.stream))
        assert first_times(await lines_of(codec, notes, book)) == [1]
        assert await unsteady.ping()


async def test_events_that_the_broker_refuses_stay_and_the_others_go(
    redis: Redis, stream: str, notes: Any, codec: EventCodec, background: Background
) -> None:
    sent: list[bytes | None] = []

    class Fussy(Producer):
        """A broker that refuses the first event of the first batch."""

        async def send_batch(self, records: Any) -> None:
            batch: list[Record] = list(records)
            taken = batch if sent else batch[1:]
            sent.extend(record.value for record in taken)
            if len(taken) < len(batch):
                raise PublishFailed("no", range(1, len(batch)))

    outbox = RedisOutbox(redis, stream, codec, Fussy("127.0.0.1:1"))
    await write(redis, outbox, [notes.payload(uuid4(), line) for line in (1, 2, 3)])
    background(outbox.run)
    await eventually(lambda: is_empty(redis, stream))
    events: list[Event[Any]] = [await codec.decode(notes.topic, value or b"") for value in sent]
    assert [event.payload.line for event in events] == [2, 3, 1]


async def test_events_that_come_close_together_are_published_together(
    redis: Redis, stream: str, notes: Any, codec: EventCodec, background: Background,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(redis_outbox, "_PACE_SECONDS", 1)
    batches: list[int] = []

    class Counting(Producer):
        """A broker that acknowledges at once."""

        async def send_batch(self, records: Any) -> None:
            batches.append(len(records))

    outbox = RedisOutbox(redis, stream, codec, Counting("127.0.0.1:1"))
    await write(redis, outbox, [notes.payload(uuid4(), 1)])
    background(outbox.run)
    await eventually(lambda: batches == [1])
    for line in (2, 3, 4):
        await write(redis, outbox, [notes.payload(uuid4(), line)])
    await eventually(lambda: batches == [1, 3])


async def test_an_idle_relay_asks_redis_less_than_once_a_second(
    redis: Redis, outbox: RedisOutbox, background: Background,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.undo()
    asked: list[Any] = []

    execute: Any = redis.execute_command

    async def count(*command: Any, **options: Any) -> Any:
        asked.append(command)
        return await execute(*command, **options)

    monkeypatch.setattr(redis, "execute_command", count)
    background(outbox.run)
    await eventually(lambda: asked)
    await asyncio.sleep(9)
    assert 4 <= len(asked) <= 9


async def test_a_server_that_is_not_there_at_the_start_is_reported_as_unavailable() -> None:
    with pytest.raises(Unavailable):
        async with connect("redis://127.0.0.1:1", connect_timeout=0.2):
            pass


async def test_more_calls_at_once_than_connections_wait_for_one(redis_url: str) -> None:
    async with connect(redis_url, pool_size=3) as redis:
        assert await asyncio.gather(*(redis.ping() for _ in range(200))) == [True] * 200


async def test_a_command_without_an_answer_is_given_up_in_time_and_so_is_one_that_waits_for_its_connection(
    redis_url: str, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connect(redis_url, pool_size=1) as redis:
        monkeypatch.setattr(redis_module, "COMMAND_SECONDS", 0.2)
        waiting: list[Any] = [redis.blpop([stream], timeout=30), redis.ping()]
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(outcome, OUTAGES)
        assert await redis.echo("the answer to this command") == b"the answer to this command"
