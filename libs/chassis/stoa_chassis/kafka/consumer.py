"""The Kafka consumer, for asyncio: in order per partition, at least once, and nothing gets lost or stuck.

One thread waits for messages inside the library (all of whose calls block each other, so its own asyncio
consumer could not commit while it waits) and hands them to the event loop, where each partition has a task
that works through them in order. The thread notes how far the tasks are and leaves the committing to the
library.
"""

import asyncio
import contextlib
import itertools
import math
import random
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import confluent_kafka
import orjson
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition
from opentelemetry.trace import SpanKind

from stoa_chassis import telemetry
from stoa_chassis.avro import EventCodec, UndecodableMessage
from stoa_chassis.context import bound
from stoa_chassis.inbox import AlreadyProcessed
from stoa_chassis.kafka.connection import connection
from stoa_chassis.kafka.dead_letters import ADDRESSEE_HEADER, DeadLetter, dead_letter_topic
from stoa_chassis.kafka.producer import CORRELATION_ID_HEADER, Producer, PublishFailed
from stoa_chassis.outages import is_outage
from stoa_chassis.telemetry import get_logger

log = get_logger(__name__)

# Takes an event; any is declared because each handler takes events of its own payload type.
Handler = Callable[[Any], Awaitable[None]]

_COMMIT_MILLISECONDS = 1000
_POLL_SECONDS = 1.0  # bounds how long a stop takes; messages end a poll at once
_POLL_SECONDS_WHEN_PAUSED = 0.05  # how late a paused partition resumes
_POLL_MESSAGES = 100
_PAUSE_ABOVE = 200  # messages of a partition in memory
_RESUME_BELOW = 50
_RELEASE_SECONDS = 5.0
_LAST_COMMIT_SECONDS = 3.0  # in all
_CLOSE_SECONDS = 2.0
_COMMIT_AGAIN_SECONDS = 0.5
_LONGEST_HEARTBEAT_MILLISECONDS = 1000
_HEARTBEATS = 4  # at least so many in the time after which a member counts as dead
# Without being a member of the group, before the client is replaced: longer than brokers take to start again.
_OUTSIDE_SECONDS = 20.0
_OUTSIDE_SESSIONS = 3  # at least
_STATISTICS_SECONDS = 5.0  # how often the library tells whether it is
_COORDINATOR_SECONDS = 0.5  # for an answer of the group's coordinator; bounds how late a stop is noticed
_IDLE_SECONDS = 3.0  # for which a broker is not asked; while one can't be reached it is tried twice a second


class OutOfGroup(ConnectionError):
    """The client is no member of its group, and has lost its brokers or been none for 20 s: a new one tries.

    The library forgets brokers that no broker tells of. One that stood still tells of none, not even of
    itself, until its controller has let it in again; who asks it then (librdkafka 2.16) may never connect
    again, and says nothing.
    """


class _PlaceLost(Exception):
    """A client is no member of its group any more."""


