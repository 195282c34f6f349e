"""Events as Avro: the envelope that all share, and the codec between it and the bytes on Kafka.

The bytes are in Confluent's wire format: a zero byte, the id that the registry gave the writer's schema, the
record. Schemas are registered by a deploy step; a service only looks them up.
"""

import asyncio
import http.client
import io
import random
import struct
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar, cast
from uuid import UUID

import fastavro
import orjson

from stoa_chassis.clock import Clock
from stoa_chassis.errors import Unavailable
from stoa_chassis.ids import new_id
from stoa_chassis.telemetry import get_logger
from stoa_contracts.events import Payload

log = get_logger(__name__)

P = TypeVar("P", bound=Payload)
P_co = TypeVar("P_co", bound=Payload, covariant=True)
AvroSchema = dict[str, Any]
_HEADER = struct.Struct(">bI")
_MAGIC = 0
_MAX_PAUSE_SECONDS = 5.0
_REQUEST_SECONDS = 5
_TROUBLE = (OSError, ValueError, LookupError, http.client.HTTPException)  # no answer, or none of a registry
_REFUSALS = (400, 404, 409, 422)  # the registry's answers that won't change by themselves


@dataclass(frozen=True, slots=True)
class Event(Generic[P_co]):
    """Something that happened, in its envelope."""

    event_id: UUID
    event_type: str
    event_version: int
    timestamp: datetime
    correlation_id: str
    payload: P_co

    @property
    def topic(self) -> str:
        """Where it is published."""
        return self.payload.TOPIC


class UndecodableMessage(Exception):
    """The bytes are no event of the topic that they came from; trying again won't help."""


class SchemaNotRegistered(Exception):
    """The registry does not know this version's schema: the deploy step that registers it has not run."""


class _Refused(Exception):
    """The registry answered that it won't, and why."""


def new_event(payload: P, clock: Clock, correlation_id: str) -> Event[P]:
    """Wrap a payload in a new envelope."""
    return Event(
        event_id=new_id(),
        event_type=payload.TOPIC,
        event_version=payload.VERSION,
        timestamp=clock.now(),
        correlation_id=correlation_id,
        payload=payload,
    )


@dataclass(frozen=True, slots=True)
class _Readable:
    payload: type[Payload]
    schema: AvroSchema


