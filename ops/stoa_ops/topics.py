"""Reads topics and the offsets of consumer groups, from the outside: nothing here joins a group."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from stoa_chassis.kafka import connection
from stoa_services import SERVICES

_SECONDS = 10
_BATCH = 1000
_POLL_SECONDS = 0.2


class Position(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


class TopicReader:
    """Reads what is in topics now. It remembers how far it came, so that reading again gives what is new."""

    def __init__(self, bootstrap: str) -> None:
        self.cut: dict[Position, int] = {}
        """Where reading began in partitions that were too long to be read from their beginning."""
        self._next: dict[Position, int] = {}
        self._client = _consumer(bootstrap)

    def close(self) -> None:
        """Disconnect."""
        self._client.close()

    def topics(self) -> list[str]:
        """Return the names of all topics but Kafka's own."""
        with _as_outage():
            names = self._client.list_topics(timeout=_SECONDS).topics
        return sorted(name for name in names if not name.startswith("_"))

    def read(self, topics: Iterable[str], newest: int | None = None) -> Iterator[Message]:
        """Yield the messages that are in these topics and were not read before, in order per partition.

        The end is where the topics ended at the call. Of a partition that was not read before only the
        `newest` messages are read. Raises ConnectionError if Kafka does not answer.
        """
        with _as_outage():
            left = self._assign(topics, newest)
            while left:
                # A poll ends with the first message, and the rest of what was fetched comes at once.
                first = self._client.poll(_SECONDS) or _no_answer()
                for message in [first, *self._client.consume(_BATCH, 0)]:
                    if (error := message.error()) is not None:
                        raise KafkaException(error)
                    where = Position(message.topic() or "", message.partition() or 0)
                    offset = message.offset() or 0
                    end = left.get(where)
                    if end is None or offset >= end:
                        continue
                    self._next[where] = offset + 1
                    if offset + 1 >= end:
                        del left[where]
                    yield message

    def _assign(self, topics: Iterable[str], newest: int | None) -> dict[Position, int]:
        """Go to where reading begins; return where it ends, by partition, without those that are read up."""
        known = self._client.list_topics(timeout=_SECONDS).topics
        positions = [
            Position(topic, partition)
            for topic in topics
            if topic in known
            for partition in known[topic].partitions
        ]
        low = _offsets(self._client, positions, OFFSET_BEGINNING)
        high = _offsets(self._client, positions, OFFSET_END)
        for each in positions:
            start = low[each] if newest is None else max(low[each], high[each] - newest)
            if each not in self._next and start > low[each]:
                self.cut[each] = start
            self._next[each] = max(self._next.get(each, start), low[each])
        unread = {each: high[each] for each in positions if self._next[each] < high[each]}
        self._client.assign([TopicPartition(*each, self._next[each]) for each in unread])
        return unread


def headers(message: Message) -> dict[str, str]:
    """Return the headers of a message as text."""
    given: Any = message.headers() or ()
    pairs = given.items() if isinstance(given, dict) else given
    return {
        name: value.decode(errors="replace") if isinstance(value, bytes) else value or ""
        for name, value in pairs
    }


