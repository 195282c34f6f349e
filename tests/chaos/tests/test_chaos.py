"""The same seed breaks the same things, everything is healed again, and no wrong is overlooked."""

import base64
import io
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from itertools import combinations, product
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import psutil  # type: ignore[import-untyped]  # no types
import pytest
from rich.console import Console

import stoa_rest
from stoa_chaos.fault_injection import FaultInjector, NotRunning
from stoa_chaos.faults import FAULTS, striking, targets
from stoa_chaos.journeys import Habit, Journey, journeys, play
from stoa_chaos.probes import request_for
from stoa_chaos.record import Record
from stoa_chaos.report import Recovery, Report, Spread, Struck
from stoa_chaos.returns import Decision, Parts, Returns, SendsBack
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
from stoa_stack.shopping import Item, amount, money
from stoa_stack.status import PartStatus, State, Status
from stoa_stack.stores import stores_of
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
    once = Counter((fault.name, fault.alone, target) for fault, target in targets(FAULTS))
    strikes = schedule(FAULTS, len(once) + 5, 960, seed)
    counts = Counter((strike.fault.name, strike.fault.alone, strike.target) for strike in strikes)
    assert counts.keys() == once.keys()
    assert (max(counts.values()), counts.total()) == (2, len(once) + 5)


@pytest.mark.parametrize("seed", range(20))
def test_two_faults_never_work_on_the_same_target_at_once(seed: int) -> None:
    for first, second in combinations(schedule(FAULTS, 60, 960, seed), 2):
        assert first.target != second.target or second.at > first.at + first.lasts


@pytest.mark.parametrize("seed", range(20))
def test_what_is_to_be_alone_comes_first_and_has_seconds_to_be_over(seed: int) -> None:
    count = len(targets(FAULTS))
    strikes = schedule(FAULTS, count, 1200, seed)
    alone = [strike for strike in strikes if strike.fault.alone]
    assert strikes[: len(alone)] == alone
    assert {strike.target for strike in alone} == {*FAULTS[0].targets}
    following = [*strikes[1 : len(alone) + 1]]
    assert min(after.at - strike.at for strike, after in zip(alone, following, strict=True)) > 8


@pytest.mark.parametrize("seed", range(20))
def test_a_short_run_has_its_share_of_what_overlaps(seed: int) -> None:
    strikes = schedule(FAULTS, 40, 300, seed)
    assert 20 < sum(not strike.fault.alone for strike in strikes) < 40


def test_every_part_that_keeps_running_is_killed_and_frozen(tmp_path: Path) -> None:
    running = {part.name for part in parts(Instance(tmp_path)) if part.ready is not None}
    for fault in FAULTS[:3]:
        assert set(fault.targets) == running, fault.name


def test_every_group_of_consumers_is_rebalanced_and_every_store_killed_as_often_as_it_starts() -> None:
    struck = {fault.name: set(fault.targets) for fault in FAULTS}
    assert struck["rebalanced all the time"] == {
        name for name, service in SERVICES.items() if service.consumes
    }
    stores = {store.part for service in SERVICES.values() for store in stores_of(service)}
    assert struck["killed as often as it starts"] >= stores


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


def _refused(status: int, reason: str, **metadata: str) -> httpx.Response:
    details = [{"reason": reason, "metadata": metadata}]
    return httpx.Response(status, json={"message": "no", "details": details})


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


def _signed_in() -> httpx.Response:
    claims = base64.urlsafe_b64encode(json.dumps({"sub": "a-user"}).encode()).decode()
    tokens = {"access_token": f".{claims}.", "refresh_token": "again", "expires_in": 900}
    return httpx.Response(200, json=tokens)


@pytest.mark.parametrize("refusal", [(401, "INVALID_CREDENTIALS"), (429, "SIGN_IN_LOCKED")])
async def test_a_wrong_password_is_refused_and_the_right_one_signs_in(refusal: tuple[int, str]) -> None:
    shopper = _shopper(_signed_in(), _refused(*refusal), _signed_in())
    await shopper.sign_in("robin@stoa.example", "a-password")
    await shopper.mistype_password()
    assert shopper.record.complaints == []


