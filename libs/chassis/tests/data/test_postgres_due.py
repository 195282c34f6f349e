"""Rows that fall due."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from stoa_chassis.due import Backoff
from stoa_chassis.postgres import Database
from stoa_chassis.postgres_due import DueTable

pytestmark = pytest.mark.stack
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
BACKOFF = Backoff(SECOND, 10 * SECOND)
JOBS = DueTable("jobs", key="job")
DEADLINED = DueTable("jobs", key="job", deadline="latest_at")


@pytest.fixture
async def jobs(database: Database) -> Database:
    """A database with a table of jobs."""
    await database.execute(
        "CREATE TABLE jobs (job int PRIMARY KEY, due_at timestamptz, latest_at timestamptz,"
        " attempts int NOT NULL DEFAULT 0)"
    )
    return database


async def add(
    jobs: Database, job: int, due: datetime | None, attempts: int = 0, latest: datetime | None = None
) -> None:
    await jobs.execute(
        "INSERT INTO jobs (job, due_at, attempts, latest_at) VALUES ($1, $2, $3, $4)",
        job,
        due,
        attempts,
        latest,
    )


async def due_at(jobs: Database, job: int) -> datetime | None:
    due: datetime | None = await jobs.fetchval("SELECT due_at FROM jobs WHERE job = $1", job)
    return due


async def claimed(
    jobs: Database, now: datetime = NOW, limit: int = 10, table: DueTable = JOBS
) -> Sequence[int]:
    return sorted(row["job"] for row in await table.claim(jobs, now, limit, BACKOFF))


async def test_what_is_due_is_claimed_the_longest_waiting_first(jobs: Database) -> None:
    for job, due in enumerate([NOW + SECOND, NOW, NOW - 2 * SECOND, None, NOW - SECOND]):
        await add(jobs, job, due)
    assert await claimed(jobs, limit=2) == [2, 4]
    assert await claimed(jobs) == [1]
    assert await claimed(jobs) == []
    assert await claimed(jobs, NOW + SECOND, limit=1) == [0]


async def test_a_claim_counts_the_attempt_and_returns_the_whole_row(jobs: Database) -> None:
    await add(jobs, 1, NOW, attempts=2)
    (row,) = await JOBS.claim(jobs, NOW, 10, BACKOFF)
    assert dict(row) == {"job": 1, "attempts": 3, "due_at": NOW + 4 * SECOND, "latest_at": None}


@pytest.mark.parametrize(("attempts", "seconds"), [(0, 1), (1, 2), (3, 8), (4, 10), (1_000_000, 10)])
async def test_what_was_claimed_falls_due_again_later_each_time(
    jobs: Database, attempts: int, seconds: int
) -> None:
    await add(jobs, 1, NOW, attempts)
    await claimed(jobs)
    assert await due_at(jobs, 1) == NOW + seconds * SECOND


async def test_what_was_claimed_is_left_alone_for_its_lease(jobs: Database) -> None:
    await add(jobs, 1, NOW)
    await add(jobs, 2, NOW, attempts=20)
    await JOBS.claim(jobs, NOW, 10, BACKOFF, lease=5 * SECOND)
    assert await due_at(jobs, 1) == NOW + 5 * SECOND
    assert await due_at(jobs, 2) == NOW + 10 * SECOND


async def test_a_deadline_that_is_to_come_is_not_slept_through(jobs: Database) -> None:
    await add(jobs, 1, NOW, attempts=20, latest=NOW + 3 * SECOND)
    await add(jobs, 2, NOW, attempts=20, latest=NOW - SECOND)
    await add(jobs, 3, NOW, attempts=20)
    assert await claimed(jobs, table=DEADLINED) == [1, 2, 3]
    assert await due_at(jobs, 1) == NOW + 3 * SECOND
    assert await due_at(jobs, 2) == await due_at(jobs, 3) == NOW + 10 * SECOND


async def test_several_who_claim_at_once_get_different_rows_without_waiting(jobs: Database) -> None:
    for job in range(20):
        await add(jobs, job, NOW)
    async with jobs.transaction() as connection:
        held = [row["job"] for row in await JOBS.claim(connection, NOW, 5, BACKOFF)]
        async with asyncio.timeout(5):
            others = await asyncio.gather(*(claimed(jobs, limit=5) for _ in range(3)))
    everything = sorted([*held, *(job for each in others for job in each)])
    assert everything == list(range(20))


async def test_the_next_that_falls_due_is_known(jobs: Database) -> None:
    assert await JOBS.next_due(jobs) is None
    await add(jobs, 1, None)
    assert await JOBS.next_due(jobs) is None
    await add(jobs, 2, NOW + SECOND)
    await add(jobs, 3, NOW)
    assert await JOBS.next_due(jobs) == NOW


async def test_what_is_put_off_falls_due_then_unless_it_was_finished(jobs: Database) -> None:
    await add(jobs, 1, NOW)
    await add(jobs, 2, None)
    await add(jobs, 3, NOW)
    for job in (1, 2):
        await JOBS.put_off(jobs, job, NOW + 7 * SECOND)
    assert [await due_at(jobs, job) for job in (1, 2, 3)] == [NOW + 7 * SECOND, None, NOW]


async def test_each_takes_one_statement(jobs: Database) -> None:
    await add(jobs, 1, NOW)
    before = jobs.statements
    await claimed(jobs)
    await JOBS.next_due(jobs)
    await JOBS.put_off(jobs, 1, NOW)
    assert jobs.statements - before == 3
