import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import confluent_kafka
import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from opentelemetry import trace

from stoa_chassis import telemetry
from stoa_chassis.avro import Event, EventCodec, new_event
from stoa_chassis.clock import SystemClock
from stoa_chassis.context import correlation_id
from stoa_chassis.errors import NotFound, Unavailable
from stoa_chassis.kafka import (
    Consumer,
    DeadLetter,
    Membership,
    OutOfGroup,
    Producer,
    RetryPolicy,
    original_headers,
    replay_headers,
)
from stoa_chassis.outages import is_outage
from stoa_chassis.postgres import Database
from stoa_chassis.postgres_uow import postgres_unit_of_work
from stoa_chassis.testing import eventually
from stoa_chassis.uow import UnitOfWork

pytestmark = pytest.mark.stack
Background = Callable[[Callable[[], Awaitable[None]]], "asyncio.Future[None]"]
Handler = Callable[[Event[Any]], Awaitable[None]]
PATIENT = Membership(session_seconds=30)  # nobody is taken for dead, however busy the machine is
SHORT_PAUSES = RetryPolicy(tries=3, first_pause=0.02, longest_pause=0.05, longest_outage_pause=0.05)


class Shop:
    """A topic with somebody who publishes to it and consumers of one group."""

    def __init__(self, notes: Any, codec: EventCodec, producer: Producer, background: Background) -> None:
        self.notes, self.codec, self.producer, self._background = notes, codec, producer, background

    def consume(
        self,
        handler: Handler,
        retry: RetryPolicy = SHORT_PAUSES,
        bootstrap: str = "",
        membership: Membership = PATIENT,
    ) -> "asyncio.Future[None]":
        consumer = Consumer(
            self.notes.group,
            bootstrap or self.notes.bootstrap,
            {self.notes.payload: handler},
            self.codec,
            self.producer,
            retry,
            membership=membership,
        )
        return self._background(consumer.run)

    async def publish(self, book: UUID, *lines: int, correlation: str = "c") -> list[Event[Any]]:
        events = [new_event(self.notes.payload(book, line), SystemClock(), correlation) for line in lines]
        for event in events:
            headers = {"correlation_id": correlation, **telemetry.trace_headers()}
            await self.producer.send(self.notes.topic, event.payload.key, self.codec.encode(event), headers)
        return events

    async def dead_letters(self) -> list[DeadLetter]:
        messages = await self.notes.read(self.notes.dead_letters)
        return [DeadLetter.from_headers(headers_of(message)) for message in messages]


def headers_of(message: Any) -> dict[str, str]:
    return {name: value.decode() for name, value in message.headers()}


@pytest.fixture
def shop(notes: Any, codec: EventCodec, producer: Producer, background: Background) -> Shop:
    return Shop(notes, codec, producer, background)


async def test_a_handler_gets_the_event_with_its_correlation_and_trace(shop: Shop) -> None:
    telemetry.configure_tracing("test")
    handled: list[tuple[Event[Any], str, int]] = []

    async def handle(event: Event[Any]) -> None:
        span = trace.get_current_span().get_span_context()
        handled.append((event, correlation_id(), span.trace_id))

    shop.consume(handle)
    with telemetry.span("request") as span:
        [event] = await shop.publish(uuid4(), 1, correlation="request-1")
    await eventually(lambda: handled)
    assert handled == [(event, "request-1", span.get_span_context().trace_id)]


async def test_fresh_messages_are_handled_at_once_although_idle_fetches_wait_for_seconds(shop: Shop) -> None:
    handled: dict[UUID, float] = {}
    now = asyncio.get_running_loop().time

    async def handle(event: Event[Any]) -> None:
        handled[event.event_id] = now()

    shop.consume(handle)
    await shop.publish(uuid4(), 0)
    await eventually(lambda: handled)
    delays = []
    for line in range(5):
        await asyncio.sleep(0.3)
        sent = now()
        [event] = await shop.publish(uuid4(), line)
        await eventually(partial(handled.__contains__, event.event_id))
        delays.append(handled[event.event_id] - sent)
    assert sorted(delays)[2] < 0.25


async def test_what_was_handled_is_not_delivered_again_after_a_restart(shop: Shop) -> None:
    handled: list[int] = []

    async def handle(event: Event[Any]) -> None:
        handled.append(event.payload.line)

    first = shop.consume(handle)
    await shop.publish(uuid4(), 1, 2, 3)
    await eventually(lambda: len(handled) == 3)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    shop.consume(handle)
    await shop.publish(uuid4(), 4)
    await eventually(lambda: 4 in handled)
    assert sorted(handled) == [1, 2, 3, 4]


