"""A pytest plugin: stores of their own for tests, on the servers that `stoa test` starts.

Tests marked `stack` need servers. Each module of tests gets a database, a key space or a document database
that nobody else uses, so that tests never meet the shop that runs beside them, and wipe nothing. The tests of
a service get its tables and a codec of its events, as the declaration of the service says. All tests get a
key for page tokens: a service in their process has no store from whose address it could come.
"""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import pytest

from stoa_chassis import paging
from stoa_chassis.avro import EventCodec
from stoa_chassis.kafka import Producer
from stoa_chassis.migrations import service_migrations
from stoa_chassis.postgres import Database
from stoa_contracts.declarations import Service
from stoa_events import PAYLOADS
from stoa_services import SERVICES


def _server(variable: str) -> str:
    address = os.environ.get(variable, "")
    if not address:
        pytest.fail(
            f"{variable} is not set: run it with `stoa test`, or leave such tests out with -m 'not stack'"
        )
    return address


@pytest.fixture(scope="session", autouse=True)
def _page_tokens_are_signed() -> Iterator[None]:
    """Sign page tokens in this process; those that tests start have settings of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paging, "_key", lambda: b"a key of the tests")
        yield


@pytest.fixture(scope="module")
async def database_url() -> AsyncIterator[str]:
    """The URL of a PostgreSQL database that the tests of a module share, and that is empty at first."""
    async with _new_database() as url:
        yield url


@pytest.fixture
async def empty_database() -> AsyncIterator[str]:
    """The URL of an empty PostgreSQL database that only one test uses."""
    async with _new_database() as url:
        yield url


@asynccontextmanager
async def _new_database() -> AsyncIterator[str]:
    server = _server("STOA_TEST_POSTGRES")
    name = f"test_{uuid4().hex}"
    await _execute(server, f'CREATE DATABASE "{name}"')
    try:
        yield f"{server.rsplit('/', 1)[0]}/{name}"
    finally:
        await _execute(server, f'DROP DATABASE "{name}" WITH (FORCE)')


async def _execute(server: str, statement: str) -> None:
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def mongo_url() -> str:
    """The URL of a document server."""
    return _server("STOA_TEST_MONGO")


@pytest.fixture(scope="session")
def redis_url() -> str:
    """The URL of a Redis database that no service uses."""
    return f"{_server('STOA_TEST_REDIS').rsplit('/', 1)[0]}/15"


@pytest.fixture(scope="session")
def opensearch_url() -> str:
    """The URL of a search engine."""
    return _server("STOA_TEST_OPENSEARCH")


@pytest.fixture(scope="session")
def kafka_bootstrap() -> str:
    """The address of a Kafka broker."""
    return _server("STOA_TEST_KAFKA")


@pytest.fixture(scope="session")
async def producer(kafka_bootstrap: str) -> AsyncIterator[Producer]:
    """A producer on that broker."""
    async with Producer(kafka_bootstrap) as opened:
        yield opened


@pytest.fixture(scope="session")
def schema_registry_url() -> str:
    """The URL of the schema registry, where the contracts are registered."""
    return _server("STOA_TEST_REGISTRY")


@pytest.fixture(scope="module")
def tested_service(request: pytest.FixtureRequest) -> Service:
    """The declaration of the service whose folder these tests are in."""
    folder = next(folder for folder in request.path.parents if (folder / "service.toml").is_file())
    return SERVICES[folder.name]


@pytest.fixture(scope="module")
async def database(database_url: str, tested_service: Service) -> AsyncIterator[Database]:
    """A PostgreSQL database with the service's tables, which the tests of a module share."""
    async with Database.connect(database_url, service_migrations(tested_service.name)) as connected:
        yield connected


@pytest.fixture(scope="module")
async def codec(schema_registry_url: str, tested_service: Service) -> EventCodec:
    """A codec of the events that the service publishes."""
    loaded = EventCodec(schema_registry_url)
    await loaded.load(*(PAYLOADS[topic] for topic in tested_service.publishes))
    return loaded
