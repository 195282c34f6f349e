"""Units of work on PostgreSQL: one transaction with its outbox and inbox.

The events are rows of a table, from which a relay publishes them (`postgres_relay`). That an event was
handled is a row as well, written in the transaction of its effects.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import asyncpg

from stoa_chassis.avro import Event, EventCodec, new_event
from stoa_chassis.clock import Clock
from stoa_chassis.context import correlation_id
from stoa_chassis.ids import new_id
from stoa_chassis.inbox import AlreadyProcessed
from stoa_chassis.kafka import CORRELATION_ID_HEADER
from stoa_chassis.outbox import Outbox
from stoa_chassis.postgres import RETRIABLE_ERRORS, Database
from stoa_chassis.telemetry import trace_headers
from stoa_chassis.uow import LostRace, UnitOfWork
from stoa_contracts.events import Payload

T = TypeVar("T")

_MAX_VALUE_BYTES = 900_000  # what a broker takes with its default of 1 MB, headers included

# Ids are given in the order of the array, and the notification is sent when the transaction commits.
_ADD = """
WITH added AS (
    INSERT INTO outbox (event_id, topic, key, value, headers)
    SELECT event_id, topic, key, value, $5
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[])
        WITH ORDINALITY AS added (event_id, topic, key, value, position)
    ORDER BY position
)
SELECT pg_notify('outbox', '')
"""
_ACCEPTED_BEFORE = "INSERT 0 0"


def postgres_unit_of_work(
    database: Database,
    codec: EventCodec,
    open_tx: Callable[[asyncpg.Connection, Outbox], T],
    clock: Clock,
) -> UnitOfWork[T]:
    """Return what runs use cases in transactions of a database.

    `open_tx` puts the repositories on a connection and its outbox. Using what it returns raises LookupError
    if an event is published whose type the codec did not load, ValueError if one is too big for Kafka.
    """

    @asynccontextmanager
    async def begin(consuming: Event[Payload] | None) -> AsyncIterator[T]:
        try:
            accept = _accepting(consuming) if consuming is not None else None
            async with database.transaction_with(accept) as (connection, begun):
                if begun == _ACCEPTED_BEFORE:
                    raise AlreadyProcessed
                outbox = Outbox()
                yield open_tx(connection, outbox)
                if payloads := outbox.take():
                    await _write(connection, payloads, codec, clock)
        except RETRIABLE_ERRORS as error:
            raise LostRace from error

    return UnitOfWork(begin)


def _accepting(event: Event[Payload]) -> str:
    """Return the statement by which a transaction notes that it handles an event.

    If another transaction handles it now, it waits until that one ends.
    """
    row = f"'{event.event_id.hex}', '{event.topic}'"  # nothing that somebody could choose
    return f"INSERT INTO inbox (event_id, topic) VALUES ({row}) ON CONFLICT DO NOTHING"


async def _write(
    connection: asyncpg.Connection, payloads: Sequence[Payload], codec: EventCodec, clock: Clock
) -> None:
    correlation = correlation_id() or str(new_id())
    events = [new_event(payload, clock, correlation) for payload in payloads]
    values = [codec.encode(event) for event in events]
    for event, value in zip(events, values, strict=True):
        if len(value) > _MAX_VALUE_BYTES:
            raise ValueError(f"an event of {len(value)} bytes on {event.topic} is too big to publish")
    await connection.execute(
        _ADD,
        [event.event_id for event in events],
        [event.topic for event in events],
        [event.payload.key for event in events],
        values,
        {**trace_headers(), CORRELATION_ID_HEADER: correlation},
    )
