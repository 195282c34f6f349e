"""The base of events: what the generated payloads of all topics have in common."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self


class Payload(Protocol):
    """What an event says, without its envelope."""

    TOPIC: ClassVar[str]
    """The topic that carries it; also the envelope's event_type."""

    VERSION: ClassVar[int]
    """The envelope's event_version."""

    SCHEMA: ClassVar[str]
    """The Avro schema of the whole event, envelope included, as JSON."""

    @property
    def key(self) -> str:
        """The message's key: the id of the aggregate, whose events stay in order by it."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The record as fastavro writes it."""
        ...

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """The payload of a record that fastavro read."""
        ...
