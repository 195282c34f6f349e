"""Reads that may lag, on a primary and a streaming replica that really run: who answers while what fails.

All the time somebody reads, again and again, as shoppers do; whatever happens to the replica, each read is
answered, soon, and with what was true at most so long ago as the setting allows.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest

from stoa_chassis.migrations import service_migrations
from stoa_chassis.postgres import Database
from stoa_chassis.postgres_replica import Replica
from stoa_chassis.testing import eventually
from stoa_user.repository import Profiles
from tests.postgres import Server

pytestmark = [pytest.mark.stack, pytest.mark.own_stack, pytest.mark.slow]

MAX_LAG = 1.0
_WHO_AND_HOW_OLD = "SELECT pg_is_in_recovery() AS on_replica, clock_timestamp() - at AS age FROM written"
SOON = 2.5  # seconds: more than a read waits for a silent replica, on a busy machine; far less than a timeout


@dataclass
class Reader:
    """Reads again and again, and remembers the worst."""

    reads: Replica
    from_replica: bool | None = None
    stalest: float = 0.0
    seconds: list[float] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            began = time.monotonic()
            (row,) = await self.reads.fetch(_WHO_AND_HOW_OLD)
            self.seconds.append(time.monotonic() - began)
            self.from_replica = row["on_replica"]
            self.stalest = max(self.stalest, row["age"].total_seconds())
            await asyncio.sleep(0.02)


@dataclass
class Shop:
    """A primary and its replica, somebody who writes and somebody who reads."""

    standby: Server
    database: Database
    reads: Replica
    reader: Reader

    async def reads_come_from_the_replica(self) -> None:
        await eventually(lambda: self.reader.from_replica is True, within=20)

    async def reads_come_from_the_primary(self) -> None:
        await eventually(lambda: self.reader.from_replica is False, within=20)


@pytest.fixture(scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    tmp_path = tmp_path_factory.mktemp("servers")
    primary = Server.primary(tmp_path / "primary")
    await primary.start()
    standby = primary.replica(tmp_path / "standby")
    try:
        await standby.start()
        url, replica_url = primary.url("postgres"), standby.url("postgres")
        async with (
            Database.connect(url, service_migrations("user")) as database,
            Replica.connect(database, replica_url, 5, MAX_LAG) as reads,
        ):
            await database.execute("CREATE TABLE written AS SELECT clock_timestamp() AS at")
            reader = Reader(reads)
            async with running(reads.watch(), reader.run()):
                yield Shop(standby, database, reads, reader)
    finally:
        standby.kill()
        primary.kill()


async def write(database: Database) -> None:
    """Write so often that what is read tells its age."""
    while True:
        await database.execute("UPDATE written SET at = clock_timestamp()")
        await asyncio.sleep(0.02)


@asynccontextmanager
async def running(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do something beside the test, which must not fail before the test ends."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        yield
        assert not any(task.done() for task in tasks), [task for task in tasks if task.done()]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_whatever_happens_to_the_replica_reads_are_answered_soon_and_by_nothing_older_than_allowed(
    shop: Shop,
) -> None:
    async with running(write(shop.database)):
        await shop.reads_come_from_the_replica()
        await survives_what_happens(shop)
    assert max(shop.reader.seconds) < SOON
    assert shop.reader.stalest < MAX_LAG + 0.5  # it was read before it was compared


async def survives_what_happens(shop: Shop) -> None:
    # It follows and does not apply: soon it would show what is too old.
    await shop.standby.execute("SELECT pg_wal_replay_pause()")
    await shop.reads_come_from_the_primary()
    await shop.standby.execute("SELECT pg_wal_replay_resume()")
    await shop.reads_come_from_the_replica()

    # It is silent, and its connections are still there.
    shop.standby.freeze()
    await shop.reads_come_from_the_primary()
    before = len(shop.reader.seconds)
    await asyncio.sleep(3 * MAX_LAG)
    assert max(shop.reader.seconds[before:]) < SOON / 5  # nobody waits for it any more
    shop.standby.thaw()
    await shop.reads_come_from_the_replica()

    # It is gone.
    shop.standby.kill()
    await shop.reads_come_from_the_primary()
    await shop.standby.start()
    await shop.reads_come_from_the_replica()


async def test_a_profile_is_read_from_the_replica_though_nobody_writes(shop: Shop) -> None:
    user_id = uuid4()
    await shop.database.execute(
        "INSERT INTO users (user_id, email, password_hash, first_name, last_name, created_at, updated_at)"
        " VALUES ($1, 'ann@mail.test', '', 'Ann', 'Lee', now(), now())",
        user_id,
    )
    await shop.reads_come_from_the_replica()
    await asyncio.sleep(2 * MAX_LAG)
    assert shop.reader.from_replica
    found = await eventually(lambda: Profiles(shop.reads).get(user_id))
    assert found.first_name == "Ann"