class EventCodec:
    """Encodes and decodes events with the schemas of a registry (Confluent's API, at `registry_url`)."""

    def __init__(self, registry_url: str) -> None:
        self._registry_url = registry_url.rstrip("/")
        self._readable: dict[str, _Readable] = {}
        self._writer_ids: dict[str, int] = {}
        self._writer_schemas: dict[int, AvroSchema] = {}
        self._fetching: dict[int, asyncio.Task[AvroSchema]] = {}

    def read(self, *payloads: type[Payload]) -> None:
        """Learn to decode these payloads; needs no registry."""
        for payload in payloads:
            schema = _parse(payload.SCHEMA)
            self._readable[payload.TOPIC] = _Readable(payload, schema)

    async def load(self, *payloads: type[Payload]) -> None:
        """Learn to encode (and decode) these payloads: look up the ids of their schemas.

        Waits while the registry can't be reached, however long that takes. Raises SchemaNotRegistered.
        """
        self.read(*payloads)
        if not payloads:
            return
        schema_ids = await asyncio.gather(*(self._look_up(payload) for payload in payloads))
        for payload, schema_id in zip(payloads, schema_ids, strict=True):
            self._writer_ids[payload.TOPIC] = schema_id
            self._writer_schemas[schema_id] = self._readable[payload.TOPIC].schema

    def encode(self, event: Event[Payload]) -> bytes:
        """Return the bytes of an event.

        Raises LookupError if its payload's type was not loaded, ValueError or TypeError if a value does not
        fit its schema.
        """
        topic = event.topic
        if topic not in self._writer_ids:
            raise LookupError(
                f"{type(event.payload).__name__} was not loaded: name {topic} under `publishes` in the"
                " service.toml of the service that publishes it, and run `stoa gen`"
            )
        buffer = io.BytesIO()
        buffer.write(_HEADER.pack(_MAGIC, self._writer_ids[topic]))
        record = {
            "event_id": event.event_id,
            "event_type": event.event_type,
            "event_version": event.event_version,
            "timestamp": event.timestamp,
            "correlation_id": event.correlation_id,
            "payload": event.payload.to_dict(),
        }
        fastavro.schemaless_writer(buffer, self._readable[topic].schema, record, strict=True)
        return buffer.getvalue()

    async def decode(self, topic: str, data: bytes) -> Event[Payload]:
        """Return the event in a message of `topic`, resolved from its writer's schema to ours.

        Raises UndecodableMessage for bytes that are no such event, Unavailable while the registry is needed
        and can't be reached.
        """
        if topic not in self._readable:
            raise UndecodableMessage(f"no payload type for {topic}")
        if len(data) < _HEADER.size or data[0] != _MAGIC:
            raise UndecodableMessage("not in the registry's wire format")
        _, schema_id = _HEADER.unpack_from(data)
        readable = self._readable[topic]
        writer = self._writer_schemas.get(schema_id) or await self._fetch(schema_id)
        reader = None if writer is readable.schema else readable.schema
        stream = io.BytesIO(data)
        stream.seek(_HEADER.size)
        try:
            record: Any = fastavro.schemaless_reader(stream, writer, reader)
            if stream.read(1):
                raise UndecodableMessage("bytes are left after the record")
            return Event(
                event_id=record["event_id"],
                event_type=record["event_type"],
                event_version=record["event_version"],
                timestamp=record["timestamp"],
                correlation_id=record["correlation_id"],
                payload=readable.payload.from_dict(record["payload"]),
            )
        except UndecodableMessage:
            raise
        except Exception as error:  # fastavro raises whatever the broken bytes lead it to
            raise UndecodableMessage(f"not a record of schema {schema_id}: {error!r}") from error

    async def _look_up(self, payload: type[Payload]) -> int:
        """Return the id of our schema of a payload, however long the registry takes to come up."""
        subject = f"{payload.TOPIC}-value"
        pause = 0.1
        while True:
            try:
                found = await self._ask(f"subjects/{subject}", {"schema": payload.SCHEMA})
                return cast(int, found["id"])
            except _Refused as refusal:
                raise SchemaNotRegistered(f"{subject}: {refusal}") from refusal
            except _TROUBLE as error:
                log.info("waiting for the schema registry", error=repr(error))
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(pause * 2, _MAX_PAUSE_SECONDS)

    async def _fetch(self, schema_id: int) -> AvroSchema:
        """Return (and keep) the schema that a writer used; those who want it at the same time ask once."""
        task = self._fetching.get(schema_id)
        if task is None:
            task = self._fetching[schema_id] = asyncio.create_task(self._ask_for(schema_id))
            task.add_done_callback(lambda _: self._fetching.pop(schema_id))
        return await asyncio.shield(task)

    async def _ask_for(self, schema_id: int) -> AvroSchema:
        try:
            text = (await self._ask(f"schemas/ids/{schema_id}"))["schema"]
        except _Refused as refusal:
            raise UndecodableMessage(f"schema {schema_id}: {refusal}") from refusal
        except _TROUBLE as error:
            raise Unavailable(f"the schema registry can't be reached: {error!r}") from error
        schema = self._writer_schemas[schema_id] = _parse(text)
        return schema

    async def _ask(self, path: str, body: dict[str, str] | None = None) -> dict[str, Any]:
        """Return the registry's answer to a GET, or to a POST of a body.

        Raises _Refused, or one of _TROUBLE. A service asks when it starts and for schemas that it never met:
        for that, the client of confluent-kafka was an eighth of what every start imports.
        """
        request = urllib.request.Request(
            f"{self._registry_url}/{path}",
            data=None if body is None else orjson.dumps(body),
            headers={"content-type": "application/vnd.schemaregistry.v1+json"},
        )
        return cast(dict[str, Any], orjson.loads(await asyncio.to_thread(_read, request)))


def _read(request: urllib.request.Request) -> bytes:
    try:
        with urllib.request.urlopen(request, timeout=_REQUEST_SECONDS) as response:
            answer: bytes = response.read()
            return answer
    except urllib.error.HTTPError as error:
        with error:
            if error.code in _REFUSALS:
                raise _Refused(error.read().decode(errors="replace")) from error
        raise


def _parse(schema: str) -> AvroSchema:
    return cast(AvroSchema, fastavro.parse_schema(orjson.loads(schema)))
