"""How far the consumer groups are, and which of them stand still, which no service says of itself."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from stoa_chassis.kafka import dead_letter_topic
from stoa_ops.services import consuming
from stoa_ops.texts import duration
from stoa_ops.topics import OffsetReader, Position

# A message that can't be processed is tried for half a minute before it is parked. That is no standstill yet.
STANDSTILL = timedelta(seconds=45)
_BETWEEN_LOOKS = 2.0  # seconds; a group that handles anything commits once a second


@dataclass(frozen=True, slots=True)
class Progress:
    """How far groups are at one moment.

    `next` is the offset that a group goes on with, by its partitions, `ends` where a partition ends, and
    `missing` are the topics that a group needs and that are not there.
    """

    next: Mapping[str, Mapping[Position, int]]
    ends: Mapping[Position, int]
    missing: Mapping[str, Sequence[str]]

    @property
    def lag(self) -> Mapping[str, int]:
        """How many messages each group is behind."""
        return {group: sum(map(self._behind, offsets.items())) for group, offsets in self.next.items()}

    def behind(self, group: str) -> Mapping[Position, int]:
        """The partitions in which something waits for a group, with the offset of the first of it."""
        return {each: offset for each, offset in self.next[group].items() if self._behind((each, offset))}

    def _behind(self, place: tuple[Position, int]) -> int:
        position, offset = place
        return max(0, self.ends[position] - offset)


@dataclass(frozen=True, slots=True)
class Standstill:
    """A group that gets no further: what is wrong, and what an operator does about it."""

    group: str
    problem: str
    cure: str


def progress(reader: OffsetReader) -> Progress:
    """Ask how far every group is. Raises ConnectionError if Kafka does not answer."""
    services = consuming()
    partitions = reader.partitions()
    own = {
        service.name: [each for topic in service.consumes for each in partitions.get(topic, ())]
        for service in services
    }
    committed = reader.committed(own)
    every = {position for positions in own.values() for position in positions}
    starts, ends = reader.starts(every), reader.ends(every)
    return Progress(
        next={
            group: {each: max(committed[group].get(each, 0), starts[each]) for each in positions}
            for group, positions in own.items()
        },
        ends=ends,
        missing={
            service.name: [
                topic
                for topic in (*service.consumes, service.dead_letters or "")
                if topic and topic not in partitions
            ]
            for service in services
        },
    )


def unmoved(before: Progress, after: Progress) -> Mapping[str, Mapping[Position, int]]:
    """Where something waited at both moments and nothing was committed in between, by group."""
    found = {
        group: {
            each: offset
            for each, offset in after.behind(group).items()
            if before.behind(group).get(each) == offset
        }
        for group in before.next.keys() & after.next.keys()
    }
    return {group: offsets for group, offsets in found.items() if offsets}


def standstills(
    after: Progress,
    unmoved: Mapping[str, Mapping[Position, int]],
    written: Mapping[Position, datetime],
    members: Mapping[str, int],
    now: datetime,
) -> Sequence[Standstill]:
    """Tell which groups stand still, the reason first that an operator can take away.

    `unmoved` is where groups got no further, and of that `written` says when the first message that waits
    was published. `members` counts the processes that consume as a group.
    """
    found = []
    for group in sorted(after.next):
        for topic in after.missing.get(group, ()):
            found.append(Standstill(group, f"its topic {topic} is missing", _cure_for_missing(group, topic)))
        late = [
            (written[each], each, offset)
            for each, offset in unmoved.get(group, {}).items()
            if each in written and now - written[each] > STANDSTILL
        ]
        if late:
            since, (topic, partition), offset = min(late)
            waited = duration((now - since).total_seconds())
            problem = (
                f"stands still: {topic}/{partition}/{offset} waits for {waited}, "
                f"{after.lag[group]} messages in all"
            )
            found.append(Standstill(group, problem, _cure_for_waiting(group, members.get(group, 0))))
    return found


def standing(reader: OffsetReader, before: Progress, after: Progress) -> Sequence[Standstill]:
    """Tell which groups stood still from one moment to the next. Raises ConnectionError."""
    waiting = unmoved(before, after)
    firsts: dict[Position, int] = {}
    for offsets in waiting.values():
        for position, offset in offsets.items():
            firsts[position] = min(offset, firsts.get(position, offset))
    return standstills(
        after,
        waiting,
        reader.written(firsts),
        reader.members(waiting),
        datetime.now(UTC),
    )


def look(bootstrap: str) -> Sequence[Standstill]:
    """Tell which groups stand still now; takes two seconds if anything waits. Raises ConnectionError."""
    with closing(OffsetReader(bootstrap)) as reader:
        before = after = progress(reader)
        if any(before.lag.values()):
            time.sleep(_BETWEEN_LOOKS)
            after = progress(reader)
        return standing(reader, before, after)


def _cure_for_missing(group: str, topic: str) -> str:
    if topic == dead_letter_topic(group):
        return f"until `stoa deploy` creates it, {group} does not start, or waits for ever on a bad message"
    return "`stoa deploy` creates it"


def _cure_for_waiting(group: str, members: int) -> str:
    if not members:
        return f"no process consumes: `stoa status`, `stoa logs {group}`, `stoa restart {group}`"
    return f"`stoa logs {group} | grep -e waiting -e parked` says what it waits for; mend that"
