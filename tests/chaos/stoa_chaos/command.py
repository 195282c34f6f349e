"""`stoa chaos`: a load of errands and a schedule of faults at once, then quiet, then the audit."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from rich.console import Console
from rich.text import Text

from stoa_chaos.canary import Canaries
from stoa_chaos.errands import Errand, Shopper, Variant, errands, run
from stoa_chaos.faults import striking
from stoa_chaos.ground import Ground, NotThere
from stoa_chaos.record import Counted, Record
from stoa_chaos.report import SETTLED_WITHIN, Report, Struck
from stoa_chaos.schedule import Strike, schedule
from stoa_ops.audit.command import audit
from stoa_stack.edge_client import EdgeClient
from stoa_stack.files import write_atomically
from stoa_stack.instance import CHECKOUT, Instance
from stoa_stack.status import State, Status
from stoa_stack.throwaway import IMPATIENT, throwaway
from stoa_stack.up import is_running, status_file

_STATE = CHECKOUT / ".stoa-chaos"  # the instance that is broken when none is named
_SHOPPERS = 40  # at once
_CANARIES = 6
_PLENTY, _SCARCE = (8, 5_000), (2, 25)  # products of five variants each, and the stock of a variant
_STRIKE_TRIES = 40
_BACK_WITHIN = 60.0  # seconds
_AUDIT_WITHIN = SETTLED_WITHIN * 2  # longer than it may take, to say by how much


@dataclass(frozen=True)
class Plan:
    """What is to be done."""

    seed: int
    checkouts: int
    faults: int
    minutes: float
    only: tuple[str, ...] = ()  # parts; none: all

    @property
    def seconds(self) -> float:
        """How long the load lasts."""
        return self.minutes * 60

    @property
    def strikes(self) -> list[Strike]:
        """The schedule of faults."""
        return schedule(striking(self.only), self.faults, self.seconds, self.seed)

    @property
    def errands(self) -> list[Errand]:
        """The errands of the shoppers."""
        return errands(self.checkouts, self.seconds, self.seed)


def command(console: Console, plan: Plan, *, here: bool, report_file: Path | None) -> int:
    """Break the instance that runs (`here`), or one that is made for it and thrown away.

    Returns 0 if every rule held, 1 if not, 2 if there is nothing to break.
    """
    if plan.faults and not striking(plan.only):
        console.print(f"No fault strikes {', '.join(plan.only)}.")
        return 2
    if here:
        at = Instance.current()
        if not is_running(at) or at.rate_limits:
            console.print(
                f"In {at.state} no shop runs that can be broken: "
                "start one with `STOA_RATE_LIMITS=off stoa up`, or leave out --here."
            )
            return 2
        return _break(at, console, plan, report_file)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # also then the stack is stopped
    with throwaway(console, _STATE, IMPATIENT) as at:
        return _break(at, console, plan, report_file)


def _break(at: Instance, console: Console, plan: Plan, report_file: Path | None) -> int:
    console.print(
        f"Seed {plan.seed}: {plan.checkouts} checkouts and {plan.faults} faults in {plan.minutes:g} min."
    )
    for strike in plan.strikes:
        console.print(Text(str(strike)), soft_wrap=True)
    try:
        report = asyncio.run(_until_terminated(_run(at, console, plan)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("Stopped before its end; what was broken is healed.")
        return 130
    report.show(console)
    path = report_file or at.state / "chaos.json"
    write_atomically(path, json.dumps(report.as_json(), indent=1) + "\n")
    console.print(f"The report: {path}", soft_wrap=True)
    return 1 if report.problems else 0


async def _until_terminated(running: Any) -> Report:
    """Let SIGTERM end it as Ctrl-C does: by cancelling, so that everything is healed."""
    task = asyncio.ensure_future(running)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    report: Report = await task
    return report


async def _run(at: Instance, console: Console, plan: Plan) -> Report:
    report = Report(plan.seed, Record())
    arrived = time.monotonic()
    async with _client(at, report.record) as http, _client(at, None) as uncounted:
        shop = await _stock_up(at, uncounted)
        shoppers: asyncio.Queue[Shopper] = asyncio.Queue()
        for _ in range(min(_SHOPPERS, plan.checkouts)):
            shopper = await Shopper.registered(uncounted, report.record)
            shopper.client = EdgeClient(http, shopper.client.access_token, shopper.client.user_id, tries=1)
            shoppers.put_nowait(shopper)
        canaries = await Canaries.hatched(uncounted, report.record, shop.plenty[0], _CANARIES)
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for errand in plan.errands:
                group.create_task(_go(errand, began, shoppers, shop))
            strikes = [
                group.create_task(_strike(strike, began, Ground(at), canaries, console))
                for strike in plan.strikes
            ]
    report.strikes = [strike.result() for strike in strikes]
    healed = [began + struck.began + struck.strike.lasts for struck in report.strikes]
    await _all_back(at, report.record)
    report.books, report.findings = await audit(at, _AUDIT_WITHIN)
    if not report.findings:
        report.quiet = time.monotonic() - max([report.record.last_placed, *healed])
    report.seconds = time.monotonic() - arrived
    return report


@asynccontextmanager
async def _client(at: Instance, record: Record | None) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=100)
    transport: httpx.AsyncBaseTransport = httpx.AsyncHTTPTransport(limits=limits, trust_env=False)
    if record is not None:
        transport = Counted(transport, record.requests)
    async with httpx.AsyncClient(base_url=at.edge_url, timeout=20, transport=transport) as http:
        yield http


@dataclass(frozen=True)
class _Shelves:
    plenty: Sequence[Variant]
    scarce: Sequence[Variant]


async def _stock_up(at: Instance, http: httpx.AsyncClient) -> _Shelves:
    """Put products on sale that only this run buys."""
    access = json.loads((at.state / "access.json").read_text())
    staff = await EdgeClient(http).sign_in(access["staff"]["email"], access["staff"]["password"])
    return _Shelves(
        *[
            [variant for _ in range(products) for variant in await _product(staff, stock)]
            for products, stock in (_PLENTY, _SCARCE)
        ]
    )


async def _product(staff: EdgeClient, stock: int) -> list[Variant]:
    product = {
        "name": "Storm lantern",
        "description": "Burns in any weather.",
        "category": "Lighting",
        "subcategory": "Lanterns",
        "brand": "Lumen",
        "variants": [
            {
                "sku": f"STORM-{uuid4().hex[:12]}",
                "attributes": {"size": str(size)},
                "price": {"currency_code": "USD", "units": str(10 + size), "nanos": 990_000_000},
            }
            for size in range(5)
        ],
    }
    made = (await staff.call("POST", "/api/v1/products", product)).body
    variants = [Variant(made["product_id"], each["variant_id"]) for each in made["variants"]]
    for variant in variants:
        delivery = {"delta": stock, "reason": "delivery", "request_id": str(uuid4())}
        await staff.call("POST", f"/api/v1/inventory/{variant.variant_id}/adjustments", delivery)
    return variants


async def _go(errand: Errand, began: float, shoppers: asyncio.Queue[Shopper], shop: _Shelves) -> None:
    await asyncio.sleep(max(0.0, began + errand.at - time.monotonic()))
    shopper = await shoppers.get()
    try:
        await run(errand, shopper, shop.scarce if errand.scarce else shop.plenty)
    finally:
        shoppers.put_nowait(shopper)


async def _strike(
    strike: Strike, began: float, ground: Ground, canaries: Canaries, console: Console
) -> Struck:
    await asyncio.sleep(max(0.0, began + strike.at - time.monotonic()))
    for _ in range(_STRIKE_TRIES):
        try:
            async with strike.fault.does(ground, strike.target):
                struck_at = time.monotonic() - began
                await asyncio.sleep(strike.lasts)
        except NotThere as missing:
            why = str(missing)
            await asyncio.sleep(0.25)  # it is being started after the fault before
        else:
            answers, sells = await canaries.recovery(strike.target)
            healed = f"{struck_at:6.1f} s  {strike.target} {strike.fault.name}"
            after = "never" if sells is None else f"after {sells:.1f} s"
            console.print(Text(f"{healed}: sells again {after}"), soft_wrap=True)
            return Struck(strike, struck_at, answers=answers, sells=sells)
    return Struck(strike, time.monotonic() - began, skipped=why)


async def _all_back(at: Instance, record: Record) -> None:
    """Wait until the supervisor has everything running again."""
    missing = ""
    deadline = time.monotonic() + _BACK_WITHIN
    while time.monotonic() < deadline:
        status = Status.read(status_file(at))
        parts = status.parts if status else {}
        missing = ", ".join(
            name for name, part in parts.items() if part.state not in (State.READY, State.DONE)
        )
        if parts and not missing:
            return
        await asyncio.sleep(0.5)
    record.complain(f"not running again: {missing}")