@dataclass(frozen=True, slots=True)
class Membership:
    """How a process belongs to its group.

    A member with an `instance` (static membership) keeps its partitions until it is back from a restart,
    however it ended, and has them at once. Of two with the same instance the later one counts. A member that
    gives no sign of life for `session_seconds` loses its partitions to the others.
    """

    instance: str = ""
    session_seconds: float = 3.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed message is tried again, and when it is parked.

    An error that means that something needed is down – a lost store, a call that ended UNAVAILABLE – is
    retried without end, because parking would only turn an outage into lost orders; and soon, however long
    that lasts, because whoever placed an order waits for it. Any other error is retried `tries` times in all,
    then the message is parked. Pauses grow by `factor` from `first_pause` up to `longest_pause` seconds; the
    defaults give a message about half a minute. A handler that takes longer than `handler_timeout` seconds
    counts as an outage.
    """

    tries: int = 5
    first_pause: float = 1.0
    factor: float = 3.0
    longest_pause: float = 15.0
    longest_outage_pause: float = 1.0
    handler_timeout: float = 60.0

    def pause(self, failures: int, longest: float) -> float:
        """Return the seconds to wait after so many failures, with jitter."""
        return min(self.first_pause * self.factor ** min(failures - 1, 20), longest) * random.uniform(0.8, 1)


class Consumer:
    """A member of a consumer group that calls a handler for each event.

    Messages of a partition are handled one after the other, or `at_once` of them at the same time where their
    order does not matter; partitions at the same time (at most `concurrency` messages). An offset is
    committed after its message was handled, found to be processed before, or parked in `<group>.dlq`. Around
    a handler the correlation id and the trace of the message are current.
    """

    def __init__(
        self,
        group: str,
        bootstrap: str,
        handlers: Mapping[type[Any], Handler],
        codec: EventCodec,
        producer: Producer,
        retry: RetryPolicy | None = None,
        concurrency: int = 16,
        membership: Membership | None = None,
        at_once: int = 1,
    ) -> None:
        membership = membership or Membership()
        session = int(membership.session_seconds * 1000)
        self._group = group
        self._handlers = dict(handlers)
        self._codec = codec
        self._producer = producer
        self._retry = retry or RetryPolicy()
        self._outside_seconds = max(_OUTSIDE_SECONDS, membership.session_seconds * _OUTSIDE_SESSIONS)
        self._at_once = at_once
        self._slots = asyncio.Semaphore(max(concurrency, at_once))
        self._stopping = False
        self._partitions: dict[tuple[str, int], _Partition] = {}  # the client's; only its thread uses it
        self._outside = 0.0  # seconds for which the client was no member; only the thread uses it
        self._config: dict[str, Any] = {
            **connection(bootstrap),
            "group.id": group,
            "auto.offset.reset": "earliest",
            "partition.assignment.strategy": "cooperative-sticky",
            # The library commits once a second what was stored with store_offsets.
            "enable.auto.commit": True,
            "auto.commit.interval.ms": _COMMIT_MILLISECONDS,
            "enable.auto.offset.store": False,
            # New messages are answered at once. But a partition that is assigned or resumed while a fetch
            # waits for some has to wait for its end: so not for long. Half a second costs hardly any CPU.
            "fetch.min.bytes": 1,
            "fetch.wait.max.ms": 500,
            "fetch.error.backoff.ms": 100,
            "fetch.queue.backoff.ms": 50,
            "queued.min.messages": 1000,
            # The library's own thread sends the heartbeats. By their answers members learn of a rebalance.
            "session.timeout.ms": session,
            "heartbeat.interval.ms": min(session // _HEARTBEATS, _LONGEST_HEARTBEAT_MILLISECONDS),
            "topic.metadata.refresh.interval.ms": 30_000,
            "statistics.interval.ms": int(_STATISTICS_SECONDS * 1000),
        }
        if membership.instance:
            self._config["group.instance.id"] = membership.instance

    async def run(self) -> None:
        """Consume until cancelled; then finish what is being handled, commit and leave the group.

        Raises KafkaException if the client breaks for good, OutOfGroup if it gets into no group.
        """
        self._codec.read(*self._handlers)
        self._stopping = False
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        threading.Thread(
            target=self._consume, args=(loop, ended), name=f"kafka-consumer-{self._group}", daemon=True
        ).start()
        try:
            await asyncio.shield(ended)
        except asyncio.CancelledError:
            self._stopping = True
            with contextlib.suppress(Exception):  # it ends, whatever it fails with
                await ended
            raise

    # ------------------------------------------------------------------------------ in the thread

    def _consume(self, loop: asyncio.AbstractEventLoop, ended: "asyncio.Future[None]") -> None:
        error: Exception | None = None
        try:
            while not self._stopping:
                self._consume_once(loop)
        except Exception as caught:
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_resolve, ended, error)

    def _consume_once(self, loop: asyncio.AbstractEventLoop) -> None:
        """Consume by one client, until that has lost its place in the group or the consumer is to stop.

        A client that has lost its place is not used again: what it still has to commit has its instance, but
        its id as a member no more, and is refused as another's. For the library that is the end.
        """
        # Its own: a client that was left may still tell of its partitions when there is a new one.
        own = self._partitions = {}

        def while_it_counts(note: Callable[..., None]) -> Callable[..., None]:
            return lambda *told: note(*told) if self._partitions is own else None

        told = {
            "on_commit": while_it_counts(self._note_commit),
            "stats_cb": while_it_counts(self._note_membership),
        }
        client = confluent_kafka.Consumer({**self._config, **told})
        patience = _CLOSE_SECONDS
        try:
            self._consume_with(client, loop)
            self._finish(client, loop)
        except _PlaceLost:
            patience = 0
            log.warning("lost its place in its group, and asks for another", group=self._group)
        finally:
            self._close(client, loop, patience)

    def _close(
        self, client: confluent_kafka.Consumer, loop: asyncio.AbstractEventLoop, patience: float
    ) -> None:
        """End a client; one that has lost its brokers waits for them, maybe for ever, and is left to that."""

        def close() -> None:
            with contextlib.suppress(_PlaceLost):
                client.close()

        closing = threading.Thread(target=close, name=f"kafka-closing-{self._group}", daemon=True)
        closing.start()
        closing.join(patience)
        if patience and closing.is_alive():
            log.warning("a client of Kafka does not end, leaving it", group=self._group)
        # A client that broke gives its partitions up without a word.
        asyncio.run_coroutine_threadsafe(_release([*self._partitions.values()], 0), loop).result()

    def _consume_with(self, client: confluent_kafka.Consumer, loop: asyncio.AbstractEventLoop) -> None:
        """Consume until the consumer is to stop. Raises _PlaceLost when the client has lost its place."""
        own, subscribed = self._partitions, False

        def leave(partitions: Iterable[TopicPartition]) -> list[_Partition]:
            keys = [(each.topic, each.partition) for each in partitions]
            return [own.pop(key) for key in keys if key in own]

        def assigned(_: object, partitions: list[TopicPartition]) -> None:
            for each in partitions:
                own[each.topic, each.partition] = _Partition(each.topic, each.partition)

        def revoked(_: object, partitions: list[TopicPartition]) -> None:
            leaving = leave(partitions)
            # The group waits meanwhile, so that no other member starts on what is being finished here.
            asyncio.run_coroutine_threadsafe(_release(leaving, _RELEASE_SECONDS), loop).result()
            self._store(client, leaving)  # the library commits it before it gives the partitions up

        def lost(_: object, partitions: list[TopicPartition]) -> None:
            # Others may have them by now: what happens here must stop, and nothing be committed.
            asyncio.run_coroutine_threadsafe(_release(leave(partitions), 0), loop).result()
            raise _PlaceLost

        topics = sorted(payload.TOPIC for payload in self._handlers)
        self._outside, looked_at = 0.0, time.monotonic()
        while not self._stopping:
            if not subscribed and self._coordinator_answers(client, topics[0]):
                client.subscribe(topics, on_assign=assigned, on_revoke=revoked, on_lost=lost)
                subscribed = True
            soon = not subscribed or any(partition.paused for partition in self._partitions.values())
            first = client.poll(_POLL_SECONDS_WHEN_PAUSED if soon else _POLL_SECONDS)
            if first is not None:
                messages = [first, *client.consume(_POLL_MESSAGES - 1, 0)]
                loop.call_soon_threadsafe(self._accept, self._sorted(messages))
            self._store(client, self._partitions.values())
            self._throttle(client)
            # A process that was stopped for long has not been outside for as long.
            now = time.monotonic()
            self._outside += min(now - looked_at, 2 * _POLL_SECONDS)
            looked_at = now
            if self._outside > self._outside_seconds and not self._stopping:
                raise OutOfGroup(f"not a member of {self._group}, and without a broker or for too long")

    def _coordinator_answers(self, client: confluent_kafka.Consumer, topic: str) -> bool:
        """Whether the group's coordinator has read its groups, and takes in who joins.

        A broker that has just started says that it is the coordinator before it has. Who asks to join by then
        is refused, and the library asks again no sooner than after two seconds.
        """
        with contextlib.suppress(KafkaException):
            client.committed([TopicPartition(topic, 0)], _COORDINATOR_SECONDS)
            return True
        return False

    def _finish(self, client: confluent_kafka.Consumer, loop: asyncio.AbstractEventLoop) -> None:
        """Finish what is being handled, and commit it before we cease to be a member.

        The commit that closing makes would be refused in the middle of a rebalance, as of a generation that
        has passed, and nobody would try again. Here the rebalance is taken part in until a commit counts.
        """
        asyncio.run_coroutine_threadsafe(
            _release(list(self._partitions.values()), _RELEASE_SECONDS), loop
        ).result()
        deadline = time.monotonic() + _LAST_COMMIT_SECONDS
        while time.monotonic() < deadline:
            self._store(client, self._partitions.values())
            uncommitted = [
                TopicPartition(partition.topic, partition.number, partition.next_offset)
                for partition in self._partitions.values()
                if partition.next_offset not in (None, partition.committed)
            ]
            if not uncommitted:
                return
            with contextlib.suppress(KafkaException):  # it is tried again
                client.commit(offsets=uncommitted)
            again = time.monotonic() + _COMMIT_AGAIN_SECONDS
            while time.monotonic() < again and not all(map(self._is_committed, uncommitted)):
                client.poll(_POLL_SECONDS_WHEN_PAUSED)  # what comes now is for whoever is next
        log.warning("what was handled could not be committed and will come again", group=self._group)

    def _is_committed(self, position: TopicPartition) -> bool:
        partition = self._partitions.get((position.topic, position.partition))
        return partition is None or partition.committed == position.offset

    def _note_membership(self, statistics: str) -> None:
        # Its id as a member would not do: a client may keep that without being one.
        told = orjson.loads(statistics)
        group = told.get("cgrp", {})
        if group.get("state") == "up" and group.get("join_state") == "steady":
            self._outside = 0.0
        elif not any(map(_is_in_use, told["brokers"].values())):
            self._outside = math.inf

    def _note_commit(self, refused: KafkaError | None, positions: list[TopicPartition]) -> None:
        for each in positions:
            partition = self._partitions.get((each.topic, each.partition))
            if partition is not None and refused is None and each.error is None:
                partition.committed = each.offset

    def _sorted(self, messages: Iterable[Message]) -> "list[tuple[_Partition, Message]]":
        """Return messages with their partitions, without errors and what came after a revocation."""
        found = []
        for message in messages:
            if (error := message.error()) is not None:
                if error.fatal() or error.code() == KafkaError._FATAL:  # as of another with our instance
                    raise KafkaException(error)
                log.warning("the consumer reports an error", group=self._group, error=str(error))
                continue
            partition = self._partitions.get((message.topic() or "", message.partition() or 0))
            if partition is not None:
                found.append((partition, message))
        return found

    def _store(self, client: confluent_kafka.Consumer, partitions: "Iterable[_Partition]") -> None:
        """Hand the offsets of what was finished to the library, for its next commit."""
        for partition in partitions:
            offset = partition.next_offset
            if offset is None or offset == partition.stored:
                continue
            position = TopicPartition(partition.topic, partition.number, offset)
            try:
                client.store_offsets(offsets=[position])
            except KafkaException as error:
                # Lost, and the library will say so at the next poll: the new owner handles it again.
                log.warning("an offset could not be stored", group=self._group, error=str(error))
                continue
            partition.stored = offset
            watermarks = client.get_watermark_offsets(position, cached=True)
            if watermarks is not None:
                telemetry.CONSUMER_LAG.labels(self._group, partition.topic, partition.number).set(
                    max(0, watermarks[1] - offset)
                )

    def _throttle(self, client: confluent_kafka.Consumer) -> None:
        """Stop fetching what piles up, as behind a message that is retried, until it is worked off."""
        for partition in self._partitions.values():
            waiting = len(partition.queue)
            if not partition.paused and waiting > _PAUSE_ABOVE:
                client.pause([TopicPartition(partition.topic, partition.number)])
                partition.paused = True
            elif partition.paused and waiting < _RESUME_BELOW:
                client.resume([TopicPartition(partition.topic, partition.number)])
                partition.paused = False

    # ------------------------------------------------------------------------------ in the event loop

    def _accept(self, messages: "Sequence[tuple[_Partition, Message]]") -> None:
        for partition, message in messages:
            partition.queue.append(message)
            if partition.task is None or partition.task.done():
                partition.task = asyncio.create_task(self._work(partition))

    async def _work(self, partition: "_Partition") -> None:
        """Handle what waits in a partition, in order, unless several are handled at once."""
        while partition.queue and not partition.released.is_set():
            messages = list(itertools.islice(partition.queue, self._at_once))
            if len(messages) == 1:
                settled = [await self._settle(partition, messages[0])]
            else:
                settled = await asyncio.gather(*(self._settle(partition, message) for message in messages))
            for message in itertools.compress(messages, itertools.takewhile(bool, settled)):
                partition.queue.popleft()
                partition.next_offset = (message.offset() or 0) + 1
            if not all(settled):
                return

    async def _settle(self, partition: "_Partition", message: Message) -> bool:
        """Handle a message until it succeeds or is parked; False if the partition was revoked before."""
        with bound(_headers(message).get(CORRELATION_ID_HEADER, "")):
            return await self._try(partition, message)

    async def _try(self, partition: "_Partition", message: Message) -> bool:
        failures = outages = 0
        while True:
            try:
                async with self._slots:
                    await self._handle(partition.topic, message)
                return True
            except UndecodableMessage as error:
                return await self._park(partition, message, error)
            except Exception as error:
                telemetry.CONSUMER_FAILED.labels(self._group, partition.topic, type(error).__name__).inc()
                position = {
                    "topic": partition.topic,
                    "partition": partition.number,
                    "offset": message.offset(),
                }
                if is_outage(error):
                    outages += 1
                    log.warning(
                        "waiting to handle an event", group=self._group, error=repr(error), **position
                    )
                    pause = self._retry.pause(outages, self._retry.longest_outage_pause)
                else:
                    failures, outages = failures + 1, 0
                    log.exception("an event can't be handled", group=self._group, tries=failures, **position)
                    if failures >= self._retry.tries:
                        return await self._park(partition, message, error)
                    pause = self._retry.pause(failures, self._retry.longest_pause)
            if await partition.released_within(pause):
                return False

    async def _handle(self, topic: str, message: Message) -> None:
        headers = _headers(message)
        if headers.get(ADDRESSEE_HEADER, self._group) != self._group:
            return  # a dead letter that is replayed to another group
        value = message.value()
        if value is None:
            raise UndecodableMessage("the message is empty")
        event = await self._codec.decode(topic, value)
        handler = self._handlers[type(event.payload)]
        with (
            bound(event.correlation_id),
            telemetry.span(f"{topic} process", SpanKind.CONSUMER, headers=headers),
            contextlib.suppress(AlreadyProcessed),
        ):
            async with asyncio.timeout(self._retry.handler_timeout):
                await handler(event)
        telemetry.CONSUMER_PROCESSED.labels(self._group, topic).inc()
        delay = (datetime.now(UTC) - event.timestamp).total_seconds()
        telemetry.CONSUMER_SECONDS.labels(self._group, topic).observe(delay)

    async def _park(self, partition: "_Partition", message: Message, error: Exception) -> bool:
        """Publish a message to the dead letters, however long it takes; False if revoked before."""
        letter = DeadLetter.of(partition.topic, partition.number, message.offset() or 0, error)
        headers = {**_headers(message), **letter.headers()}
        tries = 0
        while True:
            try:
                await self._producer.send(
                    dead_letter_topic(self._group), message.key(), message.value(), headers
                )
            except PublishFailed as failure:
                tries += 1
                log.error("a dead letter can't be parked", group=self._group, error=str(failure))
                if await partition.released_within(
                    self._retry.pause(tries, self._retry.longest_outage_pause)
                ):
                    return False
            else:
                telemetry.CONSUMER_DEAD_LETTERS.labels(self._group, partition.topic).inc()
                log.error(
                    "parked an event as a dead letter",
                    group=self._group,
                    topic=partition.topic,
                    partition=partition.number,
                    offset=message.offset(),
                    reason=letter.reason,
                )
                return True


class _Partition:
    """How far an assigned partition is. A partition that comes back after a revocation gets a new one."""

    def __init__(self, topic: str, number: int) -> None:
        self.topic = topic
        self.number = number
        # The event loop's: what waits (the first is in work), who works, and how far it is.
        self.queue: deque[Message] = deque()
        self.task: asyncio.Task[None] | None = None
        self.next_offset: int | None = None
        self.released = asyncio.Event()
        # The thread's.
        self.stored: int | None = None
        self.committed: int | None = None
        self.paused = False

    async def released_within(self, seconds: float) -> bool:
        """Wait; True as soon as the partition is revoked, False when the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.released.wait()
        return self.released.is_set()


async def _release(partitions: Sequence[_Partition], grace: float) -> None:
    """Stop working on partitions: what is being handled may take `grace` more seconds."""
    for partition in partitions:
        partition.released.set()
    tasks = [partition.task for partition in partitions if partition.task is not None]
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=grace)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)


def _is_in_use(broker: Mapping[str, Any]) -> bool:
    """Whether a client is connected to a broker or tries to be. A coordinator alone has no address."""
    waits = broker["state"] == "INIT" and broker["stateage"] > _IDLE_SECONDS * 1_000_000
    return broker["source"] in ("configured", "learned") and not waits


def _headers(message: Message) -> dict[str, str]:
    headers: Any = message.headers() or ()
    pairs = headers.items() if isinstance(headers, dict) else headers
    return {
        name: value.decode(errors="replace") if isinstance(value, bytes) else value or ""
        for name, value in pairs
    }


def _resolve(future: "asyncio.Future[None]", error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
