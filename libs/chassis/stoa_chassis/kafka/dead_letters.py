"""Dead letters: messages that a consumer could not process, parked with the reason.

Pattern: https://www.enterpriseintegrationpatterns.com/patterns/messaging/DeadLetterChannel.html. They keep
their key and value; what happened is in headers, so that a person can look and replay them.
"""

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from stoa_chassis.telemetry import mask_text

ADDRESSEE_HEADER = "only_for"
"""Names the one consumer group that a message is meant for; the others pass over it."""
_PREFIX = "dlq."
_TRACEBACK_CHARACTERS = 4000


def dead_letter_topic(group: str) -> str:
    """Return the topic that a consumer group parks messages in; a deploy step creates it."""
    return f"{group}.dlq"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Where a parked message came from and why it was parked."""

    topic: str
    partition: int
    offset: int
    error: str
    reason: str
    traceback: str
    time: datetime

    @classmethod
    def of(cls, topic: str, partition: int, offset: int, error: BaseException) -> Self:
        """Describe a message that failed with `error`, now."""
        trace = "".join(traceback.format_exception(error))
        return cls(
            topic=topic,
            partition=partition,
            offset=offset,
            error=f"{type(error).__module__}.{type(error).__qualname__}",
            reason=mask_text(str(error)),
            traceback=mask_text(trace[-_TRACEBACK_CHARACTERS:]),
            time=datetime.now(UTC),
        )

    def headers(self) -> dict[str, str]:
        """Return the headers that carry this."""
        return {
            f"{_PREFIX}topic": self.topic,
            f"{_PREFIX}partition": str(self.partition),
            f"{_PREFIX}offset": str(self.offset),
            f"{_PREFIX}error": self.error,
            f"{_PREFIX}reason": self.reason,
            f"{_PREFIX}traceback": self.traceback,
            f"{_PREFIX}time": self.time.isoformat(),
        }

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> Self:
        """Read what `headers` wrote. Raises KeyError or ValueError if it isn't a dead letter."""
        return cls(
            topic=headers[f"{_PREFIX}topic"],
            partition=int(headers[f"{_PREFIX}partition"]),
            offset=int(headers[f"{_PREFIX}offset"]),
            error=headers[f"{_PREFIX}error"],
            reason=headers[f"{_PREFIX}reason"],
            traceback=headers[f"{_PREFIX}traceback"],
            time=datetime.fromisoformat(headers[f"{_PREFIX}time"]),
        )


def original_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that the message had before it was parked."""
    return {
        name: value
        for name, value in headers.items()
        if not name.startswith(_PREFIX) and name != ADDRESSEE_HEADER
    }


def replay_headers(headers: Mapping[str, str], group: str) -> dict[str, str]:
    """Return the headers with which a parked message goes back to its topic, for that group alone."""
    return {**original_headers(headers), ADDRESSEE_HEADER: group}
