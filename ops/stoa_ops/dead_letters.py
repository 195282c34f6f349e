"""The dead letters of all consumer groups, and what an operator decided on each.

A decision is one more message in the topic of the letter: the letter stays readable beside it until both are
30 days old, and whoever reads the topic knows what is still open. A letter is replayed first and the decision
noted after it, so a command that dies in between leaves it open: replayed once more it has no second effect.
"""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Self

from confluent_kafka import Message

from stoa_chassis.kafka import DeadLetter, Producer, replay_headers
from stoa_ops.topics import TopicReader, headers

_SUFFIX = ".dlq"
_DECISION, _LETTER, _AT, _BY = "decision", "decision.letter", "decision.at", "decision.by"
_SECONDS = 30


class Fate(StrEnum):
    """What became of a letter."""

    OPEN = "open"
    REPLAYED = "replayed"
    DROPPED = "dropped"


@dataclass(slots=True)
class Letter:
    """A message in a dead letter topic; without `origin` if none of our consumers put it there."""

    topic: str
    partition: int
    offset: int
    at: datetime
    key: bytes | None
    value: bytes | None
    headers: dict[str, str]
    origin: DeadLetter | None
    fate: Fate = Fate.OPEN
    decided: str = ""

    @property
    def letter_id(self) -> str:
        """What an operator names it by."""
        return f"{self.topic}/{self.partition}/{self.offset}"

    @property
    def group(self) -> str:
        """The consumer group that could not process it."""
        return self.topic.removesuffix(_SUFFIX)

    @classmethod
    def of(cls, message: Message) -> Self:
        """Read a message of a dead letter topic."""
        given = headers(message)
        try:
            origin = DeadLetter.from_headers(given)
        except (KeyError, ValueError):
            origin = None
        _, milliseconds = message.timestamp()
        return cls(
            topic=message.topic() or "",
            partition=message.partition() or 0,
            offset=message.offset() or 0,
            at=origin.time if origin else datetime.fromtimestamp(milliseconds / 1000, UTC),
            key=_bytes(message.key()),
            value=_bytes(message.value()),
            headers=given,
            origin=origin,
        )


def is_dead_letter_topic(topic: str) -> bool:
    """Whether a topic holds dead letters."""
    return topic.endswith(_SUFFIX)


class DeadLetters:
    """All dead letters, as of the last `read`."""

    def __init__(self) -> None:
        self._letters: dict[str, Letter] = {}
        self._decisions: dict[str, tuple[Fate, str]] = {}

    def read(self, reader: TopicReader) -> Sequence[Letter]:
        """Read what is new in the topics; return all letters, decided or not, in the order of their topics.

        Raises ConnectionError if Kafka does not answer.
        """
        for message in reader.read(filter(is_dead_letter_topic, reader.topics())):
            given = headers(message)
            if _DECISION in given:
                decided = f"{given.get(_AT, '')} by {given.get(_BY, '')}"
                self._decisions[given.get(_LETTER, "")] = (Fate(given[_DECISION]), decided)
            else:
                letter = Letter.of(message)
                self._letters[letter.letter_id] = letter
        for letter_id, (fate, decided) in self._decisions.items():
            if letter_id in self._letters:
                self._letters[letter_id].fate, self._letters[letter_id].decided = fate, decided
        return sorted(self._letters.values(), key=lambda each: (each.topic, each.partition, each.offset))


async def decide(bootstrap: str, letters: Iterable[Letter], fate: Fate) -> None:
    """Replay letters to their own group, or drop them, in this order.

    A replayed message goes back to its topic, addressed to the group: its partition, and so its order with
    what comes later for the same key, are those that it had. Raises ValueError for a letter whose origin is
    not known, TimeoutError or PublishFailed if Kafka does not take it; those before it are done.
    """
    async with Producer(bootstrap) as producer:
        for letter in letters:
            async with asyncio.timeout(_SECONDS):
                if fate is Fate.REPLAYED:
                    if letter.origin is None:
                        raise ValueError(f"{letter.letter_id} doesn't say which topic it comes from")
                    addressed = replay_headers(letter.headers, letter.group)
                    await producer.send(letter.origin.topic, letter.key, letter.value, addressed)
                decision = {
                    _DECISION: fate,
                    _LETTER: letter.letter_id,
                    _AT: datetime.now(UTC).isoformat(timespec="seconds"),
                    _BY: getpass.getuser(),
                }
                await producer.send(letter.topic, letter.key, None, decision)


def _bytes(given: str | bytes | None) -> bytes | None:
    return given.encode() if isinstance(given, str) else given
