"""Who answers reads that may lag, with servers that the test plays."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import asyncpg
import pytest
from prometheus_client import REGISTRY

from stoa_chassis.app import App
from stoa_chassis.errors import Unavailable
from stoa_chassis.postgres import Database
from stoa_chassis.postgres_replica import Replica
from stoa_chassis.settings import PostgresSettings
from stoa_chassis.testing import eventually

MAX_LAG = 0.4
PATIENCE = 0.1
FROM_REPLICA: list[Any] = ["replica"]
FROM_PRIMARY: list[Any] = ["primary"]


class Played:
    """A server: how far its log is, and what it does when it is asked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.position: int | None = 100
        self.on_read: Callable[[], Awaitable[None]] = self.answers
        self.is_looked_at = True
        """Whether it does the same when it is asked how far it is."""
        self.reads = 0

    async def answers(self) -> None:
        pass

    async def is_silent(self) -> None:
        await asyncio.Event().wait()

    async def is_down(self) -> None:
        raise Unavailable("the database can't be reached")

    async def refuses(self) -> None:
        raise asyncpg.SerializationError("canceling statement due to conflict with recovery")

    async def fetch(self, query: str, *args: Any) -> list[Any]:
        self.reads += 1
        await self.on_read()
        return [self.name]

    async def fetchval(self, query: str, *, timeout: float = 0) -> int | None:  # noqa: ASYNC109
        if self.is_looked_at:
            await self.on_read()
        return self.position

    @asynccontextmanager
    async def dedicated(self) -> AsyncIterator["Played"]:
        yield self


@pytest.fixture
def primary() -> Played:
    return Played("primary")


@pytest.fixture
def standby() -> Played:
    return Played("replica")


@pytest.fixture
async def reads(primary: Played, standby: Played) -> AsyncIterator[Replica]:
    replica = Replica(cast(Database, primary), cast(Database, standby), MAX_LAG, PATIENCE)
    watch = asyncio.ensure_future(replica.watch())
    yield replica
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)


async def answered_by(reads: Replica, who: list[Any]) -> None:
    async def look() -> bool:
        return await reads.fetch("SELECT") == who

    await eventually(look)


async def test_the_primary_answers_until_the_replica_is_known_to_be_close_behind(
    primary: Played, standby: Played
) -> None:
    replica = Replica(cast(Database, primary), cast(Database, standby), MAX_LAG)
    assert await replica.fetch("SELECT") == FROM_PRIMARY
    assert cast(str, await replica.fetchrow("SELECT")) == "primary"
    assert not standby.reads


async def test_a_service_without_a_replica_reads_the_primary_and_one_whose_replica_is_not_there_as_well(
    primary: Played,
) -> None:
    without = App("order", PostgresSettings())
    assert await without.replica(cast(Database, primary)) is cast(Database, primary)
    lost = App("order", PostgresSettings(database_replica_url="postgresql://nobody@127.0.0.1:1/order"))
    async with lost._resources:
        replica = await lost.replica(cast(Database, primary))
        assert isinstance(replica, Replica)
        assert await replica.fetch("SELECT") == FROM_PRIMARY


async def test_the_replica_answers_however_long_nobody_writes(reads: Replica) -> None:
    await answered_by(reads, FROM_REPLICA)
    await asyncio.sleep(2 * MAX_LAG)
    assert await reads.fetch("SELECT") == FROM_REPLICA
    assert cast(str, await reads.fetchrow("SELECT")) == "replica"


async def test_the_primary_answers_while_the_replica_is_too_far_behind(
    reads: Replica, primary: Played, standby: Played
) -> None:
    await answered_by(reads, FROM_REPLICA)
    primary.position = 200
    await answered_by(reads, FROM_PRIMARY)
    await asyncio.sleep(MAX_LAG)
    assert await reads.fetch("SELECT") == FROM_PRIMARY
    assert (REGISTRY.get_sample_value("stoa_database_replica_lag_seconds") or 0) > MAX_LAG
    standby.position = 200
    await answered_by(reads, FROM_REPLICA)


async def test_nobody_waits_for_a_silent_replica_but_those_who_have_asked_it(
    reads: Replica, standby: Played
) -> None:
    await answered_by(reads, FROM_REPLICA)
    standby.on_read = standby.is_silent
    before = standby.reads
    async with asyncio.timeout(5 * PATIENCE):
        answers = await asyncio.gather(*(reads.fetch("SELECT") for _ in range(20)))
    assert answers == [FROM_PRIMARY] * 20
    asked = standby.reads - before
    async with asyncio.timeout(5 * PATIENCE):
        for _ in range(100):
            assert await reads.fetch("SELECT") == FROM_PRIMARY
    assert standby.reads - before == asked
    standby.on_read = standby.answers
    await answered_by(reads, FROM_REPLICA)


async def test_a_replica_that_says_that_it_is_well_and_answers_no_reads_is_left_alone_for_a_while(
    reads: Replica, standby: Played
) -> None:
    await answered_by(reads, FROM_REPLICA)
    standby.on_read, standby.is_looked_at = standby.is_silent, False
    before = standby.reads
    for _ in range(20):
        assert await reads.fetch("SELECT") == FROM_PRIMARY
        await asyncio.sleep(MAX_LAG / 20)
    assert standby.reads == before + 1


async def test_the_primary_answers_while_the_replica_is_down(reads: Replica, standby: Played) -> None:
    await answered_by(reads, FROM_REPLICA)
    standby.on_read = standby.is_down
    for _ in range(3):
        assert await reads.fetch("SELECT") == FROM_PRIMARY
    standby.on_read = standby.answers
    await answered_by(reads, FROM_REPLICA)


async def test_a_statement_that_the_replica_takes_back_is_the_only_one_that_the_primary_answers(
    reads: Replica, standby: Played
) -> None:
    await answered_by(reads, FROM_REPLICA)
    standby.on_read, standby.is_looked_at = standby.refuses, False
    assert await reads.fetch("SELECT") == FROM_PRIMARY
    standby.on_read = standby.answers
    assert await reads.fetch("SELECT") == FROM_REPLICA


async def test_a_server_that_follows_nobody_is_not_read(reads: Replica, standby: Played) -> None:
    await answered_by(reads, FROM_REPLICA)
    standby.position = None
    await answered_by(reads, FROM_PRIMARY)
    await asyncio.sleep(MAX_LAG)
    assert await reads.fetch("SELECT") == FROM_PRIMARY


async def test_another_primary_that_lacks_the_end_of_the_log_is_followed(
    reads: Replica, primary: Played, standby: Played
) -> None:
    await answered_by(reads, FROM_REPLICA)
    primary.position = 300
    await answered_by(reads, FROM_PRIMARY)
    primary.position = standby.position = 250
    await answered_by(reads, FROM_REPLICA)


async def test_who_answered_is_counted(reads: Replica, standby: Played) -> None:
    def counted(server: str) -> float:
        return REGISTRY.get_sample_value("stoa_database_reads_total", {"server": server}) or 0

    def breaker() -> float | None:
        return REGISTRY.get_sample_value("stoa_breaker_state", {"target": "database replica"})

    await answered_by(reads, FROM_REPLICA)
    before = counted("replica"), counted("primary")
    await reads.fetch("SELECT")
    await eventually(lambda: breaker() == 0)
    standby.on_read = standby.is_down
    await reads.fetch("SELECT")
    assert (counted("replica"), counted("primary")) == (before[0] + 1, before[1] + 1)
    assert breaker() == 2