class OffsetReader:
    """Asks a broker where topics begin and end, and how far consumer groups are in them.

    All that is asked a consumer may ask, and waits for its answer: librdkafka (2.16) aborts the process when
    the broker goes away while a call of its administrator's client is under way, such as the one for the
    offsets of groups. Connections are opened once and found again after an outage. Each method raises
    ConnectionError if Kafka does not answer.
    """

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._client = _consumer(bootstrap)
        self._members: dict[str, Consumer] = {}  # by group

    def close(self) -> None:
        """Disconnect."""
        for client in (self._client, *self._members.values()):
            client.close()

    def partitions(self) -> dict[str, list[Position]]:
        """Return the partitions of each topic that there is."""
        with _as_outage():
            known = self._client.list_topics(timeout=_SECONDS).topics
        return {
            name: [Position(name, number) for number in topic.partitions] for name, topic in known.items()
        }

    def starts(self, positions: Iterable[Position]) -> dict[Position, int]:
        """Return the offset of the first message that each partition still has."""
        return _offsets(self._client, positions, OFFSET_BEGINNING)

    def ends(self, positions: Iterable[Position]) -> dict[Position, int]:
        """Return the offset that the next message of each partition will get."""
        return _offsets(self._client, positions, OFFSET_END)

    def committed(self, groups: Iterable[str]) -> dict[str, dict[Position, int]]:
        """Return what each group has committed: by partition of what it consumes, the offset that it goes on
        with.
        """
        found = {}
        topics = self.partitions()
        for group in groups:
            consumed = SERVICES[group].consumes if group in SERVICES else ()
            asked = [TopicPartition(*position) for topic in consumed for position in topics.get(topic, ())]
            with _as_outage():
                answered = self._member(group).committed(asked, timeout=_SECONDS) if asked else []
            found[group] = {
                Position(each.topic, each.partition): each.offset for each in answered if each.offset >= 0
            }
        return found

    def _member(self, group: str) -> Consumer:
        """A client that asks as a member of the group would, without being one."""
        if group not in self._members:
            self._members[group] = _consumer(self._bootstrap, group)
        return self._members[group]

    def members(self, groups: Iterable[str]) -> dict[str, int]:
        """Return how many processes consume as each group."""
        found = {}
        for group in groups:
            with _as_outage():
                described = _admin(self._bootstrap).list_groups(group, timeout=_SECONDS)
            found[group] = sum(len(each.members) for each in described)
        return found

    def written(self, firsts: Mapping[Position, int]) -> dict[Position, datetime]:
        """Return when the message at an offset was published, or the first after it, by partition.

        A partition without such a message is left out.
        """
        found: dict[Position, datetime] = {}
        if not firsts:
            return found
        with _as_outage():
            self._client.assign([TopicPartition(*position, offset) for position, offset in firsts.items()])
            try:
                deadline = time.monotonic() + _SECONDS
                while len(found) < len(firsts) and time.monotonic() < deadline:
                    for message in self._client.consume(_BATCH, _POLL_SECONDS):
                        if (error := message.error()) is not None:
                            raise KafkaException(error)
                        where = Position(message.topic() or "", message.partition() or 0)
                        at = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
                        found.setdefault(where, at)
            finally:
                self._client.unassign()
        return found

    def lag(self, groups: Iterable[str]) -> Mapping[str, Mapping[Position, int]]:
        """Return how many messages each group is behind, by partition."""
        positions = self.committed(groups)
        last = self.ends({position for offsets in positions.values() for position in offsets})
        return {
            group: {position: max(0, last[position] - offset) for position, offset in offsets.items()}
            for group, offsets in positions.items()
        }


@functools.cache
def _admin(bootstrap: str) -> AdminClient:
    # Only for what it asks and waits for. One for the whole process, which it keeps open as long.
    return AdminClient(connection(bootstrap))


def _consumer(bootstrap: str, group: str = "operator") -> Consumer:
    return Consumer(
        {
            **connection(bootstrap),
            "group.id": group,  # never joined: partitions are assigned by hand
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": False,
        }
    )


def _offsets(client: Consumer, positions: Iterable[Position], which: int) -> dict[Position, int]:
    """Return the offset of each partition's beginning or end."""
    wanted = [TopicPartition(*position, which) for position in positions]
    if not wanted:
        return {}
    with _as_outage():
        found = client.offsets_for_times(wanted, timeout=_SECONDS)
        for each in found:
            if each.error is not None:
                raise KafkaException(each.error)
    return {Position(each.topic, each.partition): each.offset for each in found}


@contextmanager
def _as_outage() -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        cause = error.args[0]
        reason = cause.str() if isinstance(cause, KafkaError) else cause
        raise ConnectionError(f"Kafka can't be read: {reason}") from error


def _no_answer() -> Any:
    raise ConnectionError(f"Kafka did not answer within {_SECONDS} s")
