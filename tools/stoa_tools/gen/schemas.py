"""The Avro schemas of the events as they are registered, put together from what events/ says once.

    events/envelope.avsc       what every event has; ${topic} and ${Payload} stand for topic and payload
    events/types/<Name>.avsc   a record that several events share
    events/<topic>.avsc        the payload of a topic

A payload, or a shared record, names a shared record like any Avro type: `"type": "OrderItem"`. A topic that
registered its own copy under another name before the record was shared keeps that name, as Avro tells records
apart by it: `{"type": "OrderItem", "stoa.as": "OrderPlacedItem"}`.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from stoa_tools.gen.errors import GenerationFailed

Schema = Mapping[str, Any]

AS = "stoa.as"
"""The attribute of a reference to a shared record: the name under which the topic registered it."""

ENVELOPE = ("event_id", "event_type", "event_version", "timestamp", "correlation_id", "payload")
"""The fields of every event, in order."""


@dataclass(frozen=True)
class Sources:
    """What events/ holds: the envelope as a template, the shared records by name, the payloads by topic."""

    envelope: str
    types: Mapping[str, Schema]
    payloads: Mapping[str, Schema]

    def registered(self, topic: str) -> Schema:
        """Return the complete schema of a topic: its envelope, every shared record where it is first used.

        Raises:
            GenerationFailed: a shared record contains itself, or two records of the topic have one name.
        """
        payload = self.payloads[topic]
        text = Template(self.envelope).substitute(topic=topic, Payload=payload["name"])
        shared = {**self.types, payload["name"]: payload}
        return dict(_Resolution(topic, shared).complete(json.loads(text)))


def read(files: Mapping[str, str]) -> Sources:
    """Read the files of events/, given by their paths within it.

    Raises:
        GenerationFailed: a file is missing, is not JSON, or holds no record.
    """
    if "envelope.avsc" not in files:
        raise GenerationFailed("events/ has no envelope.avsc")
    payloads: dict[str, Schema] = {}
    types: dict[str, Schema] = {}
    for path in sorted(path for path in files if path.endswith(".avsc")):
        name = path.removesuffix(".avsc")
        if name.startswith("types/"):
            types[name.removeprefix("types/")] = _record(path, files[path])
        elif name != "envelope":
            payloads[name] = _record(path, files[path])
    for name, schema in types.items():
        if schema["name"] != name:
            raise GenerationFailed(
                f"events/types/{name}.avsc must hold the record {name}, not {schema['name']}"
            )
    envelope = _record("envelope.avsc", files["envelope.avsc"])
    if tuple(field["name"] for field in envelope["fields"]) != ENVELOPE:
        raise GenerationFailed(
            f"events/envelope.avsc must have the fields {', '.join(ENVELOPE)}, in this order"
        )
    return Sources(files["envelope.avsc"], types, payloads)


def read_folder(folder: Path) -> Sources:
    """Read a folder laid out as events/ is; raises GenerationFailed as `read` does."""
    return read({path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.avsc")})


def _record(path: str, text: str) -> Schema:
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise GenerationFailed(f"events/{path} is not JSON: {error}") from None
    match schema:
        case {"type": "record", "name": str(), "fields": list()}:
            return dict(schema)
    raise GenerationFailed(f"events/{path} must hold a record with a name and fields")


class _Resolution:
    """The schema of one topic while it is put together."""

    def __init__(self, topic: str, shared: Mapping[str, Schema]) -> None:
        self._topic = topic
        self._shared = shared
        self._declared: dict[str, str] = {}
        self._open: list[str] = []

    def complete(self, schema: Any) -> Any:
        """Return a schema with each shared record written out where it is used first, by name afterwards."""
        match schema:
            case str() if schema in self._shared:
                return self._reference(schema, schema)
            case {"type": str() as name} if name in self._shared:
                return self._reference(name, schema.get(AS, name))
            case {"type": "record", "name": name}:
                self._declare(name, name)
                return dict(self._fields(schema))
            case {"type": "array", "items": items}:
                return {**schema, "items": self.complete(items)}
            case {"type": "map", "values": values}:
                return {**schema, "values": self.complete(values)}
            case list():
                return [self.complete(branch) for branch in schema]
        return schema

    def _reference(self, name: str, registered: str) -> Any:
        if name in self._open:
            raise GenerationFailed(f"events/{self._topic}.avsc: {name} contains itself")
        if self._declared.get(registered) == name:
            return registered
        self._declare(registered, name)
        self._open.append(name)
        written_out = {**dict(self._fields(self._shared[name])), "name": registered}
        self._open.pop()
        return written_out

    def _declare(self, registered: str, name: str) -> None:
        if registered in self._declared:
            raise GenerationFailed(f"events/{self._topic}.avsc: two records would be named {registered}")
        self._declared[registered] = name

    def _fields(self, schema: Schema) -> Iterator[tuple[str, Any]]:
        for attribute, value in schema.items():
            if attribute == "fields":
                value = [{**field, "type": self.complete(field["type"])} for field in value]
            yield attribute, value
