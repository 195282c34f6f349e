"""The inbox: which events were processed, so that one that comes again has no effect.

The row is written in the transaction of the event's effects, so both happen or neither. Pattern:
https://microservices.io/patterns/communication-style/idempotent-consumer.html
"""

import asyncpg

from stoa_chassis.avro import Event
from stoa_contracts.events import Payload

_ACCEPT = "INSERT INTO inbox (event_id, topic) VALUES ($1, $2) ON CONFLICT DO NOTHING"


class AlreadyProcessed(Exception):
    """The event's effects are in the database already; to a consumer that is success."""


async def accept(connection: asyncpg.Connection, event: Event[Payload]) -> None:
    """Note that this transaction processes an event, in one statement.

    If another transaction is processing it now, waits until that one ends. Raises AlreadyProcessed.
    """
    if await connection.execute(_ACCEPT, event.event_id, event.topic) == "INSERT 0 0":
        raise AlreadyProcessed(f"{event.event_type} {event.event_id}")
