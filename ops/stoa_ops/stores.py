"""Connects to the services' stores, with the accounts that may only read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from opensearchpy import AsyncOpenSearch
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from redis.asyncio import Redis

from stoa_chassis.opensearch import connect
from stoa_contracts.declarations import Service, Store
from stoa_ops.settings import OperatorSettings

_SECONDS = 5


@asynccontextmanager
async def opened(settings: OperatorSettings, service: Service) -> AsyncIterator[Any]:
    """Connect to a service's store, whatever it is: what its `audit.py` reads from.

    Raises OSError or an error of the client if the store can't be reached, ValueError for a kind of store
    that is not read here.
    """
    if service.store is Store.POSTGRES:
        async with postgres(settings, service.name) as connection:
            yield connection
    elif service.store is Store.MONGO:
        async with mongo(settings, service.name) as database:
            yield database
    elif service.store is Store.REDIS:
        async with redis(settings, service.name) as client:
            yield client
    elif service.store is Store.OPENSEARCH:
        async with opensearch(settings, service.name) as client:
            yield client
    else:
        raise ValueError(f"{service.name}: nothing here reads the store {service.store}")


@asynccontextmanager
async def postgres(settings: OperatorSettings, service: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a service's database. Raises OSError or an error of asyncpg."""
    connection = await asyncpg.connect(settings.store_url(service), timeout=_SECONDS)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def mongo(settings: OperatorSettings, service: str) -> AsyncIterator[AsyncDatabase[dict[str, Any]]]:
    """A service's document database; what uses it raises an error of pymongo."""
    async with AsyncMongoClient[dict[str, Any]](
        settings.store_url(service),
        serverSelectionTimeoutMS=_SECONDS * 1000,
        tz_aware=True,
        uuidRepresentation="standard",
    ) as client:
        yield client.get_default_database(service)


@asynccontextmanager
async def redis(settings: OperatorSettings, service: str) -> AsyncIterator[Redis]:
    """A client of a service's Redis; what uses it raises an error of redis."""
    async with Redis.from_url(settings.store_url(service), socket_timeout=_SECONDS) as client:
        yield client


@asynccontextmanager
async def opensearch(settings: OperatorSettings, service: str) -> AsyncIterator[AsyncOpenSearch]:
    """A client of a service's search engine; what uses it raises an error of the client, or Unavailable."""
    async with connect(settings.store_url(service), connect_timeout=0) as client:
        yield client
