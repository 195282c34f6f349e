"""What waits to be published, and who publishes it, in whatever store a service has."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from stoa_chassis.mongo import PENDING
from stoa_chassis.postgres_relay import RELAY_LOCK
from stoa_contracts.declarations import Service, Store
from stoa_ops.settings import OperatorSettings
from stoa_ops.stores import mongo, postgres, redis
from stoa_services import SERVICES

_NOTHING = timedelta(0)
_BACKLOG = """
SELECT count(*) AS events, coalesce(now() - min(created_at), interval '0') AS oldest
FROM outbox WHERE published_at IS NULL
"""
# Who holds the relay's lock (the active one), and who waits for it.
_RELAYS = """
SELECT granted, client_port FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND classid = 0 AND objid = $1 AND objsubid = 1
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@dataclass(frozen=True, slots=True)
class OutboxState:
    """One service's outbox. `relay` says who publishes, "" if nobody does; `standby` counts who waits to.

    `relay_port` is the port from which the relay is connected to its database.
    """

    service: str
    store: str
    events: int
    oldest: timedelta
    relay: str
    standby: int = 0
    relay_port: int | None = None


async def states(settings: OperatorSettings) -> Sequence[OutboxState]:
    """Look into every outbox. Raises OSError or an error of a client if a store can't be read."""
    readers = {Store.POSTGRES: _in_postgres, Store.MONGO: _in_mongo, Store.REDIS: _in_redis}
    return await asyncio.gather(
        *(
            readers[service.store](settings, service)
            for service in SERVICES.values()
            if service.publishes and service.store in readers
        )
    )


async def _in_postgres(settings: OperatorSettings, service: Service) -> OutboxState:
    async with postgres(settings, service.name) as connection:
        backlog = await connection.fetchrow(_BACKLOG)
        relays = await connection.fetch(_RELAYS, RELAY_LOCK)
    active = [row["client_port"] for row in relays if row["granted"]]
    port = active[0] if active else None  # not known to an account that may not see others' activity
    return OutboxState(
        service.name,
        "postgres",
        backlog["events"] if backlog else 0,
        backlog["oldest"] if backlog else _NOTHING,
        (f"from port {port}" if port else "one process") if active else "",
        len(relays) - len(active),
        port,
    )


async def _in_mongo(settings: OperatorSettings, service: Service) -> OutboxState:
    """Read the events that wait in documents; relays lease single documents, none is active for all."""
    written: list[datetime] = []
    leased = 0
    async with mongo(settings, service.name) as database:
        for name in await database.list_collection_names():
            waiting = database[name].find(
                {f"{PENDING}.event_id": {"$exists": True}}, {f"{PENDING}.event_id": 1, "_relay": 1}
            )
            async for document in waiting:
                written += [_made(entry["event_id"]) for entry in document[PENDING]]
                until = document.get("_relay", {}).get("until")
                leased += until is not None and until > datetime.now(UTC)
    relay = f"{leased} documents leased" if leased else "any instance, by document"
    return OutboxState(service.name, "mongo", len(written), _age(written), relay)


async def _in_redis(settings: OperatorSettings, service: Service) -> OutboxState:
    stream = f"{service.name}:outbox"
    async with redis(settings, service.name) as client:
        events = await client.xlen(stream)
        first: Any = await client.xrange(stream, count=1)
        lease = await client.pttl(f"{stream}:relay")
    written = [datetime.fromtimestamp(int(first[0][0].split(b"-")[0]) / 1000, UTC)] if first else []
    relay = f"lease for {lease / 1000:.0f} s" if lease > 0 else ""
    return OutboxState(service.name, "redis", events, _age(written), relay)


def _made(event_id: str) -> datetime:
    """When an event was made: its id, a UUIDv7 (RFC 9562), begins with the milliseconds."""
    return datetime.fromtimestamp((UUID(event_id).int >> 80) / 1000, UTC)


def _age(written: Sequence[datetime]) -> timedelta:
    return datetime.now(UTC) - min(written) if written else _NOTHING
