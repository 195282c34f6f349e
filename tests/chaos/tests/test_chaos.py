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

import httpx
import psutil  # type: ignore[import-untyped]  # no types
import pytest

import stoa_rest
from stoa_chaos.fault_injection import FaultInjector, NotRunning
from stoa_chaos.faults import FAULTS, striking, targets
from stoa_chaos.journeys import Habit, journeys
from stoa_chaos.probes import request_for
from stoa_chaos.record import Record
from stoa_chaos.report import Report, Struck
from stoa_chaos.schedule import Strike, schedule
from stoa_chaos.shopper import GaveUp, Shopper
from stoa_chassis.testing import eventually
from stoa_ops.audit.books import ShopBooks
from stoa_order import audit as order_audit
from stoa_rest import GET_CART, GET_INVENTORY, GET_PRODUCT, GET_USER, LIST_USER_ORDERS, Operation
from stoa_services import SERVICES
from stoa_stack.instance import Instance
from stoa_stack.parts import parts
from stoa_stack.rest import ApiError
from stoa_stack.shopping import Item
from stoa_stack.status import PartStatus, State, Status
from stoa_stack.stores import store_of
from stoa_stack.up import status_file


def _listed(strikes: list[Strike]) -> list[str]:
    return [str(strike) for strike in strikes]


def test_the_same_seed_gives_the_same_schedule_and_another_seed_another() -> None:
    first, again, other = (_listed(schedule(FAULTS, 60, 960, seed)) for seed in (7, 7, 8))
    assert first == again != other


def test_the_same_seed_gives_the_same_journeys() -> None:
    assert journeys(200, 60, 7) == journeys(200, 60, 7) != journeys(200, 60, 8)
    assert {journey.habit for journey in journeys(200, 60, 7)} == set(Habit)


@pytest.mark.parametrize("seed", range(20))
def test_every_fault_strikes_each_of_its_targets_before_one_comes_again(seed: int) -> None:
    once = Counter((fault.name, target) for fault, target in targets(FAULTS))
    strikes = schedule(FAULTS, len(once) + 5, 960, seed)
    counts = Counter((strike.fault.name, strike.target) for strike in strikes)
    assert counts.keys() == once.keys()
    assert (max(counts.values()), counts.total()) == (2, len(once) + 5)


@pytest.mark.parametrize("seed", range(20))
def test_two_faults_never_work_on_the_same_target_at_once(seed: int) -> None:
    for first, second in combinations(schedule(FAULTS, 60, 960, seed), 2):
        assert first.target != second.target or second.at > first.at + first.lasts


def test_every_part_that_keeps_running_is_killed_and_frozen(tmp_path: Path) -> None:
    running = {part.name for part in parts(Instance(tmp_path)) if part.ready is not None}
    for fault in FAULTS[:2]:
        assert set(fault.targets) == running, fault.name


def test_every_group_of_consumers_is_rebalanced_and_every_store_killed_as_often_as_it_starts() -> None:
    struck = {fault.name: set(fault.targets) for fault in FAULTS}
    assert struck["rebalanced all the time"] == {
        name for name, service in SERVICES.items() if service.consumes
    }
    stores = filter(None, map(store_of, SERVICES.values()))
    assert struck["killed as often as it starts"] >= {store.part for store in stores}


@pytest.mark.parametrize(
    ("part", "operation"),
    [
        ("user", GET_USER),
        ("cart", GET_CART),
        ("valkey", GET_CART),
        ("order", LIST_USER_ORDERS),
        ("inventory", GET_INVENTORY),
        ("mongo", GET_PRODUCT),
        ("kafka", GET_PRODUCT),
    ],
)
def test_what_comes_back_is_asked_for_something_that_needs_it(part: str, operation: Operation) -> None:
    item = Item("a-product", "a-variant")
    asked, target = request_for(part, "a-user", item)
    assert asked == operation
    assert "{" not in target


def test_chaos_can_be_confined_to_some_parts() -> None:
    assert {target for fault in striking(["kafka", "order"]) for target in fault.targets} == {
        "kafka",
        "order",
    }
    assert striking([]) == list(FAULTS)


# ------------------------------------------------------------------------------- breaking and healing


@pytest.fixture
def injector(tmp_path: Path) -> FaultInjector:
    return FaultInjector(Instance(tmp_path))