async def test_a_wrong_password_that_opens_an_account_is_a_complaint() -> None:
    shopper = _shopper(*[_signed_in() for _ in range(3)])
    await shopper.sign_in("robin@stoa.example", "a-password")
    await shopper.mistype_password()
    [complaint] = shopper.record.complaints
    assert "a wrong password" in complaint


async def test_a_shopper_gives_up_after_a_time() -> None:
    with pytest.raises(GaveUp):
        await _shopper(_refused(503, ""), timeout=-1).list_categories()


# ------------------------------------------------------------------------------- journeys


class _Shop:
    """A shop in a handler: a cart, its orders, cards that are refused; and what may be wrong with it."""

    def __init__(
        self,
        *,
        sells_twice: bool = False,
        loses_carts: bool = False,
        doubles: bool = False,
        gives_back: int = 0,
    ) -> None:
        self._sells_twice, self._loses_carts, self._doubles = sells_twice, loses_carts, doubles
        self._gives_back = gives_back  # of each variant of an order that is cancelled after its confirmation
        self._cart: dict[str, int] = {}
        self._orders: dict[str, dict[str, Any]] = {}  # by request

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else {}
        match request.method, request.url.path.split("/")[3]:
            case "DELETE", "cart":
                self._cart = {}
                return httpx.Response(204)
            case "POST", "cart":
                self._cart[body["variant_id"]] = body["quantity"]
                return httpx.Response(200, json={"items": _lines(self._cart)})
            case "GET", "cart":
                return httpx.Response(200, json={"items": _lines(self._cart)})
            case "POST", "orders":
                return self._place(body["request_id"], body["payment_token"])
            case "GET", "orders":
                return httpx.Response(200, json=self._order(request.url.path.split("/")[4]))
            case "PUT", "orders":
                order = self._order(request.url.path.split("/")[4])
                if self._gives_back:
                    self._cart = {line["variant_id"]: self._gives_back for line in order["items"]}
                return httpx.Response(200, json=order)
        return httpx.Response(200, json={})

    def _place(self, request_id: str, card: str) -> httpx.Response:
        if request_id not in self._orders:
            if not self._cart:
                return _refused(409, "CART_EMPTY")
            status = "cancelled" if card == "tok_declined" else "confirmed"
            items = _lines(self._cart)
            self._orders[request_id] = {
                "order_id": str(uuid4()),
                "status": status,
                "items": items,
                "status_history": [{"status": "pending"}, {"status": status}],
            }
            if (status == "confirmed" and not self._sells_twice) or self._loses_carts:
                self._cart = {}
            elif self._doubles:
                self._cart = {line["variant_id"]: 2 * line["quantity"] for line in items}
        elif self._orders[request_id]["status"] == "cancelled":
            order_id = self._orders[request_id]["order_id"]
            return _refused(409, "REQUEST_ID_USED", order_id=order_id)
        return httpx.Response(200, json=self._orders[request_id])

    def _order(self, order_id: str) -> dict[str, Any]:
        return next(order for order in self._orders.values() if order["order_id"] == order_id)


def _lines(quantities: dict[str, int]) -> list[dict[str, Any]]:
    return [{"variant_id": variant, "quantity": quantity} for variant, quantity in quantities.items()]


def _journey(habit: Habit) -> Journey:
    return Journey(0, habit, "tok_visa", 1, scarce=False, choice=0, browses=0, hesitates=0, mistypes=False)


