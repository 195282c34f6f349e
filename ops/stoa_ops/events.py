"""Reads events with whatever schema they were written with, also those that no service of ours knows."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from typing import Any
from uuid import UUID

import fastavro
import orjson
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

_HEADER = struct.Struct(">bI")  # the registry's wire format: a zero, and the id of the writer's schema
_SECONDS = 5
_SECRET = "stoa.secret"  # the mark of a field of which nobody may see the value but whom it is for


class Unreadable(Exception):
    """The bytes are no event; says why."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What all events have."""

    event_id: UUID
    at: datetime


class EventReader:
    """Decodes events, with the schemas of a registry."""

    def __init__(self, registry_url: str) -> None:
        self._registry = SchemaRegistryClient({"url": registry_url, "timeout": _SECONDS})
        self._schemas: dict[int, Any] = {}
        self._envelopes: dict[int, Any] = {}
        self._named: dict[int, Mapping[str, Any]] = {}

    def read(self, value: bytes | None) -> Mapping[str, Any]:
        """Return the whole event, but for what its contract calls a secret, such as the token of a mail.

        Raises Unreadable, or ConnectionError if the registry does not answer.
        """
        schema_id, body = self._split(value)
        event = self._decode(schema_id, body, None)
        named = self._named[schema_id]
        shown: Mapping[str, Any] = (
            _without_secrets(self._schemas[schema_id], event, named) if named else event
        )
        return shown

    def envelope(self, value: bytes | None) -> Envelope:
        """Return the envelope without the payload, which is quicker. Raises as `read`."""
        schema_id, body = self._split(value)
        record = self._decode(schema_id, body, self._envelopes[schema_id])
        return Envelope(record["event_id"], record["timestamp"])

    def _split(self, value: bytes | None) -> tuple[int, bytes]:
        if value is None:
            raise Unreadable("the message is empty")
        if len(value) < _HEADER.size or value[0] != 0:
            raise Unreadable("not in the registry's wire format")
        _, schema_id = _HEADER.unpack_from(value)
        if schema_id not in self._schemas:
            self._fetch(schema_id)
        return schema_id, value[_HEADER.size :]

    def _decode(self, schema_id: int, body: bytes, reader: Any) -> Mapping[str, Any]:
        try:
            record: Any = fastavro.schemaless_reader(io.BytesIO(body), self._schemas[schema_id], reader)
        except Exception as error:  # fastavro raises whatever the broken bytes lead it to
            raise Unreadable(f"not a record of schema {schema_id}: {error!r}") from error
        if not isinstance(record, dict):
            raise Unreadable(f"schema {schema_id} is not of an event")
        return record

    def _fetch(self, schema_id: int) -> None:
        try:
            text = self._registry.get_schema(schema_id).schema_str or ""
        except SchemaRegistryError as error:
            if error.http_status_code == 404:
                raise Unreadable(f"no schema {schema_id} is registered") from error
            raise ConnectionError(f"the schema registry does not answer: {error}") from error
        except Exception as error:  # whatever its HTTP client raises
            raise ConnectionError(f"the schema registry can't be reached: {error!r}") from error
        schema = orjson.loads(text)
        wanted = [field for field in schema.get("fields", ()) if field["name"] in ("event_id", "timestamp")]
        if len(wanted) != 2:
            raise Unreadable(f"schema {schema_id} is not of an event")
        named: dict[str, Any] = {}
        parsed = fastavro.parse_schema(schema, named)
        # Most contracts have no secret: then there is nothing to look through.
        self._named[schema_id] = named if _SECRET in text else {}
        self._schemas[schema_id] = parsed
        self._envelopes[schema_id] = fastavro.parse_schema({**schema, "fields": wanted})


def _without_secrets(schema: Any, value: Any, named: Mapping[str, Any]) -> Any:
    """Return a value of a schema without what any record in it calls a secret, however deep that lies."""
    if isinstance(schema, str):
        return _without_secrets(named[schema], value, named) if schema in named else value
    if isinstance(schema, list):  # which of the types it is does not matter: another's fields are not in it
        return reduce(lambda shown, branch: _without_secrets(branch, shown, named), schema, value)
    match schema["type"]:
        case "record" if isinstance(value, Mapping):
            fields = {field["name"]: field for field in schema["fields"]}
            return {
                name: _field_without_secrets(fields[name], each, named) if name in fields else each
                for name, each in value.items()
            }
        case "array" if isinstance(value, list):
            return [_without_secrets(schema["items"], each, named) for each in value]
        case "map" if isinstance(value, Mapping):
            return {key: _without_secrets(schema["values"], each, named) for key, each in value.items()}
        case dict() | list() as nested:
            return _without_secrets(nested, value, named)
    return value


def _field_without_secrets(field: Mapping[str, Any], value: Any, named: Mapping[str, Any]) -> Any:
    return "(a secret)" if field.get(_SECRET) else _without_secrets(field["type"], value, named)