async def test_what_was_not_handled_is_delivered_again_after_a_restart(shop: Shop) -> None:
    begun: list[int] = []

    async def never_end(event: Event[Any]) -> None:
        begun.append(event.payload.line)
        await asyncio.Event().wait()

    first = shop.consume(never_end)
    await shop.publish(uuid4(), 1)
    await eventually(lambda: begun)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    handled: list[int] = []

    async def handle(event: Event[Any]) -> None:
        handled.append(event.payload.line)

    shop.consume(handle)
    await eventually(lambda: handled)


async def test_a_stop_lets_a_running_handler_finish_and_commits_it(shop: Shop, notes: Any) -> None:
    begun = asyncio.Event()
    finished: list[int] = []

    async def take_a_second(event: Event[Any]) -> None:
        begun.set()
        await asyncio.sleep(1)
        finished.append(event.payload.line)

    consumer = shop.consume(take_a_second)
    await shop.publish(uuid4(), 1)
    await begun.wait()
    consumer.cancel()
    await asyncio.gather(consumer, return_exceptions=True)
    assert finished == [1]
    assert await notes.committed() == 1


async def test_an_event_that_comes_twice_has_its_effect_once(
    shop: Shop, database: Database, uow: UnitOfWork[Any], notes: Any
) -> None:
    await database.execute("CREATE TABLE effects (line int)")
    calls = 0

    async def handle(event: Event[Any]) -> None:
        nonlocal calls
        calls += 1
        await uow.run(
            lambda tx: tx.connection.execute("INSERT INTO effects VALUES ($1)", event.payload.line), event
        )

    shop.consume(handle)
    [event] = await shop.publish(uuid4(), 7)
    await shop.producer.send(notes.topic, event.payload.key, shop.codec.encode(event))
    await eventually(lambda: calls == 2)
    await eventually(lambda: _committed(notes, 2))
    assert await database.fetchval("SELECT count(*) FROM effects") == 1
    assert await shop.dead_letters() == []


async def _committed(notes: Any, count: int) -> bool:
    committed: int = await notes.committed()
    return committed == count


async def test_a_handler_that_keeps_failing_is_retried_then_parked_and_the_next_is_handled(
    shop: Shop, notes: Any
) -> None:
    tries: dict[int, int] = defaultdict(int)

    async def handle(event: Event[Any]) -> None:
        tries[event.payload.line] += 1
        if event.payload.line == 1:
            raise RuntimeError("no such shelf, password at postgresql://order:hunter2@db/order")

    shop.consume(handle)
    book = uuid4()
    [bad, _] = await shop.publish(book, 1, 2, correlation="request-9")
    await eventually(lambda: tries[2])
    assert tries == {1: 3, 2: 1}
    [message] = await notes.read(notes.dead_letters)
    assert (message.key(), message.value()) == (str(book).encode(), shop.codec.encode(bad))
    letter = DeadLetter.from_headers(headers_of(message))
    assert letter.topic == notes.topic
    assert letter.offset == 0
    assert letter.error == "builtins.RuntimeError"
    assert letter.reason.startswith("no such shelf")
    assert "in handle" in letter.traceback
    assert "hunter2" not in letter.reason + letter.traceback
    assert original_headers(headers_of(message)) == {"correlation_id": "request-9"}
    await eventually(lambda: _committed(notes, 2))


async def test_a_domain_error_is_parked_with_its_reason(shop: Shop) -> None:
    async def handle(event: Event[Any]) -> None:
        raise NotFound("no such order")

    shop.consume(handle)
    await shop.publish(uuid4(), 1)
    [letter] = await eventually(shop.dead_letters)
    assert (letter.error, letter.reason) == ("stoa_chassis.errors.NotFound", "no such order")


@pytest.mark.parametrize(
    "poison", [b"", b"{}", b"\x00\x7f\xff\xff\xff\x00", b"\x00\x00\x00\x00\x01", None, b"\xff" * 50]
)
async def test_poison_is_parked_at_once_and_the_next_is_handled(
    shop: Shop, notes: Any, poison: bytes | None
) -> None:
    handled: list[int] = []

    async def handle(event: Event[Any]) -> None:
        handled.append(event.payload.line)

    long_pauses = RetryPolicy(first_pause=60, longest_pause=60, longest_outage_pause=60)
    shop.consume(handle, long_pauses)
    book = uuid4()
    await shop.producer.send(notes.topic, str(book), poison)
    await shop.publish(book, 1)
    await eventually(lambda: handled)
    [message] = await notes.read(notes.dead_letters)
    assert message.value() == poison
    assert DeadLetter.from_headers(headers_of(message)).error == "stoa_chassis.avro.UndecodableMessage"


