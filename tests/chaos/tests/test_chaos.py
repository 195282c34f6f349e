"""The same seed breaks the same things, everything is healed again, and no wrong is overlooked."""

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from itertools import combinations
from pathlib import Path
from uuid import UUID, uuid4

import psutil  # type: ignore[import-untyped]  # no types
import pytest

from stoa_chaos.errands import Habit, errands
from stoa_chaos.faults import FAULTS, striking
from stoa_chaos.ground import Ground, NotThere
from stoa_chaos.record import Record
from stoa_chaos.report import Report, Struck
from stoa_chaos.schedule import Strike, schedule
from stoa_chassis.testing import eventually
from stoa_ops.audit.books import Books, Order
from stoa_stack.instance import Instance
from stoa_stack.parts import parts
from stoa_stack.status import PartStatus, State, Status
from stoa_stack.up import status_file


def _listed(strikes: list[Strike]) -> list[str]:
    return [str(strike) for strike in strikes]


def test_the_same_seed_gives_the_same_schedule_and_another_seed_another() -> None:
    first, again, other = (_listed(schedule(FAULTS, 60, 960, seed)) for seed in (7, 7, 8))
    assert first == again != other


def test_the_same_seed_gives_the_same_errands() -> None:
    assert errands(200, 60, 7) == errands(200, 60, 7) != errands(200, 60, 8)
    assert {errand.habit for errand in errands(200, 60, 7)} == set(Habit)


@pytest.mark.parametrize("seed", range(20))
def test_every_fault_strikes_each_of_its_targets_before_one_comes_again(seed: int) -> None:
    strikes = schedule(FAULTS, 60, 960, seed)
    counts = Counter((strike.fault.name, strike.target) for strike in strikes)
    assert len(strikes) == 60
    assert set(counts) == {(fault.name, target) for fault in FAULTS for target in fault.targets}
    assert max(counts.values()) <= 2


@pytest.mark.parametrize("seed", range(20))
def test_two_faults_never_work_on_the_same_target_at_once(seed: int) -> None:
    for first, second in combinations(schedule(FAULTS, 60, 960, seed), 2):
        assert first.target != second.target or second.at > first.at + first.lasts


def test_every_part_that_keeps_running_is_killed_and_frozen(tmp_path: Path) -> None:
    running = {part.name for part in parts(Instance(tmp_path)) if part.ready is not None}
    for fault in FAULTS[:2]:
        assert set(fault.targets) == running, fault.name


def test_chaos_can_be_confined_to_some_parts() -> None:
    assert {target for fault in striking(["kafka", "order"]) for target in fault.targets} == {
        "kafka",
        "order",
    }
    assert striking([]) == list(FAULTS)


# ------------------------------------------------------------------------------- breaking and healing


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(Instance(tmp_path))


@pytest.fixture
def victim(ground: Ground) -> Iterator[psutil.Process]:
    """A process that the supervisor would have started as the part `order`."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        started = psutil.Process(process.pid)
        _write_status(ground, started.pid, started.create_time())
        yield started
        process.kill()


def _write_status(ground: Ground, pid: int, created: float) -> None:
    ground.at.folder("run")
    part = PartStatus(state=State.READY, pid=pid, created=created)
    Status(parts={"order": part}).write(status_file(ground.at))


async def test_a_frozen_part_goes_on_whatever_ends_the_fault(ground: Ground, victim: psutil.Process) -> None:
    with suppress(KeyboardInterrupt), ground.frozen("order"):
        await eventually(lambda: victim.status() == psutil.STATUS_STOPPED)
        raise KeyboardInterrupt
    await eventually(lambda: victim.status() != psutil.STATUS_STOPPED)


def test_a_part_that_had_no_space_has_it_again(ground: Ground, victim: psutil.Process) -> None:
    before = victim.rlimit(psutil.RLIMIT_FSIZE)
    with suppress(KeyboardInterrupt), ground.without_space("order"):
        assert victim.rlimit(psutil.RLIMIT_FSIZE)[0] == 0
        raise KeyboardInterrupt
    assert victim.rlimit(psutil.RLIMIT_FSIZE) == before


def test_a_killed_part_is_killed(ground: Ground, victim: psutil.Process) -> None:
    ground.kill("order")
    assert victim.wait(10) == -signal.SIGKILL


def test_a_process_that_got_the_pid_of_one_that_ended_is_left_alone(
    ground: Ground, victim: psutil.Process
) -> None:
    _write_status(ground, victim.pid, victim.create_time() - 60)
    with pytest.raises(NotThere):
        ground.kill("order")
    assert victim.is_running()


def test_a_part_without_a_process_is_not_there(ground: Ground) -> None:
    with pytest.raises(NotThere):
        ground.kill("order")


# ------------------------------------------------------------------------------- judging


def _shown(order_id: UUID, status: str) -> dict[str, str]:
    return {"order_id": str(order_id), "status": status}


def _report(record: Record, **orders: str) -> Report:
    books = Books()
    for order_id, status in orders.items():
        books.orders[UUID(order_id)] = Order(UUID(order_id), status, Decimal(10), Counter(), 1, 1)
    return Report(1, record, quiet=2.0, books=books)


def test_a_run_in_which_all_went_well_has_no_problems() -> None:
    record, order_id = Record(), uuid4()
    for status in ("pending", "confirmed", "pending"):  # the last is a late answer to an early request
        record.saw(_shown(order_id, status))
    report = _report(record, **{str(order_id): "confirmed"})
    assert report.problems == []
    assert json.loads(json.dumps(report.as_json()))["passed"] is True


def test_an_order_that_its_buyer_saw_and_the_books_have_not_is_a_problem() -> None:
    record = Record()
    record.saw(_shown(uuid4(), "pending"))
    (problem,) = _report(record).problems
    assert "is lost" in problem


def test_a_confirmation_that_is_taken_back_is_a_problem_unless_the_buyer_cancelled() -> None:
    taken_back, cancelled = uuid4(), uuid4()
    record = Record()
    for order_id in (taken_back, cancelled):
        record.saw(_shown(order_id, "confirmed"))
    record.cancelled(str(cancelled))
    for order_id in (taken_back, cancelled):
        record.saw(_shown(order_id, "cancelled"))
    assert [str(taken_back) in complaint for complaint in record.complaints] == [True]


def test_books_that_say_otherwise_than_the_shopper_was_told_are_a_problem() -> None:
    record, order_id = Record(), uuid4()
    record.saw(_shown(order_id, "confirmed"))
    (problem,) = _report(record, **{str(order_id): "cancelled"}).problems
    assert "was shown to its buyer as confirmed, and is cancelled" in problem


def test_books_that_balance_too_late_and_a_shop_that_does_not_recover_are_problems() -> None:
    report = _report(Record())
    report.quiet = timedelta(minutes=2).total_seconds()
    (strike,) = schedule(FAULTS, 1, 10, 1)
    report.strikes = [Struck(strike, 1.0, answers=1.0), Struck(strike, 1.0, skipped="order has no process")]
    assert len(report.problems) == 2
