"""Work that falls due, on a store that tests fill and break."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from structlog.testing import CapturingLogger

from stoa_chassis import due
from stoa_chassis.context import correlation_id
from stoa_chassis.due import Backoff, DueWork
from stoa_chassis.testing import SettableClock, eventually

LEASE = timedelta(seconds=30)
BACKOFF = Backoff(timedelta(seconds=1), timedelta(seconds=10))


@dataclass
class Job:
    """Something to do."""

    name: str
    due_at: datetime | None
    attempts: int = 0

    @property
    def correlation_id(self) -> str:
        return f"request of {self.name}"


class Jobs:
    """A store of jobs."""

    def __init__(self, clock: SettableClock) -> None:
        self.clock = clock
        self.jobs: list[Job] = []
        self.error: Exception | None = None
        self.looks = 0
        self.claims = 0

    def add(self, *names: str, after: timedelta = timedelta()) -> None:
        self.jobs += [Job(name, self.clock.now() + after) for name in names]

    def job(self, name: str) -> Job:
        return next(job for job in self.jobs if job.name == name)

    async def claim_due(self, now: datetime, limit: int) -> Sequence[Job]:
        self.claims += 1
        if self.error is not None:
            raise self.error
        claimed = [job for job in self.jobs if job.due_at is not None and job.due_at <= now][:limit]
        for job in claimed:
            job.attempts += 1
            job.due_at = now + LEASE
        return claimed

    async def next_due(self) -> datetime | None:
        self.looks += 1
        return min((job.due_at for job in self.jobs if job.due_at), default=None)

    async def put_off(self, work: Job, until: datetime) -> None:
        if work.due_at is not None:
            work.due_at = until


class ForNobody(Job):
    """Something to do of which it is not known what caused it."""

    correlation_id = ""


@dataclass
class Worker:
    """Does jobs, unless a test says otherwise."""

    done: list[str] = field(default_factory=list)
    correlation_ids: list[str] = field(default_factory=list)
    hanging: set[str] = field(default_factory=set)
    failing: dict[str, Exception] = field(default_factory=dict)
    at_once: int = 0
    most_at_once: int = 0

    async def do(self, job: Job) -> None:
        self.correlation_ids.append(correlation_id())
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            await asyncio.sleep(0)
            while job.name in self.hanging:  # noqa: ASYNC110  # a test takes it out at any time
                await asyncio.sleep(0.005)
            if error := self.failing.get(job.name):
                raise error
            self.done.append(job.name)
            job.due_at = None
        finally:
            self.at_once -= 1


@pytest.fixture
def jobs() -> Jobs:
    return Jobs(SettableClock())


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def work(jobs: Jobs, worker: Worker) -> DueWork[Job]:
    return DueWork(jobs, worker.do, BACKOFF, jobs.clock, concurrency=3)


@asynccontextmanager
async def running(run: Callable[[], Awaitable[None]]) -> AsyncIterator["asyncio.Future[None]"]:
    """Run beside the block."""
    task = asyncio.ensure_future(run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, BaseExceptionGroup):
            await task


# ------------------------------------------------------------------------------------------------ backing off


@pytest.mark.parametrize(
    ("attempts", "seconds"), [(0, 1), (1, 2), (2, 4), (3, 8), (4, 10), (5, 10), (1_000_000, 10)]
)
def test_pauses_double_up_to_the_longest_and_are_spread_out(attempts: int, seconds: float) -> None:
    pauses = {BACKOFF.after(attempts) / timedelta(seconds=seconds) for _ in range(50)}
    assert 0.75 <= min(pauses) <= max(pauses) <= 1
    assert len(pauses) > 1


def test_however_often_something_was_tried_its_pause_is_a_time() -> None:
    endless = Backoff(timedelta(microseconds=1), timedelta.max)
    assert endless.at_most(20) == endless.at_most(1_000_000) == timedelta(microseconds=2**20)


async def test_what_is_put_off_falls_due_later_the_more_often_it_was_tried(
    jobs: Jobs, work: DueWork[Job]
) -> None:
    jobs.add("job")
    job = jobs.job("job")
    waited = []
    for attempts in (1, 2, 3):
        job.attempts = attempts
        before = jobs.clock.now()
        await work.put_off(job)
        assert job.due_at is not None
        waited.append((job.due_at - before) / timedelta(seconds=2**attempts))
    assert all(0.75 <= each <= 1.01 for each in waited)


# -------------------------------------------------------------------------------------- what is due right now


async def test_what_is_due_is_worked_off_and_the_rest_waits(
    jobs: Jobs, work: DueWork[Job], worker: Worker
) -> None:
    jobs.add("now")
    jobs.add("later", after=timedelta(minutes=1))
    assert await work.work_off() == 1
    assert worker.done == ["now"]
    jobs.clock.at += timedelta(minutes=1)
    assert await work.work_off() == 1
    assert worker.done == ["now", "later"]
    assert await work.work_off() == 0


async def test_no_more_is_claimed_than_asked_for(jobs: Jobs, work: DueWork[Job], worker: Worker) -> None:
    jobs.add("a", "b", "c")
    assert await work.work_off(limit=2) == 2
    assert worker.done == ["a", "b"]


async def test_a_hundred_are_claimed_at_a_time_unless_more_are_asked_for(
    jobs: Jobs, work: DueWork[Job], worker: Worker
) -> None:
    jobs.add(*map(str, range(101)))
    assert [await work.work_off(), await work.work_off()] == [100, 1]


async def test_work_is_done_under_the_correlation_id_of_what_caused_it(
    jobs: Jobs, work: DueWork[Job], worker: Worker
) -> None:
    jobs.add("a", "b")
    await work.work_off()
    assert worker.correlation_ids == ["request of a", "request of b"]
    assert correlation_id() == ""


async def test_each_try_of_work_whose_cause_is_not_known_has_an_id_of_its_own(
    jobs: Jobs, work: DueWork[Job], worker: Worker
) -> None:
    jobs.jobs = [ForNobody("a", jobs.clock.now())]
    worker.failing["a"] = ConnectionError("down")
    await work.work_off()
    jobs.clock.at += LEASE
    await work.work_off()
    first, second = worker.correlation_ids
    assert first
    assert second
    assert first != second


@pytest.mark.parametrize("error", [LookupError("broken"), ConnectionError("down")], ids=["bug", "outage"])
async def test_work_that_fails_stops_nothing_else_and_falls_due_again(
    jobs: Jobs, work: DueWork[Job], worker: Worker, error: Exception
) -> None:
    jobs.add("bad", "good")
    worker.failing["bad"] = error
    await work.work_off()
    assert worker.done == ["good"]
    assert await work.work_off() == 0
    jobs.clock.at += LEASE
    worker.failing.clear()
    await work.work_off()
    assert worker.done == ["good", "bad"]
    assert jobs.job("bad").attempts == 2


@pytest.mark.parametrize(
    ("error", "logged"), [(LookupError("broken"), "exception"), (ConnectionError("down"), "info")], ids=str
)
async def test_a_bug_is_logged_with_where_it_is_and_an_outage_is_no_error(
    jobs: Jobs,
    work: DueWork[Job],
    worker: Worker,
    error: Exception,
    logged: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = CapturingLogger()
    monkeypatch.setattr(due, "_log", log)
    jobs.add("bad")
    worker.failing["bad"] = error
    await work.work_off()
    assert [call.method_name for call in log.calls] == [logged]
    assert "bad" not in str(log.calls), "what the work holds is private"


# ----------------------------------------------------------------------------------------- day in and day out


async def test_what_falls_due_is_done_when_it_does(jobs: Jobs, work: DueWork[Job], worker: Worker) -> None:
    jobs.add("now")
    jobs.add("soon", after=timedelta(seconds=0.1))
    async with running(work.run):
        await eventually(lambda: worker.done == ["now"])
        jobs.clock.advance(seconds=0.1)  # about as long as the worker sleeps now
        await eventually(lambda: worker.done == ["now", "soon"])
    assert worker.correlation_ids == ["request of now", "request of soon"]


async def test_what_is_new_is_done_as_soon_as_somebody_says_so(
    jobs: Jobs, work: DueWork[Job], worker: Worker
) -> None:
    async with running(work.run):
        await eventually(lambda: jobs.looks)
        jobs.add("job")
        work.wake()
        await eventually(lambda: worker.done, within=2)


async def test_what_is_put_off_is_done_when_it_falls_due_then(
    jobs: Jobs, work: DueWork[Job], worker: Worker
) -> None:
    async with running(work.run):
        await eventually(lambda: jobs.looks)
        jobs.add("job", after=LEASE)
        await work.put_off(jobs.job("job"))
        jobs.clock.at += BACKOFF.first
        await eventually(lambda: worker.done, within=2)


@pytest.mark.parametrize(("due_in", "pause"), [(-60, 0), (0, 0), (0.25, 0.25), (15, 15), (60, 15)])
async def test_it_looks_again_when_the_next_falls_due_or_a_sweep_later(
    jobs: Jobs, work: DueWork[Job], due_in: float, pause: float
) -> None:
    jobs.add("next", after=timedelta(seconds=due_in))
    assert await work._pause(full=False) == pause


async def test_what_another_process_left_behind_is_found_by_the_next_sweep(
    jobs: Jobs, worker: Worker
) -> None:
    work = DueWork(jobs, worker.do, BACKOFF, jobs.clock, sweep=timedelta(seconds=0.05))
    async with running(work.run):
        await eventually(lambda: jobs.looks)
        jobs.add("job")
        await eventually(lambda: worker.done, within=2)


async def test_twenty_are_done_at_once_and_others_looked_for_every_fifteen_seconds_unless_told_otherwise(
    jobs: Jobs, worker: Worker
) -> None:
    work = DueWork(jobs, worker.do, BACKOFF, jobs.clock)
    assert await work._pause(full=True) == 15
    names = [str(number) for number in range(21)]
    worker.hanging.update(names)
    jobs.add(*names)
    async with running(work.run):
        await eventually(lambda: worker.at_once == 20)
        assert not work.has_room
        worker.hanging.clear()
        await eventually(lambda: len(worker.done) == 21)
    assert worker.most_at_once == 20


async def test_work_that_hangs_does_not_keep_the_rest_waiting(
    jobs: Jobs, work: DueWork[Job], worker: Worker
) -> None:
    worker.hanging.add("hanging")
    jobs.add("hanging", *map(str, range(10)))
    async with running(work.run):
        await eventually(lambda: len(worker.done) == 10)
        worker.hanging.clear()
        await eventually(lambda: "hanging" in worker.done)
    assert worker.most_at_once <= 3


async def test_while_all_hang_no_more_is_begun_and_the_store_is_left_alone(
    jobs: Jobs, work: DueWork[Job], worker: Worker
) -> None:
    names = list("abcdef")
    worker.hanging.update(names)
    jobs.add(*names)
    async with running(work.run):
        await eventually(lambda: worker.at_once == 3)
        before, claims = jobs.looks, jobs.claims
        work.wake()
        await asyncio.sleep(0.1)
        assert jobs.looks - before <= 1
        assert jobs.claims == claims
        worker.hanging.clear()
        await eventually(lambda: sorted(worker.done) == names)
    assert worker.most_at_once == 3


async def test_an_outage_of_the_store_is_waited_out(
    jobs: Jobs, work: DueWork[Job], worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due, "_PAUSE_IN_OUTAGE", 0.01)
    jobs.add("job")
    jobs.error = ConnectionError("down")
    async with running(work.run) as run:
        await asyncio.sleep(0.05)
        assert not run.done()
        jobs.error = None
        await eventually(lambda: worker.done)


async def test_what_is_wrong_with_the_store_ends_it_with_what_it_had_begun(
    jobs: Jobs, work: DueWork[Job], worker: Worker
) -> None:
    worker.hanging.add("hanging")
    jobs.add("hanging")
    async with running(work.run) as run:
        await eventually(lambda: worker.at_once)
        jobs.error = LookupError("no such table")
        work.wake()
        with pytest.raises(ExceptionGroup) as ended:
            await run
    assert ended.group_contains(LookupError)
    assert worker.at_once == 0


# ------------------------------------------------------------------------------------ what is new and claimed


def stored_as_claimed(jobs: Jobs, name: str) -> Job:
    jobs.add(name, after=LEASE)
    job = jobs.job(name)
    job.attempts = 1
    return job


async def take_up_all_that_has_room(jobs: Jobs, work: DueWork[Job], worker: Worker) -> None:
    """As many as may be done at once, of which none ends while it hangs."""
    worker.hanging = {"a", "b", "c"}
    await eventually(lambda: work.has_room)
    for name in "abc":
        work.take_up(stored_as_claimed(jobs, name))


async def test_what_is_stored_as_claimed_is_done_at_once_without_a_claim(
    jobs: Jobs, work: DueWork[Job], worker: Worker
) -> None:
    assert not work.has_room, "it does not run yet"
    async with running(work.run):
        await eventually(lambda: work.has_room)
        looks = jobs.looks
        work.take_up(stored_as_claimed(jobs, "new"))
        await eventually(lambda: worker.done == ["new"])
        assert jobs.job("new").attempts == 1
        assert worker.correlation_ids == ["request of new"]
        assert jobs.looks <= looks + 1
    assert not work.has_room, "it has stopped"


async def test_what_is_taken_up_takes_room_and_what_is_due_is_looked_for_when_there_is_some_again(
    jobs: Jobs, work: DueWork[Job], worker: Worker
) -> None:
    async with running(work.run):
        await take_up_all_that_has_room(jobs, work, worker)
        assert not work.has_room
        jobs.add("due")
        work.wake()
        await asyncio.sleep(0.05)
        assert worker.done == []
        worker.hanging.clear()
        await eventually(lambda: len(worker.done) == 4)
        assert worker.most_at_once == 3


async def test_the_first_to_end_of_as_many_as_may_be_done_at_once_makes_room_for_what_is_due(
    jobs: Jobs, work: DueWork[Job], worker: Worker
) -> None:
    async with running(work.run):
        await take_up_all_that_has_room(jobs, work, worker)
        jobs.add("due")
        worker.hanging.remove("a")
        await eventually(lambda: worker.done == ["a", "due"], within=2)


async def test_what_was_stored_as_claimed_by_a_process_that_has_stopped_falls_due(
    jobs: Jobs, work: DueWork[Job], worker: Worker
) -> None:
    work.take_up(stored_as_claimed(jobs, "new"))
    assert await work.work_off() == 0
    jobs.clock.at += LEASE
    assert await work.work_off() == 1
    assert worker.done == ["new"]