async def test_a_dead_letter_that_is_replayed_to_another_group_is_passed_over(shop: Shop, notes: Any) -> None:
    handled: list[int] = []

    async def handle(event: Event[Any]) -> None:
        handled.append(event.payload.line)

    shop.consume(handle)
    book = uuid4()
    for group, line in (("somebody-else", 1), (notes.group, 2)):
        event = new_event(notes.payload(book, line), SystemClock(), "c")
        headers = replay_headers({"dlq.reason": "it was full", "correlation_id": "c"}, group)
        await shop.producer.send(notes.topic, str(book), shop.codec.encode(event), headers)
    await eventually(lambda: handled)
    assert handled == [2]
    await eventually(lambda: _committed(notes, 2))


async def test_retries_and_a_replayed_dead_letter_keep_the_correlation_id(shop: Shop, notes: Any) -> None:
    seen: list[str] = []
    broken = True

    async def handle(event: Event[Any]) -> None:
        seen.append(correlation_id())
        if broken:
            raise RuntimeError("no such shelf")

    shop.consume(handle)
    await shop.publish(uuid4(), 1, correlation="request-1")
    [letter] = await eventually(lambda: notes.read(notes.dead_letters))
    broken = False
    headers = replay_headers(headers_of(letter), notes.group)
    await shop.producer.send(notes.topic, letter.key(), letter.value(), headers)
    await eventually(lambda: len(seen) > SHORT_PAUSES.tries)
    assert seen == ["request-1"] * (SHORT_PAUSES.tries + 1)
    assert headers["correlation_id"] == "request-1"


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("payment is down"),
        ConnectionRefusedError("no broker"),
        asyncpg.CannotConnectNowError("the database system is starting up"),
        TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_while_something_needed_is_down_messages_wait_and_are_never_parked(
    shop: Shop, error: Exception
) -> None:
    tries, handled = 0, []

    async def handle(event: Event[Any]) -> None:
        nonlocal tries
        tries += 1
        if tries <= 20:
            raise error
        handled.append(event.payload.line)

    retry = RetryPolicy(tries=1, first_pause=0.01, longest_outage_pause=0.02)
    shop.consume(handle, retry)
    await shop.publish(uuid4(), 1, 2)
    await eventually(lambda: handled == [1, 2])
    assert await shop.dead_letters() == []


async def test_a_lost_database_is_waited_for(
    shop: Shop, empty_database: str, database: Database, codec: EventCodec, notes: Any,
    proxy: Callable[[str], Awaitable[Any]],
) -> None:  # fmt: skip
    await database.execute("CREATE TABLE effects (line int)")
    address = empty_database.split("@")[-1].split("/")[0]
    network = await proxy(address)
    async with Database.connect(empty_database.replace(address, network.address)) as cut_off:
        uow = postgres_unit_of_work(cut_off, codec, lambda connection, _: connection, SystemClock())

        async def handle(event: Event[Any]) -> None:
            statement = "INSERT INTO effects VALUES ($1)"
            await uow.run(lambda connection: connection.execute(statement, event.payload.line), event)

        shop.consume(handle)
        book = uuid4()
        await shop.publish(book, 1)
        await eventually(lambda: _effects(database, [1]))
        await network.cut()
        await shop.publish(book, 2, 3)
        await asyncio.sleep(1)
        assert await _effects(database, [1])
        await network.restore()
        await eventually(lambda: _effects(database, [1, 2, 3]))
    assert await shop.dead_letters() == []


async def _effects(database: Database, lines: list[int]) -> bool:
    return [row["line"] for row in await database.fetch("SELECT line FROM effects")] == lines


async def test_an_outage_of_the_broker_is_survived(
    shop: Shop, notes: Any, proxy: Callable[[str], Awaitable[Any]]
) -> None:
    network = await proxy(notes.bootstrap)
    handled: list[int] = []

    async def handle(event: Event[Any]) -> None:
        handled.append(event.payload.line)

    shop.consume(handle, bootstrap=network.address)
    book = uuid4()
    await shop.publish(book, 1)
    await eventually(lambda: handled == [1])
    await network.cut()
    await shop.publish(book, 2)
    await asyncio.sleep(1)
    await network.restore()
    await eventually(lambda: list(dict.fromkeys(handled)) == [1, 2], 60)