@pytest.fixture
def victim(injector: FaultInjector) -> Iterator[psutil.Process]:
    """A process that the supervisor would have started as the part `order`."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        started = psutil.Process(process.pid)
        _write_status(injector, started.pid, started.create_time())
        yield started
        process.kill()


def _write_status(injector: FaultInjector, pid: int, created: float) -> None:
    injector.at.folder("run")
    part = PartStatus(state=State.READY, pid=pid, created=created)
    Status(parts={"order": part}).write(status_file(injector.at))


async def test_a_frozen_part_goes_on_whatever_ends_the_fault(
    injector: FaultInjector, victim: psutil.Process
) -> None:
    with suppress(KeyboardInterrupt), injector.frozen("order"):
        await eventually(lambda: victim.status() == psutil.STATUS_STOPPED)
        raise KeyboardInterrupt
    await eventually(lambda: victim.status() != psutil.STATUS_STOPPED)


def test_a_part_that_had_no_space_has_it_again(injector: FaultInjector, victim: psutil.Process) -> None:
    before = victim.rlimit(psutil.RLIMIT_FSIZE)
    with suppress(KeyboardInterrupt), injector.without_space("order"):
        assert victim.rlimit(psutil.RLIMIT_FSIZE)[0] == 0
        raise KeyboardInterrupt
    assert victim.rlimit(psutil.RLIMIT_FSIZE) == before


def test_a_killed_part_is_killed(injector: FaultInjector, victim: psutil.Process) -> None:
    injector.kill("order")
    assert victim.wait(10) == -signal.SIGKILL


def test_a_process_that_got_the_pid_of_one_that_ended_is_left_alone(
    injector: FaultInjector, victim: psutil.Process
) -> None:
    _write_status(injector, victim.pid, victim.create_time() - 60)
    with pytest.raises(NotRunning):
        injector.kill("order")
    assert victim.is_running()


def test_a_part_without_a_process_is_not_there(injector: FaultInjector) -> None:
    with pytest.raises(NotRunning):
        injector.kill("order")


# ------------------------------------------------------------------------------- insisting


def _shopper(*answers: httpx.Response | Exception, timeout: float = 60) -> Shopper:
    left = list(answers)

    def answer(_: httpx.Request) -> httpx.Response:
        given = left.pop(0)
        if isinstance(given, Exception):
            raise given
        return given

    http = httpx.AsyncClient(base_url="http://shop", transport=httpx.MockTransport(answer))
    return Shopper(http, Record(), Counter(), timeout=timeout, pause=0.001)


def _refused(status: int, reason: str) -> httpx.Response:
    return httpx.Response(status, json={"message": "no", "details": [{"reason": reason}]})


async def test_a_shopper_insists_until_there_is_an_answer_and_every_try_is_counted() -> None:
    order_id = uuid4()
    shopper = _shopper(
        _refused(503, ""),
        httpx.ConnectError("gone"),
        _refused(409, "REQUEST_IN_PROGRESS"),
        httpx.Response(200, json=_shown(order_id, "confirmed")),
    )
    assert (await shopper.place("tok_visa", "a-request"))["order_id"] == str(order_id)
    assert shopper.record.orders == {order_id: "confirmed"}
    assert shopper.requests == {"503 unavailable": 1, "no connection": 1, "409 refused": 1, "answered": 1}


async def test_a_refusal_is_raised_and_an_internal_error_is_a_complaint() -> None:
    shopper = _shopper(_refused(400, "OUT_OF_STOCK"), _refused(500, ""))
    for complaints in (0, 1):
        with pytest.raises(ApiError):
            await shopper.add(Item("a-product", "a-variant"), 1)
        assert len(shopper.record.complaints) == complaints


async def test_a_shopper_gives_up_after_a_time() -> None:
    with pytest.raises(GaveUp):
        await _shopper(_refused(503, ""), timeout=-1).list_categories()


# ------------------------------------------------------------------------------- judging


def _shown(order_id: UUID, status: str) -> stoa_rest.Order:
    return {"order_id": str(order_id), "status": status}


def _report(record: Record, **orders: str) -> Report:
    told = {
        UUID(order_id): order_audit.Order(UUID(order_id), status, Decimal(10), 1, 1, "", {})
        for order_id, status in orders.items()
    }
    return Report(1, record, quiet=2.0, books=ShopBooks({"order": order_audit.Books(told)}))


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