async def _complaints(habit: Habit, shop: _Shop, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr("stoa_chaos.shopper._CART_WITHIN", 0)
    http = httpx.AsyncClient(base_url="http://shop", transport=httpx.MockTransport(shop))
    shopper = Shopper(http, Record(), Counter(), pause=0.001)
    await play(_journey(habit), shopper, [Item("a-product", "a-variant")])
    return shopper.record.complaints


@pytest.mark.parametrize("habit", Habit)
async def test_nobody_complains_of_a_shop_that_does_what_it_should(
    habit: Habit, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await _complaints(habit, _Shop(), monkeypatch) == []


async def test_a_cart_that_two_tabs_both_get_is_a_complaint(monkeypatch: pytest.MonkeyPatch) -> None:
    complaints = await _complaints(Habit.TABS, _Shop(sells_twice=True), monkeypatch)
    assert "one cart was sold twice" in complaints[0]


@pytest.mark.parametrize("wrong", ["loses_carts", "doubles"])
async def test_a_cart_that_does_not_come_back_as_it_was_when_its_order_fails_is_a_complaint(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    complaints = await _complaints(Habit.PERSISTENT, _Shop(**{wrong: True}), monkeypatch)
    assert "the cart does not hold {'a-variant': 1}" in complaints[0]


@pytest.mark.parametrize(("gives_back", "complaints"), [(0, 0), (1, 0), (2, 1)])
async def test_a_cart_may_come_back_as_it_was_whose_order_was_cancelled_after_its_confirmation(
    gives_back: int, complaints: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = _Shop(gives_back=gives_back)
    assert len(await _complaints(Habit.REGRETS, shop, monkeypatch)) == complaints


async def test_what_may_come_back_is_no_complaint_whenever_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    shopper = _shopper(
        *(httpx.Response(200, json={"items": _lines(cart)}) for cart in ({}, {"lamp": 2}, {"lamp": 3})),
        *(httpx.Response(200, json={"items": _lines(cart)}) for cart in ({"lamp": 2}, {"lamp": 1})),
    )
    monkeypatch.setattr("stoa_chaos.shopper._CART_WITHIN", -1)
    shopper.may_come_back["lamp"].add(2)
    assert [await shopper.cart_holds({}) for _ in range(3)] == [True, True, False]
    assert [await shopper.cart_holds({"lamp": 1}) for _ in range(2)] == [True, True]


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


@pytest.mark.parametrize(
    ("seen", "now", "good"),
    [
        ("confirmed", "shipped", True),
        ("confirmed", "returned", True),
        ("shipped", "delivered", True),
        ("shipped", "confirmed", False),
        ("delivered", "cancelled", False),
        ("cancelled", "shipped", False),
    ],
)
def test_an_order_goes_on_its_way_after_its_buyer_has_looked_and_never_back(
    seen: str, now: str, good: bool
) -> None:
    record, order_id = Record(), uuid4()
    record.saw(_shown(order_id, seen))
    assert (_report(record, **{str(order_id): now}).problems == []) == good


def test_books_that_balance_too_late_and_a_shop_that_does_not_recover_are_problems() -> None:
    report = _report(Record())
    report.quiet = timedelta(minutes=2).total_seconds()
    (strike,) = schedule(FAULTS, 1, 10, 1)
    report.strikes = [
        Struck(strike, 1.0, 1.0, answers=1.0),
        Struck(strike, 1.0, 1.0, skipped="order has no process"),
    ]
    assert len(report.problems) == 2


_KILL = FAULTS[0]


def _kill(target: str, at: float, sells: float | None, *, lasts: float = 0) -> Struck:
    return Struck(Strike(at, _KILL, target, lasts), at, at + lasts, sells=sells)


def test_the_report_says_for_each_kind_of_fault_how_soon_an_order_settled_again() -> None:
    report = _report(Record())
    report.strikes = [
        _kill("order", 1, 1.0),
        _kill("cart", 11, 4.0),
        _kill("order", 21, 1.5),
        _kill("kafka", 31, 3.0),
        Struck(Strike(41, _KILL, "cart", 0), 41, 41, skipped="cart has no process"),
    ]
    services, kafka = Spread(3, 1.5, 4.0), Spread(1, 3.0, 3.0)
    assert report.recoveries == {
        ("killed", "a service"): Recovery(services, alone=services, met=None, aim=2.0),
        ("killed", "kafka"): Recovery(kafka, alone=kafka, met=None, aim=5.0),
    }


def test_the_report_tells_faults_that_were_alone_from_those_that_met_another() -> None:
    report = _report(Record())
    report.strikes = [
        _kill("order", 1, 1.0),
        _kill("cart", 10, 20.0),  # waits for what is broken meanwhile
        _kill("mail", 12, 0.5, lasts=3),  # which is over before cart is
        _kill("kafka", 29, 3.0),  # begins before an order of cart's has settled
        _kill("user", 40, None),  # after which nothing sells again
        _kill("search", 90, 2.0),
        Struck(Strike(1.5, _KILL, "payment", 0), 1.5, 1.5, skipped="payment has no process"),
    ]
    killed = {target: recovery for (_, target), recovery in report.recoveries.items()}
    assert killed["a service"] == Recovery(
        Spread(3, 2.0, 20.0), alone=Spread(1, 1.0, 1.0), met=Spread(2, 11.0, 20.0), aim=2.0
    )
    assert (killed["kafka"].alone, killed["kafka"].met) == (None, Spread(1, 3.0, 3.0))
    assert (killed["mail"].alone, killed["mail"].met) == (None, Spread(1, 0.5, 0.5))


def test_the_table_and_the_file_say_what_was_alone_what_met_another_and_what_is_aimed_at() -> None:
    report = _report(Record())
    report.peace = 0.3
    report.strikes = [_kill("order", 1, 1.0), _kill("cart", 10, 20.0), _kill("kafka", 12, 3.0)]
    console = Console(record=True, width=200, file=io.StringIO())
    report.show(console)
    text = " ".join(console.export_text().split())
    assert "(in peace: 0.3 s)" in text
    assert "killed a service 2 10.5 20.0 1 1.0 1 20.0 2" in text
    written = report.as_json()
    assert written["peace_seconds"] == 0.3
    assert [fault["alone"] for fault in written["faults"]] == [True, False, False]
    assert written["recovery"][0] == {
        "fault": "killed",
        "target": "a service",
        "times": 2,
        "median": 10.5,
        "worst": 20.0,
        "alone": {"times": 1, "median": 1.0, "worst": 1.0},
        "met_another": {"times": 1, "median": 20.0, "worst": 20.0},
        "aim": 2.0,
    }


class _Reviewed:
    """A shop in a handler whose reviews a shopper writes: the delivery is known when it is asked again."""

    def __init__(self, *, has_review: bool = False, forgets: bool = False) -> None:
        self._forgets = forgets
        self._review = {"review_id": "a-review", "user_id": "", "title": "4 of 5", "rating": 4, "etag": "1"}
        self._has_review = has_review
        self._asked = 0
        self.votes: list[bool] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else {}
        match request.method, request.url.path.split("/")[-1]:
            case "POST", "reviews":
                self._asked += 1
                if self._asked == 1:
                    return _refused(403, "NOT_A_BUYER")
                if self._has_review:
                    return _refused(409, "ALREADY_REVIEWED", review_id="a-review")
                self._review |= body
            case "PUT", "a-review":
                assert body["etag"] == "1"
                self._review |= {} if self._forgets else body
            case "GET", "reviews":
                other = {"review_id": "another", "user_id": "another"}
                return httpx.Response(200, json={"reviews": [self._review, other]})
            case "POST", "votes":
                self.votes.append(body["helpful"])
        return httpx.Response(200, json=self._review)


@pytest.mark.parametrize("has_review", [False, True])
async def test_a_shopper_reviews_what_was_delivered_and_votes_for_others(has_review: bool) -> None:
    shop = _Reviewed(has_review=has_review)
    http = httpx.AsyncClient(base_url="http://shop", transport=httpx.MockTransport(shop))
    shopper = Shopper(http, Record(), Counter(), pause=0.001)
    await shopper.review("a-product", 2)
    assert shopper.record.complaints == []
    assert shop.votes == [False]


async def test_a_review_that_does_not_say_what_was_sent_is_a_complaint() -> None:
    shop = _Reviewed(has_review=True, forgets=True)
    http = httpx.AsyncClient(base_url="http://shop", transport=httpx.MockTransport(shop))
    shopper = Shopper(http, Record(), Counter(), pause=0.001)
    await shopper.review("a-product", 2)
    assert ["says 4 instead of 2" in complaint for complaint in shopper.record.complaints] == [True]


# ------------------------------------------------------------------------------- sending back

_LAMP = "a-variant"


class _Desk:
    """A shop in a handler that takes back two lamps of 10.00 with 1.61 of tax and 5.00 of shipping.

    `wrong` names what it does wrong, if anything.
    """

    def __init__(self, wrong: str = "") -> None:
        self._wrong = wrong
        self._order_id = uuid4()
        self._returns: dict[str, dict[str, Any]] = {}  # by request
        self._looks = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else {}
        match request.method, request.url.path.split("/")[3:]:
            case "POST", ["orders", _, "returns"]:
                return httpx.Response(200, json=self._ask(body))
            case "PUT", ["orders", _, "returns", return_id, action]:
                return self._decide(self._of(return_id), action)
            case "GET", ["orders", _, "returns"]:
                kept = [] if self._wrong == "loses it" else [*self._returns.values()]
                return httpx.Response(200, json={"returns": kept})
            case "GET", ["payments", _]:
                twice = 2 if self._wrong == "refunds twice" else 1
                return httpx.Response(200, json={"refunded_amount": _usd(twice * self._refunded)})
        self._looks += 1
        return httpx.Response(200, json=self.order("delivered" if self._looks > 1 else "shipped"))

    def order(self, status: str) -> Any:
        came_back = sum(each["units"] for each in self._returns.values() if each["status"] == "refunded")
        return {
            "order_id": str(self._order_id),
            "status": "returned" if came_back == 2 else status,
            "items": [{"variant_id": _LAMP, "quantity": 2, "price": _usd(Decimal(10))}],
            "subtotal": _usd(Decimal(20)),
            "tax_amount": _usd(Decimal("1.61")),
            "shipping_amount": _usd(Decimal(5)),
            "total_amount": _usd(Decimal("26.61")),
            "payment": {"payment_id": "a-payment"},
            "shipment": {"tracking_id": "1Z"},
        }

    @property
    def _refunded(self) -> Decimal:
        refunded = [each for each in self._returns.values() if each["status"] == "refunded"]
        return sum((amount(each["refund_amount"]) for each in refunded), Decimal(0))

    def _ask(self, body: dict[str, Any]) -> dict[str, Any]:
        request_id = str(uuid4()) if self._wrong == "doubles it" else body["request_id"]
        units = sum(item["quantity"] for item in body["items"])
        new = {"return_id": request_id, "status": "requested", "units": units}
        return self._returns.setdefault(request_id, new)

    def _of(self, return_id: str) -> dict[str, Any]:
        return next(each for each in self._returns.values() if each["return_id"] == return_id)

    def _decide(self, made: dict[str, Any], action: str) -> httpx.Response:
        before = made["status"]
        if action == "receive":
            if before == "rejected" and self._wrong != "takes what was rejected":
                return _refused(400, "RETURN_NOT_OPEN")
            if before != "refunded":
                # The second lamp costs less tax than the first, and the shipping with it.
                worth = "26.61" if made["units"] == 2 else "15.80" if self._refunded else "10.81"
                worth = "10.80" if self._wrong == "is a cent short" else worth
                made |= {"status": "refunded", "refund_amount": _usd(Decimal(worth))}
        elif action == "approve":
            if before == "rejected":
                return _refused(400, "RETURN_NOT_OPEN")
            made["status"] = "approved" if before == "requested" else before
        elif before == "refunded":
            return _refused(400, "RETURN_NOT_OPEN")
        else:
            made["status"] = "rejected"
        return httpx.Response(200, json=made)


def _usd(worth: Decimal) -> stoa_rest.Money:
    return money(worth, "USD")


async def _sent_back(plan: SendsBack, desk: _Desk, monkeypatch: pytest.MonkeyPatch) -> Record:
    monkeypatch.setattr("stoa_chaos.returns._LOOK_EVERY", 0)
    http = httpx.AsyncClient(base_url="http://shop", transport=httpx.MockTransport(desk))
    shopper = Shopper(http, Record(), Counter(), pause=0.001)
    advanced = []

    class Carriers:
        async def advance(self, tracking_id: str, scans: int) -> int:
            advanced.append(tracking_id)
            if len(advanced) == 1:
                raise httpx.ConnectError("they are down")
            return scans

    returns = Returns(shopper, Carriers())  # type: ignore[arg-type]  # all that is asked of them
    await returns.send_back(plan, shopper, desk.order("confirmed"))
    await returns.look_again()
    assert advanced
    return shopper.record


@pytest.mark.parametrize("parts", Parts)
@pytest.mark.parametrize("decision", Decision)
@pytest.mark.parametrize("hasty", [False, True])
async def test_nobody_complains_of_returns_that_end_as_they_should(
    parts: Parts, decision: Decision, hasty: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = await _sent_back(SendsBack(parts, hasty, decision, tabs=2), _Desk(), monkeypatch)
    assert record.complaints == []
    asked = 2 if parts is Parts.TWO else 1
    refunded = asked if decision is Decision.APPROVED else 0
    assert [record.returns[what] for what in ("asked for", "approved", "rejected", "refunded")] == [
        asked, refunded, asked - refunded, refunded,
    ]  # fmt: skip
    worth = {Parts.ALL: "26.61", Parts.ONE: "10.81", Parts.TWO: "26.61"}[parts]
    assert record.given_back == (Decimal(worth) if refunded else 0)


@pytest.mark.parametrize(
    ("wrong", "decision", "complaint"),
    [
        ("doubles it", Decision.APPROVED, "one request gave several returns"),
        ("loses it", Decision.APPROVED, "is lost"),
        ("refunds twice", Decision.APPROVED, "21.62 was given back of 10.81"),
        ("is a cent short", Decision.APPROVED, "is refunded with 10.80 of 10.81"),
        ("takes what was rejected", Decision.REJECTED, "was rejected, and then received"),
    ],
)
async def test_whatever_is_wrong_with_a_return_is_a_complaint(
    wrong: str, decision: Decision, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = SendsBack(Parts.ONE, hasty=False, decision=decision, tabs=1)
    record = await _sent_back(plan, _Desk(wrong), monkeypatch)
    assert any(complaint in each for each in record.complaints), record.complaints


async def test_a_parcel_that_does_not_come_is_a_complaint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stoa_chaos.returns._DELIVERED_WITHIN", -1)
    returns = Returns(_shopper(), None)  # type: ignore[arg-type]  # nobody gets as far as that
    shopper = _shopper()
    plan = SendsBack(Parts.ALL, hasty=False, decision=Decision.APPROVED, tabs=1)
    await returns.send_back(plan, shopper, _Desk().order("confirmed"))
    assert ["gave up" in complaint for complaint in shopper.record.complaints] == [True]


def test_some_of_what_was_bought_is_sent_back_in_every_way() -> None:
    plans = [journey.sends_back for journey in journeys(2000, 60, 7) if journey.sends_back is not None]
    assert 200 < len(plans) < 400
    assert {(plan.parts, plan.decision) for plan in plans} == {*product(Parts, Decision)}
    assert {(plan.hasty, plan.tabs) for plan in plans} == {*product((False, True), (1, 2))}


@pytest.mark.parametrize(
    ("habit", "keeps"), [(Habit.PLAIN, True), (Habit.PERSISTENT, True), (Habit.REGRETS, False)]
)
async def test_what_can_be_sent_back_is_what_was_bought_and_not_cancelled(habit: Habit, keeps: bool) -> None:
    http = httpx.AsyncClient(base_url="http://shop", transport=httpx.MockTransport(_Shop()))
    shopper = Shopper(http, Record(), Counter(), pause=0.001)
    bought = await play(_journey(habit), shopper, [Item("a-product", "a-variant")])
    assert (bought is not None and bought["status"] == "confirmed") == keeps