async def test_a_client_that_is_in_no_group_any_more_gives_way_to_a_new_one(
    shop: Shop, proxy: Callable[[str], Awaitable[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stoa_chassis.kafka.consumer._OUTSIDE_SECONDS", 3.0)
    monkeypatch.setattr("stoa_chassis.kafka.consumer._STATISTICS_SECONDS", 0.5)
    network = await proxy(shop.notes.bootstrap)
    handled: list[int] = []

    async def handle(event: Event[Any]) -> None:
        handled.append(event.payload.line)

    cut_off = shop.consume(handle, bootstrap=network.address, membership=Membership(session_seconds=1))
    await shop.publish(uuid4(), 1)
    await eventually(lambda: handled == [1])
    await network.cut()
    with pytest.raises(OutOfGroup, match=f"not a member of {shop.notes.group}") as caught:
        await asyncio.wait_for(cut_off, 30)
    assert is_outage(caught.value)  # which is what has it start again soon


async def test_who_wants_a_place_asks_when_the_coordinator_has_read_its_groups(
    shop: Shop, proxy: Callable[[str], Awaitable[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = KafkaException(KafkaError(KafkaError.NOT_COORDINATOR))
    asked: list[str] = []

    class OfABrokerThatJustStarted(confluent_kafka.Consumer):
        def __init__(self, config: dict[str, Any]) -> None:
            super().__init__(config)
            self.refusals = 5

        def committed(self, *arguments: Any, **options: Any) -> list[TopicPartition]:
            if self.refusals:
                self.refusals -= 1
                asked.append("refused")
                raise refused
            found = super().committed(*arguments, **options)
            asked.append("answered")
            return found

        def subscribe(self, *arguments: Any, **options: Any) -> None:
            asked.append("joins")
            super().subscribe(*arguments, **options)

    monkeypatch.setattr(confluent_kafka, "Consumer", OfABrokerThatJustStarted)
    network = await proxy(shop.notes.bootstrap)
    handled: list[int] = []

    async def handle(event: Event[Any]) -> None:
        handled.append(event.payload.line)

    member = Membership("the-only", session_seconds=3)
    consuming = shop.consume(handle, bootstrap=network.address, membership=member)
    await shop.publish(uuid4(), 1)
    await eventually(lambda: 1 in handled)
    first = ["refused"] * 5 + ["answered", "joins"]
    assert asked == first
    await network.cut()
    await eventually(lambda: len(asked) == len(first) + 5)  # it has lost its place, and nobody can be asked
    await shop.publish(uuid4(), 2)
    await asyncio.sleep(1)
    assert len(asked) == len(first) + 5
    await network.restore()
    await eventually(lambda: 2 in handled)
    assert asked == first * 2
    assert not consuming.done()


async def test_a_member_that_has_nothing_to_do_stays_one(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stoa_chassis.kafka.consumer._OUTSIDE_SECONDS", 3.0)
    monkeypatch.setattr("stoa_chassis.kafka.consumer._STATISTICS_SECONDS", 0.5)
    handled: list[int] = []

    async def handle(event: Event[Any]) -> None:
        handled.append(event.payload.line)

    idle = shop.consume(handle, membership=Membership("the-only", session_seconds=1))
    await asyncio.sleep(6)
    assert not idle.done()
    await shop.publish(uuid4(), 1)
    await eventually(lambda: handled == [1])


async def test_events_of_a_key_are_handled_in_order_while_some_of_them_fail(shop: Shop) -> None:
    failed: set[tuple[UUID, int]] = set()
    handled: dict[UUID, list[int]] = defaultdict(list)

    async def handle(event: Event[Any]) -> None:
        book, line = event.payload.book, event.payload.line
        await asyncio.sleep(0.001 * (line % 3))
        if line % 4 == 0 and (book, line) not in failed:
            failed.add((book, line))
            raise RuntimeError("once")
        handled[book].append(line)

    books = [uuid4() for _ in range(6)]
    await asyncio.gather(*(shop.publish(book, *range(20)) for book in books))
    shop.consume(handle)
    await eventually(lambda: sum(map(len, handled.values())) == 120)
    assert handled == {book: list(range(20)) for book in books}


async def test_a_message_that_is_stuck_does_not_hold_up_other_partitions(shop: Shop, notes: Any) -> None:
    handled: set[UUID] = set()
    stuck = uuid4()

    async def handle(event: Event[Any]) -> None:
        if event.payload.book == stuck:
            raise Unavailable("payment is down")
        handled.add(event.payload.book)

    shop.consume(handle)
    await shop.publish(stuck, 1)
    books = [uuid4() for _ in range(20)]
    await asyncio.gather(*(shop.publish(book, 1) for book in books))
    partition = {message.key(): message.partition() for message in await notes.read()}
    free = {book for book in books if partition[str(book).encode()] != partition[str(stuck).encode()]}
    await eventually(lambda: handled == free)


async def test_a_backlog_behind_a_stuck_message_is_worked_off_in_order_when_it_gets_loose(
    shop: Shop, notes: Any
) -> None:
    down, handled = True, []

    async def handle(event: Event[Any]) -> None:
        if down:
            raise Unavailable("payment is down")
        handled.append(event.payload.line)

    shop.consume(handle)
    book = uuid4()
    await shop.publish(book, 0)
    values = [
        shop.codec.encode(new_event(notes.payload(book, line), SystemClock(), "c")) for line in range(1, 1000)
    ]
    await asyncio.gather(*(shop.producer.send(notes.topic, str(book), value) for value in values))
    await asyncio.sleep(1)
    down = False
    await eventually(lambda: len(handled) == 1000)
    assert handled == list(range(1000))


@pytest.mark.parametrize("stays", [0.3, 0.7, 1, 1.5])  # seconds: into, between and after rebalances
async def test_when_members_come_and_go_nothing_is_lost_and_order_is_kept(shop: Shop, stays: float) -> None:
    handled: dict[UUID, list[int]] = defaultdict(list)

    async def handle(event: Event[Any]) -> None:
        await asyncio.sleep(0.01)
        handled[event.payload.book].append(event.payload.line)

    books = [uuid4() for _ in range(8)]
    first = shop.consume(handle)
    publishing = asyncio.gather(*(shop.publish(book, *range(60)) for book in books))
    await eventually(lambda: len(handled) >= 4)
    second = shop.consume(handle)
    await asyncio.sleep(stays)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    shop.consume(handle)
    await publishing
    await eventually(lambda: all(len(set(handled[book])) == 60 for book in books), 40)
    # Handed over without a crash, nothing is even handled twice.
    assert handled == {book: list(range(60)) for book in books}
    assert not second.done()


async def test_a_member_that_is_started_again_takes_its_partitions_back_at_once(shop: Shop) -> None:
    handled: list[tuple[str, int]] = []

    def handle(member: str) -> Handler:
        async def note(event: Event[Any]) -> None:
            handled.append((member, event.payload.line))

        return note

    named = Membership("the-first", session_seconds=30)
    before = shop.consume(handle("before"), membership=named)
    shop.consume(handle("neighbour"), membership=Membership("the-second", session_seconds=30))
    books = [uuid4() for _ in range(8)]

    async def both_consume() -> bool:
        await asyncio.gather(*(shop.publish(book, 0) for book in books))
        return {member for member, _ in handled} == {"before", "neighbour"}

    await eventually(both_consume, 30)
    # The broker has heard of no end, as after a kill: its partitions are nobody else's for 30 s.
    shop.consume(handle("again"), membership=named)
    await eventually(before.done)
    await asyncio.gather(*(shop.publish(book, 1) for book in books))
    await eventually(lambda: sum(line == 1 for _, line in handled) == len(books))
    assert {member for member, line in handled if line == 1} == {"again", "neighbour"}
    with pytest.raises(KafkaException, match="instance"):
        await before


async def test_a_member_that_does_not_come_back_is_replaced_after_its_session(
    shop: Shop, notes: Any, proxy: Callable[[str], Awaitable[Any]]
) -> None:
    network = await proxy(notes.bootstrap)
    handled: list[tuple[str, int]] = []

    def handle(member: str) -> Handler:
        async def note(event: Event[Any]) -> None:
            handled.append((member, event.payload.line))

        return note

    shop.consume(handle("gone"), bootstrap=network.address, membership=Membership("the-first", 2))
    await shop.publish(uuid4(), 0)
    await eventually(lambda: handled, 30)
    shop.consume(handle("stays"), membership=Membership("the-second", 2))
    await network.cut()
    books = [uuid4() for _ in range(8)]
    await asyncio.gather(*(shop.publish(book, 1) for book in books))
    await eventually(lambda: handled.count(("stays", 1)) == len(books), within=4)


async def test_a_member_that_loses_a_partition_while_it_works_does_not_commit_for_the_new_owner(
    shop: Shop, notes: Any
) -> None:
    begun = asyncio.Event()

    async def never_end(event: Event[Any]) -> None:
        begun.set()
        await asyncio.Event().wait()

    slow = shop.consume(never_end)
    book = uuid4()
    await shop.publish(book, 1, 2)
    await begun.wait()
    slow.cancel()  # gives up the partition after its time of grace
    handled: list[int] = []

    async def handle(event: Event[Any]) -> None:
        handled.append(event.payload.line)

    shop.consume(handle)
    await eventually(lambda: handled == [1, 2], 30)
    await eventually(lambda: _committed(notes, 2))
